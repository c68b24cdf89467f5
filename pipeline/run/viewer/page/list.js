// The list of appearances or of events: only the rows in view exist.

const list = { kind: null, wanted: "appearances", rows: new Map(), here: -1 };
const kinds = [appearanceKind, eventKind];

// The places of a kind's entries that the filters leave, in order of time.
function shownOf(kind) {
  if (!kind.shown) {
    kind.shown = [];
    for (let at = 0; at < kind.columns().first.length; at++) if (kind.passes(at)) kind.shown.push(at);
  }
  return kind.shown;
}

function buildList() {
  byId("list").onscroll = drawList;
  byId("list").onkeydown = (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const place = Number(event.target.closest("li")?.dataset.place ?? -1) + (event.key === "ArrowDown" ? 1 : -1);
    if (place < 0 || place >= shownOf(list.kind).length) return;
    event.preventDefault();
    focusRow(place);
  };
  byId("other-list").onclick = () => {
    list.wanted = list.kind === eventKind ? "appearances" : "events";
    resetList();
    markHere();
    writeAddress();
  };
  buildThumbnails();
}

// Begin the list anew, after the filters or the kind changed.
function resetList() {
  for (const kind of kinds) kind.shown = null;
  list.kind = events && list.wanted === "events" ? eventKind : appearanceKind;
  for (const row of list.rows.values()) row.remove();
  list.rows.clear();
  list.here = -1;
  const number = shownOf(list.kind).length, all = list.kind.columns().first.length;
  byId("list-title").firstChild.textContent = `${list.kind.title} `;
  byId("count").textContent = number === all ? all.toLocaleString("en") : `${number.toLocaleString("en")} of ${all.toLocaleString("en")}`;
  showEventCounts(list.kind === eventKind);
  const rows = byId("list").firstElementChild;
  rows.style.height = `${number * list.kind.rowPx}px`;
  byId("list").querySelector(".empty")?.remove();
  if (!number) byId("list").append(Object.assign(document.createElement("p"), { className: "empty soft", textContent: "Nothing to show with these filters." }));
  drawList();
}

function drawList() {
  const element = byId("list"), shown = shownOf(list.kind), { rowPx } = list.kind;
  const first = Math.max(0, Math.floor(element.scrollTop / rowPx) - 2);
  const last = Math.min(shown.length - 1, Math.ceil((element.scrollTop + element.clientHeight) / rowPx) + 2);
  for (const [place, row] of list.rows) {
    if (place >= first && place <= last || row.contains(document.activeElement)) continue;
    row.remove();
    list.rows.delete(place);
  }
  for (let place = first; place <= last; place++) {
    if (list.rows.has(place)) continue;
    const row = rowOf(shown[place], place), next = [...list.rows.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
    element.firstElementChild.insertBefore(row, next === undefined ? null : list.rows.get(next));
    list.rows.set(place, row);
  }
  drawThumbnails();
}

function rowOf(at, place) {
  const { kind } = list, row = document.createElement("li"), button = document.createElement("button");
  row.style.top = `${place * kind.rowPx}px`;
  row.style.height = `${kind.rowPx}px`;
  row.dataset.place = place;
  row.classList.toggle("here", at === list.here);
  row.setAttribute("aria-setsize", shownOf(kind).length);
  row.setAttribute("aria-posinset", place + 1);
  kind.fill(at, button);
  button.onclick = () => { byId("video").pause(); seek(kind.columns().first[at]); };
  row.append(button);
  return row;
}

// The words of a row: what, in the colour of its class, and lines below it.
function wordsOf(entry, what, ...lines) {
  const swatch = document.createElement("i"), words = document.createElement("span"), title = document.createElement("b");
  swatch.style.background = entry.color;
  title.append(swatch, Object.assign(document.createElement("span"), { textContent: what }));
  words.append(title, ...lines.map((textContent) => Object.assign(document.createElement("small"), { textContent })));
  return words;
}

function focusRow(place) {
  const element = byId("list"), { rowPx } = list.kind;
  if (place * rowPx < element.scrollTop) element.scrollTop = place * rowPx;
  if ((place + 1) * rowPx > element.scrollTop + element.clientHeight) element.scrollTop = (place + 1) * rowPx - element.clientHeight;
  drawList();
  list.rows.get(place)?.firstElementChild.focus({ preventScroll: true });
}

// Mark the entry that began last.
function markHere() {
  const found = list.kind.columns(), shown = shownOf(list.kind);
  let low = 0, high = shown.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (found.first[shown[middle]] <= player.frame) low = middle + 1; else high = middle;
  }
  const at = low ? shown[low - 1] : -1, here = at >= 0 && found.last[at] >= player.frame ? at : -1;
  if (here === list.here) return;
  list.here = here;
  for (const [place, row] of list.rows) row.classList.toggle("here", shown[place] === here);
}

function neighbour(direction) {
  const found = list.kind.columns(), from = here();
  const firsts = shownOf(list.kind).map((at) => found.first[at]);
  const next = direction > 0 ? firsts.find((first) => first > from) : firsts.filter((first) => first < from).pop();
  if (next !== undefined) { byId("video").pause(); seek(next); }
}
