// Events: crossings of lines and visits to zones, in the list, in rows of the timeline and over the clip.

const KINDS = ["in", "out", "visit"], IN = 0, VISIT = 2;
const SHAPE_COLOR = "#ffd23f";
let events = null;  // Columns, in order of time; null without any.

const eventKind = {
  title: "Events", rowPx: 48, shown: null,
  columns: () => events ?? { first: [], last: [] },
  passes: (at) => passesButShape(at) && (!filters.shape || events.shapes[events.shape[at]].name === filters.shape),
  fill: fillEvent,
};

function viewerEvents(value) {
  if (!value) return;
  // Of classes of one name, the one with the most boxes, which comes first.
  const ids = new Map([...index.classes].reverse().map((entry) => [entry.name, entry.id]));
  events = { ...value, class_id: value.class.map((place) => ids.get(value.class_names[place])) };
}

// Events are loaded once the page is usable.
function loadEvents(whenLoaded) {
  const script = document.createElement("script");
  script.src = "viewer_data/events.js";
  script.onload = () => {
    if (!events) return;
    byId("other-list").hidden = byId("shapes-label").hidden = false;
    buildEventCounts();
    whenLoaded();
  };
  document.head.append(script);
}

function passesButShape(at) {
  return finds(events.class_id[at], events.track[at], 1000);
}

function fillEvent(at, button) {
  const begin = index.seconds[events.first[at]], entry = index.byId.get(events.class_id[at]);
  button.append(wordsOf(entry, eventText(at), events.kind[at] === VISIT ? `${timeText(begin, 1)} – ${timeText(index.seconds[events.last[at]], 1)}` : timeText(begin, 1)));
}

function eventText(at) {
  const who = `${index.byId.get(events.class_id[at]).name} ${events.track[at]}`, { name } = events.shapes[events.shape[at]];
  if (events.kind[at] !== VISIT) return `${who}: ${name} ${KINDS[events.kind[at]]}`;
  return `${who}: ${name} for ${(index.seconds[events.last[at]] - index.seconds[events.first[at]]).toFixed(1)} s`;
}

// A button for each line and zone, with how many of its events the other filters leave.

function buildEventCounts() {
  for (const shape of events.shapes) {
    const button = document.createElement("button"), counts = Object.assign(document.createElement("span"), { className: "soft" });
    button.append(`${shape.name} `, counts);
    button.dataset.shape = shape.name;
    button.onclick = () => { filters.shape = filters.shape === shape.name ? "" : shape.name; onFilter(); };
    byId("event-counts").append(button);
  }
}

function showEventCounts(isShown) {
  byId("event-counts").hidden = byId("more-events").hidden = !isShown;
  byId("other-list").textContent = isShown ? appearanceKind.title : eventKind.title;
  if (!isShown) return;
  const counts = events.shapes.map(() => [0, 0, 0]), number = events.first.length;
  for (let at = 0; at < number; at++) if (passesButShape(at)) counts[events.shape[at]][events.kind[at]]++;
  byId("event-counts").querySelectorAll("button").forEach((button, place) => {
    const [into, out, visits] = counts[place].map((count) => count.toLocaleString("en"));
    button.lastElementChild.textContent = events.shapes[place].is_zone ? `${visits} ${visits === "1" ? "visit" : "visits"}` : `${into} in, ${out} out`;
    button.setAttribute("aria-pressed", filters.shape === button.dataset.shape);
  });
  byId("more-events").hidden = number === events.total;
  byId("more-events").textContent = `The first ${number.toLocaleString("en")} of ${events.total.toLocaleString("en")} events; all are in events.csv.`;
}

// In the timeline: a row for each line and zone, with crossings upwards and downwards, and visits as bars.

function shownShapes() {
  return events ? events.shapes.filter((shape) => !filters.shape || shape.name === filters.shape) : [];
}

function drawEventRows(context, width, colors) {
  const shapes = shownShapes();
  if (!shapes.length) return;
  const places = new Map(shapes.map((shape, place) => [events.shapes.indexOf(shape), place]));
  const first = frameAt(view.from), last = frameAt(view.to), drawnTo = shapes.map(() => [-1, -1, -1]);
  for (const at of shownOf(eventKind)) {
    if (events.last[at] < first || events.first[at] > last) continue;
    const place = places.get(events.shape[at]), kind = events.kind[at], middle = AXIS + (place + 0.5) * ROW;
    const left = Math.max(view.left, xOf(index.seconds[events.first[at]])), end = Math.min(width, Math.max(left + 3, xOf(index.seconds[events.last[at]])));
    if (end <= drawnTo[place][kind]) continue;
    drawnTo[place][kind] = end;
    context.fillStyle = index.byId.get(events.class_id[at]).color;
    if (kind === VISIT) context.fillRect(left, middle - 4, end - left, 8);
    else drawArrow(context, left, middle, kind === IN ? -1 : 1);
  }
  shapes.forEach((shape, place) => drawRowName(context, shape.name, place, width, colors, null));
}

// direction: -1 upwards, 1 downwards.
function drawArrow(context, x, y, direction) {
  context.beginPath();
  context.moveTo(x - 4, y + direction);
  context.lineTo(x + 4, y + direction);
  context.lineTo(x, y + direction * 12);
  context.fill();
}

// The event at a place of the timeline; null without one.
function eventAt(pointer) {
  const element = byId("timeline"), area = element.getBoundingClientRect(), shapes = shownShapes();
  const shape = shapes[Math.floor((pointer.clientY - area.top + element.scrollTop - AXIS) / ROW)];
  const x = pointer.clientX - area.left;
  if (!shape || x < view.left) return null;
  const here = events.shapes.indexOf(shape);
  let nearest = null, least = 6;
  for (const at of shownOf(eventKind)) {
    if (events.shape[at] !== here) continue;
    const begin = xOf(index.seconds[events.first[at]]);
    const apart = events.kind[at] === VISIT && x > begin ? Math.max(x - begin > least ? 1 : 0, x - xOf(index.seconds[events.last[at]])) : Math.abs(x - begin);
    if (apart < least) { least = apart; nearest = at; }
  }
  return nearest;
}

// Over the clip: lines, with an arrow to the side that is "in", and zones.

function drawShapes(context, x, y) {
  if (!events || !byId("shapes").checked) return;
  context.lineJoin = "round";
  for (const shape of shownShapes()) {
    const points = shape.points.map(([left, top]) => [left * x, top * y]);
    const path = new Path2D();
    points.forEach(([left, top]) => path.lineTo(left, top));
    if (shape.is_zone) path.closePath(); else addArrow(path, ...points);
    context.setLineDash([]);
    for (const [color, thickness] of [["#000a", 4], [SHAPE_COLOR, 2]]) {
      context.strokeStyle = color;
      context.lineWidth = thickness;
      context.stroke(path);
    }
    drawShapeName(context, shape.name, points);
  }
}

function addArrow(path, [left, top], [right, bottom]) {
  const length = Math.hypot(right - left, bottom - top) || 1;
  const across = [(bottom - top) / length, (left - right) / length], along = [(right - left) / length, (bottom - top) / length];
  const middle = [(left + right) / 2, (top + bottom) / 2], tip = [middle[0] + 18 * across[0], middle[1] + 18 * across[1]];
  path.moveTo(...middle);
  path.lineTo(...tip);
  for (const side of [-5, 5]) {
    path.moveTo(...tip);
    path.lineTo(tip[0] - 7 * across[0] + side * along[0], tip[1] - 7 * across[1] + side * along[1]);
  }
}

function drawShapeName(context, name, points) {
  const canvas = byId("overlay"), width = context.measureText(name).width;
  const [left, top] = points[0];
  const x = Math.max(2, Math.min(canvas.clientWidth - width - 4, left + 4)), y = Math.max(10, Math.min(canvas.clientHeight - 10, top + 12));
  context.strokeStyle = "#000c";
  context.lineWidth = 3;
  context.strokeText(name, x, y);
  context.fillStyle = SHAPE_COLOR;
  context.fillText(name, x, y);
}
