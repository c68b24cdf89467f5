// The list of appearances: only the rows in view exist, and their pictures are drawn from the clip.

const ROW_PX = 66, PICTURES_KEPT = 300;
const list = { shown: null, rows: new Map(), here: -1 };
const small = { shift: 0, wanted: [], now: null, kept: new Map() };

// The places of the appearances that the filters leave, in order of time.
function shownAppearances() {
  if (!list.shown) {
    const found = index.appearances;
    list.shown = [];
    for (let at = 0; at < found.first.length; at++)
      if (finds(found.class_id[at], found.track[at], found.confidence[at])) list.shown.push(at);
  }
  return list.shown;
}

function buildList() {
  byId("list").onscroll = drawList;
  byId("list").onkeydown = (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const place = Number(event.target.closest("li")?.dataset.place ?? -1) + (event.key === "ArrowDown" ? 1 : -1);
    if (place < 0 || place >= shownAppearances().length) return;
    event.preventDefault();
    focusRow(place);
  };
  const video = byId("small");
  video.muted = true;
  video.onseeked = drawThumbnail;
  video.onerror = () => { small.wanted = []; small.now = null; };
  video.onloadedmetadata = nextThumbnail;
}

function resetList() {
  list.shown = null;
  for (const row of list.rows.values()) row.remove();
  list.rows.clear();
  const number = shownAppearances().length, all = index.appearances.first.length;
  byId("count").textContent = number === all ? all.toLocaleString("en") : `${number.toLocaleString("en")} of ${all.toLocaleString("en")}`;
  const rows = byId("list").firstElementChild;
  rows.style.height = `${number * ROW_PX}px`;
  byId("list").querySelector(".empty")?.remove();
  if (!number) byId("list").append(Object.assign(document.createElement("p"), { className: "empty soft", textContent: "Nothing to show with these filters." }));
  drawList();
}

function drawList() {
  const element = byId("list"), shown = shownAppearances();
  const first = Math.max(0, Math.floor(element.scrollTop / ROW_PX) - 2);
  const last = Math.min(shown.length - 1, Math.ceil((element.scrollTop + element.clientHeight) / ROW_PX) + 2);
  for (const [place, row] of list.rows) {
    if (place >= first && place <= last || row.contains(document.activeElement)) continue;
    row.remove();
    list.rows.delete(place);
  }
  small.wanted = small.wanted.filter((job) => job.canvas.isConnected);
  for (let place = first; place <= last; place++) {
    if (list.rows.has(place)) continue;
    const row = rowOf(shown[place], place), next = [...list.rows.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
    element.firstElementChild.insertBefore(row, next === undefined ? null : list.rows.get(next));
    list.rows.set(place, row);
  }
  nextThumbnail();
}

function rowOf(at, place) {
  const found = index.appearances, entry = index.byId.get(found.class_id[at]);
  const row = document.createElement("li"), button = document.createElement("button");
  const begin = index.seconds[found.first[at]], end = frameEnd(found.last[at]);
  row.style.top = `${place * ROW_PX}px`;
  row.dataset.place = place;
  row.dataset.first = found.first[at];
  row.classList.toggle("here", at === list.here);
  row.setAttribute("aria-setsize", shownAppearances().length);
  row.setAttribute("aria-posinset", place + 1);
  const swatch = document.createElement("i"), name = document.createElement("span"), words = document.createElement("span");
  swatch.style.background = entry.color;
  name.textContent = entry.name + (found.track[at] === NO_TRACK ? "" : ` ${found.track[at]}`);
  const title = document.createElement("b"), times = document.createElement("small"), more = document.createElement("small");
  title.append(swatch, name);
  times.textContent = `${timeText(begin, 1)} – ${timeText(end, 1)}`;
  more.textContent = `${(end - begin).toFixed(1)} s, best ${(found.confidence[at] / 1000).toFixed(2)}${found.most[at] > 1 ? `, up to ${found.most[at]} at once` : ""}`;
  words.append(title, times, more);
  const canvas = Object.assign(document.createElement("canvas"), { width: 176, height: 110 });
  canvas.setAttribute("aria-hidden", "true");
  button.append(canvas, words);
  button.onclick = () => { byId("video").pause(); seek(found.first[at]); };
  row.append(button);
  wantThumbnail(at, canvas);
  return row;
}

function focusRow(place) {
  const element = byId("list");
  if (place * ROW_PX < element.scrollTop) element.scrollTop = place * ROW_PX;
  if ((place + 1) * ROW_PX > element.scrollTop + element.clientHeight) element.scrollTop = (place + 1) * ROW_PX - element.clientHeight;
  drawList();
  list.rows.get(place)?.firstElementChild.focus({ preventScroll: true });
}

// Mark the appearance that began last.
function markHere() {
  const found = index.appearances, shown = shownAppearances();
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
  const found = index.appearances, shown = shownAppearances();
  const from = here();
  const firsts = shown.map((at) => found.first[at]);
  const next = direction > 0 ? firsts.find((first) => first > from) : firsts.filter((first) => first < from).pop();
  if (next !== undefined) { byId("video").pause(); seek(next); }
}

// Thumbnails come from the picture that is played, in a second video: no pixel is stored.

function thumbnailsFrom(picture) {
  small.shift = picture.shift;
  small.kept.clear();
  small.now = null;
  small.wanted = [];
  for (const [place, row] of list.rows) wantThumbnail(shownAppearances()[place], row.querySelector("canvas"));
  const video = byId("small");
  video.preload = "auto";
  video.src = picture.address;
}

function wantThumbnail(at, canvas) {
  const kept = small.kept.get(at);
  if (kept) canvas.getContext("2d").drawImage(kept, 0, 0);
  else small.wanted.push({ at, canvas });
}

function nextThumbnail() {
  const video = byId("small");
  if (small.now || !video.videoWidth || video.readyState < 1) return;
  small.now = small.wanted.shift() || null;
  if (!small.now) return;
  const frame = index.appearances.best[small.now.at], begin = index.seconds[frame];
  video.currentTime = small.shift + begin + (frameEnd(frame) - begin) / 3;
}

function drawThumbnail() {
  const video = byId("small"), job = small.now;
  small.now = null;
  if (job) {
    const [x, y, width, height] = cropOf(job.at, video);
    job.canvas.getContext("2d").drawImage(video, x, y, width, height, 0, 0, job.canvas.width, job.canvas.height);
    if (small.kept.size >= PICTURES_KEPT) small.kept.delete(small.kept.keys().next().value);
    small.kept.set(job.at, job.canvas);
  }
  nextThumbnail();
}

// The part of the frame around the best box, in the shape of the canvas.
function cropOf(at, video) {
  const [left, top, right, bottom] = index.appearances.tenths.slice(4 * at, 4 * at + 4).map((tenth) => tenth / 10);
  const x = video.videoWidth / index.size_wh[0], y = video.videoHeight / index.size_wh[1], shape = 176 / 110;
  let width = Math.max((right - left) * x * 1.3, (bottom - top) * y * 1.3 * shape, 48);
  width = Math.min(width, video.videoWidth, video.videoHeight * shape);
  const height = width / shape;
  const begin = (middle, length, whole) => Math.max(0, Math.min(whole - length, middle - length / 2));
  return [begin(((left + right) / 2) * x, width, video.videoWidth), begin(((top + bottom) / 2) * y, height, video.videoHeight), width, height];
}
