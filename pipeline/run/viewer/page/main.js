// Connects the parts of the page; handles the keys and the address.

let shownFrame = null, addressTimer = null, knownHash = null, isStarted = false;

function viewerStart() {
  if (!index) { say("viewer_data/index.js is missing or damaged: keep the folder viewer_data beside this page."); return; }
  const asked = readAddress();
  knownHash = location.hash;
  byId("boxes").checked = asked.boxes;
  list.wanted = asked.list;
  byId("trails-label").hidden = !index.tracked;
  buildFilters(onFilter);
  buildList();
  buildPlayer(onFrame, writeAddress);
  buildTimeline(writeAddress);
  showFilters();
  resetList();
  if (asked.from !== null && asked.to > asked.from) setView(asked.from, asked.to);
  const begin = asked.seconds === null ? 0 : frameAt(asked.seconds);
  player.frame = begin;
  player.wanted = begin;
  const chosen = player.pictures.findIndex((picture) => picture.key === asked.picture);
  if (player.pictures.length) play(Math.max(0, chosen)); else nextPicture();
  resize();
  onFrame();
  addEventListener("resize", () => { resize(); drawTimeline(); drawList(); });
  addEventListener("hashchange", onAddress);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTimeline);
  byId("play").onclick = byId("overlay").onclick = togglePlay;
  byId("previous").onclick = () => step(-1);
  byId("next").onclick = () => step(1);
  byId("speed").onchange = () => { byId("video").playbackRate = Number(byId("speed").value); };
  byId("sound").onchange = () => { byId("video").muted = !byId("sound").checked; };
  for (const id of ["boxes", "labels", "trails", "shapes"]) byId(id).onchange = () => { drawBoxes(); writeAddress(); };
  addEventListener("keydown", onKey);
  isStarted = true;
  loadEvents(onFilter);
}

function onFilter() {
  showFilters();
  resetList();
  drawBoxes();
  drawTimeline();
  markHere();
  writeAddress();
}

function onFrame() {
  const seconds = index.seconds[player.frame] ?? 0;
  byId("time").textContent = timeText(seconds);
  byId("frame").textContent = `of ${timeText(index.end)}, frame ${player.frame + 1} of ${index.seconds.length}`;
  byId("stage").dataset.frame = player.frame;
  if (isZoomed() && (seconds < view.from || seconds > view.to)) {
    const width = view.to - view.from;
    setView(seconds - width * 0.1, seconds + width * 0.9);
  } else if (view.drawn) movePlayhead();
  markHere();
  if (player.frame !== shownFrame) writeAddress();
  shownFrame = player.frame;
}

// The address shows the same again; it is written at most four times a second.
function writeAddress() {
  if (!isStarted || addressTimer) return;
  addressTimer = setTimeout(() => {
    addressTimer = null;
    if (location.hash !== knownHash) return;  // It was changed by hand, and will be read at once.
    const zoomed = isZoomed();
    const chosen = player.plays && player.at ? player.pictures[player.at].key : null;
    const hash = addressOf({
      seconds: index.seconds[player.frame] ?? 0,
      from: zoomed ? view.from : null,
      to: zoomed ? view.to : null,
      boxes: byId("boxes").checked,
      picture: chosen && player.pictures[0].key !== chosen ? chosen : null,
      list: list.wanted,
    });
    if (hash !== location.hash && !(hash === "#" && !location.hash)) history.replaceState(null, "", hash);
    knownHash = location.hash;
  }, 250);
}

function onAddress() {
  knownHash = location.hash;
  const asked = readAddress();
  byId("boxes").checked = asked.boxes;
  list.wanted = asked.list;
  if (asked.from !== null && asked.to > asked.from) setView(asked.from, asked.to); else showAll();
  onFilter();
  choosePicture(asked.picture);
  if (asked.seconds !== null) goTo(asked.seconds);
}

function onKey(event) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches("input[type=search], select")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const isArrow = event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End";
  if (target.matches("input[type=range]") && isArrow) return;
  if (event.key === " " && target.matches("button, summary, input, a")) return;
  const action = keys()[event.shiftKey && isArrow ? `Shift${event.key}` : event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function keys() {
  const toggle = (id) => () => { byId(id).checked = !byId(id).checked; byId(id).onchange(); };
  const jump = (seconds) => () => { byId("video").pause(); goTo(index.seconds[here()] + seconds); };
  return {
    " ": togglePlay, k: togglePlay,
    ",": () => step(-1), ".": () => step(1), ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    ShiftArrowLeft: jump(-1), ShiftArrowRight: jump(1),
    Home: () => step(-index.seconds.length), End: () => step(index.seconds.length),
    n: () => neighbour(1), p: () => neighbour(-1),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: showAll,
    b: toggle("boxes"), l: toggle("labels"), t: toggle("trails"), "/": () => byId("text").focus(),
  };
}
