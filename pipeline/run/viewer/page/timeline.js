// The timeline: a row for each line and zone, boxes per frame of each class with the appearances below them, and zoom.

const ROW = 30, AXIS = 22, STRIP = 4;
const EXACT_CHUNKS = 4;  // A view of no more chunks is counted frame by frame.
const view = { from: 0, to: 1, left: 0, width: 1, top: AXIS, drawn: false };
let queued = false;

function buildTimeline(onView) {
  const element = byId("timeline");
  view.onView = onView;
  showAll();
  let drag = null;
  element.onpointerdown = (event) => {
    if (event.button || !event.isPrimary) return;
    const found = eventAt(event);
    if (found !== null) { seek(events.first[found]); return; }  // A hand that moves a little stays there.
    drag = event.pointerId;
    element.setPointerCapture(drag);
    goTo(secondsAt(event));
  };
  element.onpointermove = (event) => {
    if (drag !== null) goTo(secondsAt(event));
    readOut(secondsAt(event), event);
  };
  element.onpointerup = element.onpointercancel = () => { drag = null; };
  element.onpointerleave = () => { byId("readout").textContent = ""; };
  element.addEventListener("wheel", (event) => {
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!sideways && element.scrollHeight > element.clientHeight && !event.ctrlKey && event.clientX < element.getBoundingClientRect().left + gutter()) return;
    event.preventDefault();
    if (sideways) pan((event.deltaX || event.deltaY) / element.clientWidth);
    else zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 200))), secondsAt(event));
  }, { passive: false });
  byId("zoom-in").onclick = () => zoom(0.5);
  byId("zoom-out").onclick = () => zoom(2);
  byId("zoom-fit").onclick = showAll;
  element.setAttribute("aria-valuemax", index.end.toFixed(3));
}

function gutter() {
  return byId("timeline").clientWidth < 600 ? 0 : 112;
}

function secondsAt(event) {
  const left = byId("timeline").getBoundingClientRect().left + gutter();
  const share = (event.clientX - left) / (byId("timeline").clientWidth - gutter());
  return Math.max(0, Math.min(index.end, view.from + share * (view.to - view.from)));
}

function xOf(seconds) {
  return view.left + ((seconds - view.from) / (view.to - view.from)) * (view.width - view.left);
}

function setView(from, to) {
  const least = Math.min(index.end, 8 * index.typical) || 1;
  const width = Math.max(least, Math.min(index.end || 1, to - from));
  view.from = Math.max(0, Math.min((index.end || 1) - width, from));
  view.to = view.from + width;
  view.onView();
  drawTimeline();
}

function showAll() {
  setView(0, index.end);
}

function isZoomed() {
  return view.to - view.from < index.end * 0.999;
}

// Keep a time where it is: by default that of the shown frame, if it is in view.
function zoom(factor, around) {
  const now = index.seconds[player.frame] ?? 0;
  const middle = around ?? (now >= view.from && now <= view.to ? now : (view.from + view.to) / 2);
  setView(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor);
}

function pan(share) {
  const by = share * (view.to - view.from);
  setView(view.from + by, view.to + by);
}

function drawTimeline() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; drawRows(); });
}

function drawRows() {
  const canvas = byId("timeline").firstElementChild, context = canvas.getContext("2d");
  const scale = window.devicePixelRatio || 1, width = byId("timeline").clientWidth;
  view.width = width;  // Read once: reading it for each mark would be most of the time.
  view.left = gutter();
  view.top = AXIS + shownShapes().length * ROW;
  const rows = index.classes.filter(findsClass), height = view.top + Math.max(1, rows.length) * ROW;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
    byId("playhead").style.height = `${height}px`;
  }
  const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(name);
  const colors = { ink: color("--ink"), soft: color("--soft"), line: color("--line"), paper: color("--paper") };
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  drawAxis(context, width, height, colors);
  const columns = Math.max(1, Math.floor((width - view.left) / 2)), counts = countColumns(columns);
  view.counts = counts;
  rows.forEach((entry, place) => {
    const bottom = view.top + (place + 1) * ROW, values = counts.boxes.get(entry.id);
    if (values) drawArea(context, values, bottom - STRIP - 1, ROW - STRIP - 5, entry.color);
    drawRowName(context, entry.name, place + shownShapes().length, width, colors, entry.color);
  });
  drawAppearances(context, rows, width);
  drawEventRows(context, width, colors);
  view.drawn = true;
  movePlayhead();
}

// The name of a row beside it, or in it where there is no room; and the line below it. color: of its class; null without one.
function drawRowName(context, name, place, width, colors, color) {
  const bottom = AXIS + (place + 1) * ROW, isInside = view.left === 0;
  context.fillStyle = colors.line;
  context.fillRect(0, bottom - 0.5, width, 1);
  context.textBaseline = isInside ? "top" : "middle";
  const [x, y] = isInside ? [6, bottom - ROW + 3] : [color ? 25 : 8, bottom - ROW / 2];
  const text = shortened(context, name, isInside ? width / 2 : view.left - x - 9);
  if (isInside) {
    context.strokeStyle = colors.paper;
    context.lineWidth = 3;
    context.strokeText(text, x, y);
  } else if (color) {
    context.fillStyle = color;
    context.fillRect(8, bottom - ROW / 2 - 5, 10, 10);
  }
  context.fillStyle = colors.ink;
  context.fillText(text, x, y);
}

function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let kept = text;
  while (kept && context.measureText(`${kept}…`).width > width) kept = kept.slice(0, -1);
  return `${kept}…`;
}

function drawAxis(context, width, height, colors) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400];
  const perPixel = (view.to - view.from) / Math.max(1, width - view.left);
  const every = steps.find((step) => step >= 90 * perPixel) || 86400;
  context.textBaseline = "middle";
  for (let at = Math.ceil(view.from / every - 1e-9); at * every <= view.to; at++) {
    const x = Math.round(xOf(at * every));
    context.fillStyle = colors.line;
    context.fillRect(x, AXIS - 5, 1, height);
    context.fillStyle = colors.soft;
    const text = timeText(at * every, every >= 1 ? 0 : every >= 0.1 ? 1 : 2);
    if (x + 4 + context.measureText(text).width < width) context.fillText(text, x + 4, AXIS / 2);
  }
}

// Mean boxes per frame of each class in each column of two pixels.
function countColumns(columns) {
  const frames = new Float64Array(columns), boxes = new Map();
  const counts = { frames, boxes, columns, isExact: false };
  if (!index.seconds.length || !index.chunks.length) return counts;
  const first = frameAt(view.from), last = frameAt(view.to), parts = [];
  const from = chunkOf(first), to = chunkOf(last);
  if (to - from < EXACT_CHUNKS) for (let number = from; number <= to; number++) parts.push(chunk(number, drawTimeline));
  counts.isExact = parts.length > 0 && parts.every(Boolean);
  const add = (classId, begin, end, number) => {
    if (!boxes.has(classId)) boxes.set(classId, new Float64Array(columns));
    const values = boxes.get(classId);
    for (let at = begin; at < end; at++) values[at] += number;
  };
  const column = (seconds) => ((seconds - view.from) / (view.to - view.from)) * columns;
  const span = (begin, end) => {
    const at = Math.max(0, Math.floor(column(begin)));
    return [at, Math.min(columns, Math.max(at + 1, Math.floor(column(end))))];
  };
  if (counts.isExact) {
    for (const part of parts) countFrames(part, first, last, span, frames, add);
  } else if (!isTrackText()) countBins(span, frames, add);
  return counts;
}

function countFrames(part, first, last, span, frames, add) {
  const stop = Math.min(last, part.first + part.starts.length - 2);
  for (let frame = Math.max(first, part.first); frame <= stop; frame++) {
    const [begin, end] = span(index.seconds[frame], frameEnd(frame)), at = frame - part.first;
    for (let place = begin; place < end; place++) frames[place]++;
    for (let i = part.starts[at]; i < part.starts[at + 1]; i++)
      if (finds(part.classes[i], part.tracks ? part.tracks[i] : NO_TRACK, part.confidences[i])) add(part.classes[i], begin, end, 1);
  }
}

function countBins(span, frames, add) {
  const { bin_seconds: width, levels, frames: perBin, boxes } = index.overview;
  const least = Math.round(filters.least * levels);
  const firstBin = Math.floor(view.from / width), lastBin = Math.ceil(view.to / width);
  for (let bin = firstBin; bin <= lastBin && bin < perBin.length; bin++) {
    const [begin, end] = span(bin * width, (bin + 1) * width);
    for (let place = begin; place < end; place++) frames[place] += perBin[bin];
  }
  for (const [id, rows] of Object.entries(boxes)) {
    const entry = index.byId.get(Number(id));
    if (!entry || !findsClass(entry)) continue;
    for (const [bin, level, ...counts] of rows) {
      if (bin < firstBin || bin > lastBin) continue;
      let sum = 0;
      for (let at = Math.max(0, least - level); at < counts.length; at++) sum += counts[at];
      if (sum) add(Number(id), ...span(bin * width, (bin + 1) * width), sum);
    }
  }
}

function drawArea(context, values, bottom, height, color) {
  let most = 0;
  for (let at = 0; at < values.length; at++) {
    if (values[at]) values[at] /= view.counts.frames[at] || 1;
    most = Math.max(most, values[at]);
  }
  if (!most) return;
  context.fillStyle = color;
  context.globalAlpha = 0.8;
  for (let at = 0; at < values.length; at++) {
    if (!values[at]) continue;
    const tall = Math.max(2, (values[at] / most) * height);
    context.fillRect(view.left + 2 * at, bottom - tall, 2, tall);
  }
  context.globalAlpha = 1;
}

function drawAppearances(context, rows, width) {
  const places = new Map(rows.map((entry, place) => [entry.id, place])), found = index.appearances;
  const first = frameAt(view.from), last = frameAt(view.to), drawnTo = new Array(rows.length).fill(-1);
  for (const at of shownOf(appearanceKind)) {
    if (found.last[at] < first || found.first[at] > last) continue;
    const place = places.get(found.class_id[at]);
    const begin = xOf(index.seconds[found.first[at]]), end = xOf(frameEnd(found.last[at]));
    const left = Math.max(view.left, begin);
    if (place === undefined || Math.min(width, Math.max(end, left + 2)) <= drawnTo[place]) continue;
    drawnTo[place] = end;
    context.fillStyle = index.byId.get(found.class_id[at]).color;
    context.fillRect(left, view.top + (place + 1) * ROW - STRIP, Math.max(2, Math.min(width, end) - left - 1), STRIP - 1);
  }
}

function movePlayhead() {
  const seconds = index.seconds[player.frame] ?? 0, x = xOf(seconds);
  byId("playhead").hidden = x < view.left - 1 || x > view.width;
  byId("playhead").style.transform = `translateX(${x.toFixed(1)}px)`;
  byId("timeline").setAttribute("aria-valuenow", seconds.toFixed(3));
  byId("timeline").setAttribute("aria-valuetext", `${timeText(seconds)}, frame ${player.frame + 1} of ${index.seconds.length}`);
}

function readOut(seconds, event) {
  const { counts } = view;
  if (!counts) return;
  const column = Math.floor(((seconds - view.from) / (view.to - view.from)) * counts.columns);
  const parts = [timeText(seconds)], found = eventAt(event);
  if (found !== null) parts.push(eventText(found));
  for (const entry of index.classes) {
    const values = counts.boxes.get(entry.id);
    if (values && values[column] && parts.length < 8) parts.push(`${entry.name} ${Number(values[column].toFixed(1))}`);
  }
  byId("readout").textContent = event.pointerType === "touch" ? "" : parts.join(" · ");
}
