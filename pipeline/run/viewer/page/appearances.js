// Appearances: their rows in the list, with pictures that are drawn from the clip.

const PICTURES_KEPT = 300;
const small = { shift: 0, wanted: [], now: null, kept: new Map() };

const appearanceKind = {
  title: "Appearances", rowPx: 66, shown: null,
  columns: () => index.appearances,
  passes: (at) => finds(index.appearances.class_id[at], index.appearances.track[at], index.appearances.confidence[at]),
  fill: fillAppearance,
};

function fillAppearance(at, button) {
  const found = index.appearances, entry = index.byId.get(found.class_id[at]);
  const begin = index.seconds[found.first[at]], end = frameEnd(found.last[at]);
  const canvas = Object.assign(document.createElement("canvas"), { width: 176, height: 110 });
  canvas.setAttribute("aria-hidden", "true");
  button.append(canvas, wordsOf(
    entry, entry.name + (found.track[at] === NO_TRACK ? "" : ` ${found.track[at]}`),
    `${timeText(begin, 1)} – ${timeText(end, 1)}`,
    `${(end - begin).toFixed(1)} s, best ${(found.confidence[at] / 1000).toFixed(2)}${found.most[at] > 1 ? `, up to ${found.most[at]} at once` : ""}`,
  ));
  wantThumbnail(at, canvas);
}

// Thumbnails come from the picture that is played, in a second video: no pixel is stored.

function buildThumbnails() {
  const video = byId("small");
  video.muted = true;
  video.onseeked = drawThumbnail;
  video.onerror = () => { small.wanted = []; small.now = null; };
  video.onloadedmetadata = nextThumbnail;
}

function thumbnailsFrom(picture) {
  small.shift = picture.shift;
  small.kept.clear();
  small.now = null;
  small.wanted = [];
  if (list.kind === appearanceKind)
    for (const [place, row] of list.rows) wantThumbnail(shownOf(list.kind)[place], row.querySelector("canvas"));
  const video = byId("small");
  video.preload = "auto";
  video.src = picture.address;
}

// Draw those of the rows that are still in the list.
function drawThumbnails() {
  small.wanted = small.wanted.filter((job) => job.canvas.isConnected);
  nextThumbnail();
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
