// A finished run, looked at: tiles of the slide and of what was found, outlines of nuclei, and rows of what is clicked.
/* global OpenSeadragon */
import { Outlines } from "./outlines.js";
import { get, markCurrent, rgb, say, showCards, showClasses, showHeadlines, showRamp, showRegions, showScaleBar, showSlides } from "./panels.js";

const LAYERS = ["regions", "density", "nuclei"]; // from bottom to top, upon the picture
const LINE_PX = 1.5, THIN_PX = 1; // of outlines near by, and farther away

const state = { number: null, description: null, items: {}, hidden: {}, cards: [], generation: 0, vectors: false };

const osd = OpenSeadragon({
  element: get("stage"), drawer: "canvas", showNavigationControl: false, prefixUrl: "",
  showNavigator: true, navigatorPosition: "TOP_RIGHT", navigatorSizeRatio: 0.18, navigatorAutoFade: false, navigatorOpacity: 1, navigatorBackground: "#fff", navigatorBorderColor: "#9aa6b2", navigatorDisplayRegionColor: "#e69f00",
  maxZoomPixelRatio: 12, minZoomImageRatio: 0.7, visibilityRatio: 0.35, zoomPerScroll: 1.25, animationTime: 0.35, springStiffness: 9,
  blendTime: 0, imageLoaderLimit: 6, maxImageCacheCount: 400, immediateRender: true, tileRetryMax: 1,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsTouch: { clickToZoom: false },
});

osd.canvas.append(get("outlines")); // above the tiles and below the small map

async function ask(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    say("The viewer does not answer any more. Start it again with pathopan view.", true);
    throw new Error("no answer");
  }
  if (!answer.ok) {
    const text = await answer.text();
    say(text);
    throw new Error(text);
  }
  return answer.json();
}

const outlines = new Outlines(
  (x0, y0, x1, y1) => ask(`slides/${state.number}/outlines?x0=${x0}&y0=${y0}&x1=${x1}&y1=${y1}`),
  (found) => { if (found) update(); else settle(); },
);

// ---- where we look, in micrometres -------------------------------------------------------------------------------

const worldUm = () => state.description.plane.size[0] * state.description.plane.mpp; // one world unit of OpenSeadragon

function view() {
  const bounds = osd.viewport.getBounds(true), um = worldUm(), width = osd.viewport.getContainerSize().x;
  return {
    x0: bounds.x * um, y0: bounds.y * um, x1: (bounds.x + bounds.width) * um, y1: (bounds.y + bounds.height) * um,
    mpp: (bounds.width * um) / width,
  };
}

const sizeUm = () => {
  const { slide, mpp } = state.description.plane;
  return { width: slide[0] * mpp, height: slide[1] * mpp };
};

function placeAt(point) {
  const place = osd.viewport.pointFromPixel(point, true), um = worldUm();
  return { x: place.x * um, y: place.y * um };
}

function lookAt(x, y, mpp, immediately = true) {
  const um = worldUm();
  osd.viewport.panTo(new OpenSeadragon.Point(x / um, y / um), immediately);
  osd.viewport.zoomTo(um / (mpp * osd.viewport.getContainerSize().x), null, immediately);
}

function lookAtBounds([x0, y0, x1, y1]) {
  const um = worldUm(), least = 60; // um: a nucleus fills a fifth of the view
  const margin = Math.max(0.15 * Math.max(x1 - x0, y1 - y0), (least - Math.max(x1 - x0, y1 - y0)) / 2, 0);
  osd.viewport.fitBounds(new OpenSeadragon.Rect((x0 - margin) / um, (y0 - margin) / um, (x1 - x0 + 2 * margin) / um, (y1 - y0 + 2 * margin) / um));
}

// ---- layers ------------------------------------------------------------------------------------------------------

function source(layer) {
  const { size, tile, levels } = state.description.plane, number = state.number;
  const hidden = [...(state.hidden[layer] ?? [])].join("-"), kind = layer === "picture" ? "jpeg" : "png";
  return {
    width: size[0], height: size[1], tileSize: tile, minLevel: 0, maxLevel: levels - 1,
    getTileUrl: (level, x, y) => `slides/${number}/${layer}/${level}/${x}_${y}.${kind}${hidden && `?hide=${hidden}`}`,
  };
}

function addLayer(layer) {
  const generation = state.generation, old = state.items[layer];
  osd.addTiledImage({
    tileSource: source(layer), opacity: 0, index: LAYERS.indexOf(layer) + 1, replace: Boolean(old),
    success: ({ item }) => {
      if (generation !== state.generation) { osd.world.removeItem(item); return; }
      state.items[layer] = item;
      item.addHandler("fully-loaded-change", settle);
      update();
    },
  });
}

const opacity = (layer) => (get(`show-${layer}`).checked ? Number(get(`opacity-${layer}`).value) / 100 : 0);

// Bring everything in line with the view and the switches.
function update() {
  if (!state.description || osd.world.getItemCount() === 0) return;
  const now = view();
  const wanted = opacity("nuclei") > 0;
  const { fine, complete } = outlines.prepare(now, sizeUm(), wanted);
  state.vectors = wanted && fine && (complete || state.vectors); // once drawn as outlines, no going back while moving
  for (const layer of LAYERS) {
    const value = layer === "nuclei" && state.vectors ? 0 : opacity(layer);
    if (state.items[layer] && state.items[layer].getOpacity() !== value) state.items[layer].setOpacity(value);
  }
  drawOutlines(now);
  showScaleBar(now.mpp);
  settle();
}

function drawOutlines(now) {
  const canvas = get("outlines"), density = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * density, canvas.clientHeight * density].map(Math.round);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  const toScreen = { scale: density / now.mpp, x: now.x0, y: now.y0 };
  if (state.vectors) {
    const colors = new Map(state.description.nuclei.filter((c) => !state.hidden.nuclei.has(c.id)).map((c) => [c.id, rgb(c.color)]));
    const style = { unit: state.description.outlines.unit_um, colors, fill: get("fill-nuclei").checked, opacity: opacity("nuclei"), width: (now.mpp > 0.5 ? THIN_PX : LINE_PX) * density };
    outlines.draw(context, toScreen, now, sizeUm(), style);
  }
  drawPicked(context, toScreen, density);
}

function drawPicked(context, toScreen, density) {
  const card = state.cards[0];
  if (!card) return;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.beginPath();
  for (const ring of card.rings_um) {
    for (let i = 0; i < ring.length; i += 2) {
      const [x, y] = [(ring[i] - toScreen.x) * toScreen.scale, (ring[i + 1] - toScreen.y) * toScreen.scale];
      if (i === 0) context.moveTo(x, y); else context.lineTo(x, y);
    }
    context.closePath();
  }
  context.lineJoin = "round";
  for (const [color, width] of [["#ffffff", 6], ["#e69f00", 3]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: width * density });
    context.stroke();
  }
}

// Say whether all that belongs into the view is there.
function settle() {
  const shown = Array.from({ length: osd.world.getItemCount() }, (_, i) => osd.world.getItemAt(i)).filter((item) => item.getOpacity() > 0);
  const ready = state.description && shown.length > 0 && shown.every((item) => item.getFullyLoaded()) && !outlines.busy && LAYERS.every((layer) => state.items[layer]);
  get("stage").setAttribute("aria-busy", String(!ready));
}

// ---- slides ------------------------------------------------------------------------------------------------------

async function openSlide(number, place = null) {
  if (number === state.number && !place) return;
  const generation = state.generation + 1;
  Object.assign(state, { generation, number, description: null, items: {}, cards: [], vectors: false });
  get("stage").setAttribute("aria-busy", "true");
  outlines.clear();
  markCurrent(number);
  const description = await ask(`slides/${number}`);
  if (generation !== state.generation) return;
  const changed = () => { update(); };
  state.hidden = {
    regions: showClasses(get("classes-regions"), description.regions, false, () => { addLayer("regions"); changed(); }),
    nuclei: showClasses(get("classes-nuclei"), description.nuclei, true, () => { addLayer("nuclei"); changed(); }),
  };
  state.description = description;
  showHeadlines(description);
  showRamp(description.density);
  showRegions(description.largest, pickRegion);
  showCards([], description, null);
  osd.close();
  osd.addOnceHandler("open", () => {
    if (generation !== state.generation) return;
    osd.world.getItemAt(0).addHandler("fully-loaded-change", settle);
    if (place) lookAt(place.x, place.y, place.mpp);
    else osd.viewport.goHome(true);
    LAYERS.forEach(addLayer);
    update();
    remember();
  });
  osd.open(source("picture"));
}

function neighbor(step) {
  const numbers = [...get("list").querySelectorAll("button")].map((button) => Number(button.dataset.number));
  const next = numbers[numbers.indexOf(state.number) + step];
  if (next !== undefined) openSlide(next);
}

// ---- picking -----------------------------------------------------------------------------------------------------

function select(cards) {
  state.cards = cards;
  showCards(cards, state.description, (card) => { state.cards = [card, ...cards.filter((other) => other !== card)]; lookAtBounds(card.bounds_um); });
  update();
}

async function pickAt(point) {
  const { x, y } = placeAt(point), generation = state.generation;
  const found = await ask(`slides/${state.number}/pick?x=${x}&y=${y}&mpp=${view().mpp}`);
  if (generation !== state.generation) return;
  const nucleus = opacity("nuclei") > 0 ? found.nucleus : null;
  select([nucleus, found.region].filter(Boolean));
}

async function pickRegion(id) {
  const generation = state.generation, card = await ask(`slides/${state.number}/regions/${id}?mpp=${view().mpp}`);
  if (generation !== state.generation) return;
  select([card]);
  lookAtBounds(card.bounds_um);
}

// ---- what a person does ------------------------------------------------------------------------------------------

osd.addHandler("canvas-click", (event) => {
  if (!event.quick || !state.description) return;
  event.preventDefaultAction = true;
  pickAt(event.position).catch(() => {});
});
osd.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; }); // our own keys, below
osd.addHandler("update-viewport", update);
osd.addHandler("animation-finish", remember);
osd.addHandler("tile-load-failed", () => say("A tile could not be read. Is the viewer still running, and are the results still there?"));
get("stage").addEventListener("pointermove", (event) => {
  if (!state.description) return;
  const box = get("stage").getBoundingClientRect();
  const { x, y } = placeAt(new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top));
  get("place").textContent = `x ${x.toFixed(1)} µm, y ${y.toFixed(1)} µm · ${view().mpp.toPrecision(3)} µm/px`;
});
new ResizeObserver(() => update()).observe(get("stage"));

for (const layer of LAYERS) for (const part of ["show", "opacity"]) get(`${part}-${layer}`).addEventListener("input", update);
get("fill-nuclei").addEventListener("input", update);

const zoomBy = (factor) => { osd.viewport.zoomBy(factor); osd.viewport.applyConstraints(); };
const panBy = (x, y) => { osd.viewport.panBy(osd.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x, y))); osd.viewport.applyConstraints(); };
const native = () => { const now = view(); lookAt((now.x0 + now.x1) / 2, (now.y0 + now.y1) / 2, state.description.plane.mpp, false); };
const flip = (id) => { get(id).checked = !get(id).checked; update(); };
const ACTIONS = {
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), "0": () => osd.viewport.goHome(), "1": native,
  n: () => flip("show-nuclei"), r: () => flip("show-regions"), d: () => flip("show-density"), f: () => flip("fill-nuclei"),
  "[": () => neighbor(-1), "]": () => neighbor(1), "?": () => get("keys").showModal(), escape: () => select([]),
  arrowleft: (far) => panBy(-far, 0), arrowright: (far) => panBy(far, 0), arrowup: (far) => panBy(0, -far), arrowdown: (far) => panBy(0, far),
};
for (const [id, key] of [["zoom-in", "+"], ["zoom-out", "-"], ["home", "0"], ["native", "1"], ["ask", "?"]]) get(id).addEventListener("click", () => ACTIONS[key]());
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input[type=search], input[type=range], select, dialog") && event.key !== "Escape";
  const action = ACTIONS[event.key.toLowerCase()];
  if (!action || !state.description || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action(event.shiftKey ? 400 : 100);
});

// The address keeps the place, so that a reload or a bookmark of the same viewer comes back to it.
function remember() {
  if (!state.description) return;
  const now = view(), middle = [(now.x0 + now.x1) / 2, (now.y0 + now.y1) / 2].map((um) => um.toFixed(1));
  history.replaceState(null, "", `#slide=${state.number}&x=${middle[0]}&y=${middle[1]}&mpp=${now.mpp.toPrecision(5)}`);
}

const slides = await ask("slides");
showSlides(slides, (number) => openSlide(number).catch(() => {}));
const kept = new URLSearchParams(location.hash.slice(1));
const complete = slides.slides.filter((slide) => slide.number !== null).map((slide) => slide.number);
const place = Object.fromEntries(["x", "y", "mpp"].map((name) => [name, Number(kept.get(name) ?? NaN)]));
const first = complete.includes(Number(kept.get("slide") ?? NaN)) ? Number(kept.get("slide")) : complete[0];
if (first === undefined) say("No slide of this run is complete.", true);
else await openSlide(first, Object.values(place).every(Number.isFinite) && place.mpp > 0 ? place : null);
