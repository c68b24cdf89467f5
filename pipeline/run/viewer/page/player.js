// The video, which frame of it is shown, and the boxes over it.

const TRAIL_SECONDS = 1.5;
const LABEL_STEPS = 12;  // In each direction, from one label in the way to the next.
const player = {
  pictures: [],  // What can be played: { key, name, address, shift }, in the order in which they are tried.
  at: 0,         // Which of them is played.
  plays: false,  // Whether a picture is there.
  frame: 0,      // The frame that is shown.
  wanted: null,  // The frame that is sought; null when there is no seek under way.
  sought: null,  // The frame of the last seek; null once the clip plays on from there.
  strange: 0,    // How many frames came at times that the data do not have.
  onFrame: null,
};

function buildPlayer(onFrame, onPlaying) {
  const video = byId("video"), source = index.source;
  player.onFrame = onFrame;
  for (const address of source ? source.addresses : [])
    player.pictures.push({ key: "source", name: "Source", address, shift: source.seconds_before });
  if (index.video) player.pictures.push({ key: "annotated", name: "Annotated clip", address: index.video, shift: 0 });
  byId("stage").style.setProperty("--aspect", index.size_wh[0] / index.size_wh[1]);
  video.muted = true;
  video.onerror = nextPicture;
  video.onloadedmetadata = () => {
    if (!video.videoWidth) { nextPicture(); return; }  // Sound of a codec whose pictures are not decoded.
    player.plays = true;
    byId("stage").style.setProperty("--aspect", video.videoWidth / video.videoHeight);
    byId("picture").value = player.pictures[player.at].key;
    say("");
    showHint();
    resize();
    seek(here());
    thumbnailsFrom(player.pictures[player.at]);
  };
  video.onseeked = () => {
    const isThere = player.wanted === null || player.wanted === player.sought;
    if (!video.requestVideoFrameCallback) showFrame(frameAt(video.currentTime - shift()));
    if (isThere) player.wanted = null; else startSeek();
  };
  video.onplay = video.onpause = video.onended = () => {
    byId("play").classList.toggle("playing", !video.paused);
    byId("play").setAttribute("aria-label", video.paused ? "Play" : "Pause");
    onPlaying();
  };
  video.ontimeupdate = () => {
    if (!video.requestVideoFrameCallback && player.wanted === null) showFrame(frameAt(video.currentTime - shift()));
    if (!video.paused && video.currentTime - shift() >= index.end) video.pause();
  };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(onPresented);
  const keys = new Map(player.pictures.map((picture) => [picture.key, picture.name]));
  for (const [value, textContent] of keys) byId("picture").append(Object.assign(document.createElement("option"), { value, textContent }));
  byId("picture").hidden = keys.size < 2;
  byId("picture").onchange = () => choosePicture(byId("picture").value);
}

// key: of a picture; any other chooses the first one that is played.
function choosePicture(key) {
  const playable = player.pictures.filter((picture) => !picture.failed);
  const chosen = playable.find((picture) => picture.key === key) ?? playable[0];
  if (chosen && (!player.plays || player.pictures[player.at].key !== chosen.key)) play(player.pictures.indexOf(chosen));
  else if (chosen) byId("picture").value = chosen.key;
}

function shift() {
  return player.plays ? player.pictures[player.at].shift : 0;
}

function play(at) {
  player.at = at;
  player.plays = false;
  player.strange = 0;
  byId("video").src = player.pictures[at].address;
}

function nextPicture() {
  player.plays = false;
  if (player.pictures.length) player.pictures[player.at].failed = true;
  if (player.at + 1 < player.pictures.length) { play(player.at + 1); return; }
  byId("video").removeAttribute("src");
  byId("play").disabled = true;
  if (player.pictures.length) {
    const source = index.source;
    const what = source && !index.video ? `${index.name} (${source.format})` : index.video;
    say(`This browser cannot play ${what}: the file is no longer there, or browsers do not play its format. `
      + "`pipeline render CLIP detections.jsonl` makes a copy that they play, and this page with it.");
  } else say("There is no clip to play: boxes are drawn on an empty picture.");
  seek(here());
}

function say(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}

function showHint() {
  const drawn = player.plays && player.pictures[player.at].key === "annotated";
  byId("hint").hidden = !drawn;
  byId("hint").textContent = "The boxes in this clip are part of its picture"
    + (player.pictures.some((picture) => picture.key === "source") ? "; those of the source are drawn by this page." : ".");
  byId("labels").checked = !drawn;
}

function onPresented(_, facts) {
  const seconds = facts.mediaTime - shift(), frame = frameAt(seconds);
  const apart = Math.min(Math.abs(seconds - index.seconds[frame]), Math.abs(frameEnd(frame) - seconds));
  // After a seek, Firefox gives the time that was sought in place of the frame's.
  const isFrames = Math.abs(facts.mediaTime - byId("video").currentTime) > 0.001;
  if (isFrames && seconds >= 0 && seconds < index.end && apart > 0.3 * (frameEnd(frame) - index.seconds[frame])) player.strange++;
  byId("video").requestVideoFrameCallback(onPresented);
  if (player.strange > 3 && player.at + 1 < player.pictures.length) {
    nextPicture();  // Another program would show other boxes with these frames.
    return;
  }
  showFrame(frame);
}

function showFrame(frame) {
  player.frame = frame;
  if (!byId("video").paused) player.sought = null;
  drawBoxes();
  player.onFrame();
}

// The frame that a step starts from. A seek may end before its frame is presented: until then
// `player.frame` is the one before, and a step from there would lose a press of a key.
function here() {
  return player.wanted ?? player.sought ?? player.frame;
}

// Go to a frame: into its interval, where rounding cannot lead to the one before it.
function seek(frame) {
  const wanted = Math.max(0, Math.min(index.seconds.length - 1, frame));
  if (!index.seconds.length) return;
  player.wanted = wanted;
  if (!player.plays) {
    player.sought = null;
    player.wanted = player.at + 1 <= player.pictures.length && byId("video").src ? wanted : null;
    showFrame(wanted);
  } else if (!byId("video").seeking) startSeek();
}

function startSeek() {
  player.sought = player.wanted;
  const begin = index.seconds[player.sought];
  byId("video").currentTime = shift() + begin + (frameEnd(player.sought) - begin) / 3;
}

function step(frames) {
  byId("video").pause();
  seek(here() + frames);
}

function goTo(seconds) {
  seek(frameAt(seconds));
}

function togglePlay() {
  const video = byId("video");
  if (!player.plays) return;
  if (video.paused) video.play().catch(() => {}); else video.pause();
}

function drawBoxes() {
  const canvas = byId("overlay"), context = canvas.getContext("2d");
  const scale = window.devicePixelRatio || 1;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  drawShapes(context, canvas.clientWidth / index.size_wh[0], canvas.clientHeight / index.size_wh[1]);
  if (!byId("boxes").checked || !index.seconds.length) return;
  const found = chunkWith(player.frame, drawBoxes);
  if (!found) return;
  chunk(Math.min(index.chunks.length - 1, chunkOf(player.frame) + 1));  // For when it is played.
  const x = canvas.clientWidth / index.size_wh[0] / 10, y = canvas.clientHeight / index.size_wh[1] / 10;
  const at = player.frame - found.first, shown = [];
  for (let i = found.starts[at]; i < found.starts[at + 1]; i++)
    if (finds(found.classes[i], found.tracks ? found.tracks[i] : NO_TRACK, found.confidences[i])) shown.push(i);
  if (found.tracks && byId("trails").checked) drawTrails(context, found, shown, x, y);
  const labels = [];
  for (const i of shown.reverse()) {
    const entry = index.byId.get(found.classes[i]);
    const [left, top, right, bottom] = found.tenths.subarray(4 * i, 4 * i + 4);
    context.strokeStyle = entry.color;
    context.lineWidth = 2;
    context.setLineDash(found.interpolated && found.interpolated[at] ? [6, 3] : []);
    context.strokeRect(left * x + 1, top * y + 1, Math.max(1, (right - left) * x - 2), Math.max(1, (bottom - top) * y - 2));
    labels.push([i, entry, left * x, top * y, right * x, bottom * y]);
  }
  if (byId("labels").checked) drawLabels(context, found, labels.reverse(), canvas);
}

function drawLabels(context, found, labels, canvas) {
  const taken = [];
  for (const [i, entry, ...box] of labels) {
    const track = found.tracks && found.tracks[i] !== NO_TRACK ? ` ${found.tracks[i]}` : "";
    const text = `${entry.name}${track} ${(found.confidences[i] / 1000).toFixed(2)}`;
    const width = context.measureText(text).width + 8, height = 17;
    const { x, y } = labelPlace(box, width, height, taken, canvas);
    taken.push({ x, y, width });
    context.fillStyle = entry.color;
    context.fillRect(x, y, width, height);
    context.fillStyle = isBright(entry.color) ? "#000" : "#fff";
    context.fillText(text, x + 4, y + height / 2 + 0.5);
  }
}

// Where a label covers no earlier one: at a corner of its box, or along the earlier ones; else where the first would be.
function labelPlace([left, top, right, bottom], width, height, taken, canvas) {
  const mostX = canvas.clientWidth - width, mostY = canvas.clientHeight - height;
  const inWay = (x, y) => taken.find((other) => x < other.x + other.width && other.x < x + width && Math.abs(y - other.y) < height);
  const x = Math.max(0, Math.min(left, mostX));
  const corners = [top - height, top, bottom, bottom - height].map((y) => ({ x, y: Math.max(0, Math.min(y, mostY)) }));
  let found = corners.find((place) => !inWay(place.x, place.y)), least = Infinity;
  if (found) return found;
  for (const column of [left, right - width, left - width, right]) {
    for (const towards of [-1, 1]) {
      let y = towards < 0 ? top - height : top;
      for (let step = 0; step < LABEL_STEPS; step++) {
        if (column < 0 || column > mostX || y < Math.max(0, top - 4 * height) || y > Math.min(mostY, bottom + 3 * height)) break;
        const other = inWay(column, y), apart = Math.abs(y - top + height) + Math.abs(column - left);
        if (!other && apart < least) { least = apart; found = { x: column, y }; }
        if (!other) break;
        y = other.y + towards * height;
      }
    }
  }
  return found ?? corners[0];
}

function isBright(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 120;
}

function drawTrails(context, found, shown, x, y) {
  const lines = new Map();
  for (const i of shown) if (found.tracks[i] !== NO_TRACK) lines.set(found.tracks[i], [[i, found]]);
  const first = frameAt(index.seconds[player.frame] - TRAIL_SECONDS);
  for (let frame = player.frame - 1; frame >= first && lines.size; frame--) {
    const part = chunkWith(frame, null);
    if (!part || !part.tracks) break;
    const at = frame - part.first;
    for (let i = part.starts[at]; i < part.starts[at + 1]; i++)
      if (lines.has(part.tracks[i])) lines.get(part.tracks[i]).push([i, part]);
  }
  context.lineWidth = 2;
  context.setLineDash([]);
  for (const points of lines.values()) {
    context.strokeStyle = index.byId.get(found.classes[points[0][0]]).color;
    context.beginPath();
    for (const [i, part] of points) {
      const [left, , right, bottom] = part.tenths.subarray(4 * i, 4 * i + 4);
      context.lineTo(((left + right) / 2) * x, bottom * y);
    }
    context.stroke();
  }
}

function resize() {
  const canvas = byId("overlay"), scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * scale);
  canvas.height = Math.round(canvas.clientHeight * scale);
  drawBoxes();
}
