// What is shown: classes, least confidence, text, and one line or zone; and where it is written in the address.

const byId = (id) => document.getElementById(id);
const filters = { hidden: new Set(), least: 0, text: "", shape: "" };

function matchesText(entry, track) {
  if (!filters.text) return true;
  const wanted = filters.text.toLowerCase();
  const number = /^#?(\d+)$/.exec(wanted);
  if (number && index.tracked) return track === Number(number[1]);
  return entry.name.toLowerCase().includes(wanted);
}

function finds(classId, track, perMille) {
  const entry = index.byId.get(classId);
  return Boolean(entry) && !filters.hidden.has(classId) && perMille >= filters.least * 1000 - 0.5 && matchesText(entry, track);
}

function findsClass(entry) {
  return !filters.hidden.has(entry.id) && (isTrackText() || matchesText(entry, NO_TRACK));
}

function isTrackText() {
  return index.tracked && /^#?\d+$/.test(filters.text);
}

function buildFilters(onChange) {
  for (const entry of index.classes) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: entry.id });
    const swatch = document.createElement("i");
    swatch.style.background = entry.color;
    const count = Object.assign(document.createElement("span"), { className: "soft", textContent: entry.boxes.toLocaleString("en") });
    label.append(box, swatch, entry.name, count);
    label.title = `${entry.boxes.toLocaleString("en")} boxes`;
    byId("classes").append(label);
    box.onchange = () => {
      if (box.checked) filters.hidden.delete(entry.id); else filters.hidden.add(entry.id);
      onChange();
    };
  }
  if (!index.classes.length) byId("classes").textContent = "No boxes were found.";
  if (index.tracked) byId("text").placeholder = "class, or number of a track";
  byId("text").oninput = () => { filters.text = byId("text").value.trim(); onChange(); };
  byId("confidence").oninput = () => { filters.least = Number(byId("confidence").value); onChange(); };
  byId("all").onclick = () => { filters.hidden.clear(); onChange(); };
  byId("none").onclick = () => { filters.hidden = new Set(index.classes.map((entry) => entry.id)); onChange(); };
}

function showFilters() {
  for (const box of byId("classes").querySelectorAll("input")) box.checked = !filters.hidden.has(Number(box.value));
  if (byId("text").value.trim() !== filters.text) byId("text").value = filters.text;
  byId("confidence").value = filters.least;
  byId("least").value = filters.least ? filters.least.toFixed(2) : "all";
}

/** A name in an address that was written by hand may be no code. */
function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function readAddress() {
  const values = new URLSearchParams(location.hash.slice(1));
  const least = Number(values.get("conf"));
  filters.least = least > 0 && least < 1 ? least : 0;
  filters.text = values.get("find") || "";
  filters.shape = values.get("line") || "";
  const names = values.has("classes") ? new Set(values.get("classes").split(",").map(decoded)) : null;
  filters.hidden = new Set(index.classes.filter((entry) => names && !names.has(entry.name)).map((entry) => entry.id));
  const number = (name) => (values.has(name) && Number.isFinite(Number(values.get(name))) ? Number(values.get(name)) : null);
  return {
    seconds: number("t"), from: number("from"), to: number("to"),
    boxes: values.get("boxes") !== "0", picture: values.get("picture"), list: values.get("list") || "appearances",
  };
}

function addressOf(place) {
  const values = new URLSearchParams();
  if (place.seconds) values.set("t", place.seconds.toFixed(3));
  if (filters.hidden.size) {
    const shown = index.classes.filter((entry) => !filters.hidden.has(entry.id));
    values.set("classes", shown.map((entry) => encodeURIComponent(entry.name)).join(","));
  }
  if (filters.least) values.set("conf", filters.least.toFixed(2));
  if (filters.text) values.set("find", filters.text);
  if (filters.shape) values.set("line", filters.shape);
  if (place.from !== null) { values.set("from", place.from.toFixed(3)); values.set("to", place.to.toFixed(3)); }
  if (!place.boxes) values.set("boxes", "0");
  if (place.picture) values.set("picture", place.picture);
  if (place.list !== "appearances") values.set("list", place.list);
  return `#${values}`;
}
