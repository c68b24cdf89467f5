// The index and the chunks of boxes, which scripts beside the page hand over.

const CHUNKS_KEPT = 24;
const NO_TRACK = -1;
let index = null;  // As in index.js, with what viewerIndex adds.
const chunks = new Map();  // By number, the one used last at the end.
const awaited = new Map();

function viewerIndex(value) {
  index = value;
  const count = value.ticks.length;
  index.seconds = new Float64Array(count);
  let tick = 0;
  for (let i = 0; i < count; i++) index.seconds[i] = (tick += value.ticks[i]) / 1e6;
  index.begins = [0];
  for (const length of value.chunks) index.begins.push(index.begins[index.begins.length - 1] + length);
  index.typical = count > 1 ? (index.seconds[count - 1] - index.seconds[0]) / (count - 1) : 0.04;
  index.end = count ? index.seconds[count - 1] + index.typical : 0;
  index.byId = new Map(value.classes.map((entry, place) => [entry.id, { ...entry, place }]));
  delete index.ticks;
}

function viewerChunk(number, value) {
  const starts = new Uint32Array(value.counts.length + 1);
  for (let i = 0; i < value.counts.length; i++) starts[i + 1] = starts[i] + value.counts[i];
  chunks.set(number, {
    first: index.begins[number],
    starts,
    classes: Uint16Array.from(value.classes),
    confidences: Uint16Array.from(value.confidences),
    tenths: Int32Array.from(value.tenths),
    tracks: value.tracks ? Float64Array.from(value.tracks) : null,
    interpolated: value.interpolated || null,
  });
}

function lastAtOrBefore(values, wanted) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= wanted) low = middle + 1; else high = middle;
  }
  return Math.max(0, low - 1);
}

function frameAt(seconds) {
  return lastAtOrBefore(index.seconds, seconds + Math.min(0.0005, index.typical / 4));
}

function frameEnd(frame) {
  return frame + 1 < index.seconds.length ? index.seconds[frame + 1] : index.seconds[frame] + index.typical;
}

function chunkOf(frame) {
  return Math.min(index.chunks.length - 1, lastAtOrBefore(index.begins, frame));
}

// The chunk with a frame; null until it is loaded, and then whenLoaded is called.
function chunkWith(frame, whenLoaded) {
  if (!index.chunks.length) return null;
  return chunk(chunkOf(frame), whenLoaded);
}

function chunk(number, whenLoaded) {
  const found = chunks.get(number);
  if (found) {
    chunks.delete(number);
    chunks.set(number, found);
    return found;
  }
  if (awaited.has(number)) {
    if (whenLoaded) awaited.get(number).add(whenLoaded);
    return null;
  }
  awaited.set(number, new Set(whenLoaded ? [whenLoaded] : []));
  const script = document.createElement("script");
  script.src = `viewer_data/${String(number).padStart(5, "0")}.js`;
  script.onload = script.onerror = () => {
    script.remove();
    const calls = awaited.get(number);
    awaited.delete(number);
    while (chunks.size > CHUNKS_KEPT) chunks.delete(chunks.keys().next().value);
    if (chunks.has(number)) calls.forEach((call) => call());
    else say(`${script.src} is missing or damaged: write the page anew with \`pipeline render\``);
  };
  document.head.append(script);
  return null;
}

function timeText(seconds, decimals = 3) {
  const whole = Math.max(0, seconds) + 0.5 / 10 ** decimals;
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const rest = Math.floor((whole % 60) * 10 ** decimals) / 10 ** decimals;
  const tail = rest.toFixed(decimals).padStart(decimals ? decimals + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}
