// What stands beside the slide. Every text goes through textContent: names come from strangers' files.
export const get = (id) => document.getElementById(id);

export function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return element;
}

export const rgb = (color) => `rgb(${color.join(" ")})`;

export function swatch(color, round) {
  // A drawn circle or square: the page's rules forbid style attributes.
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 13 13");
  svg.setAttribute("class", "swatch");
  const shape = document.createElementNS(space, round ? "circle" : "rect");
  const places = round ? { cx: 6.5, cy: 6.5, r: 6 } : { x: 0.5, y: 0.5, width: 12, height: 12, rx: 3 };
  for (const [name, value] of Object.entries({ ...places, fill: rgb(color), stroke: "rgb(0 0 0 / .3)" })) shape.setAttribute(name, value);
  svg.append(shape);
  return svg;
}

export function showSlides(answer, choose) {
  get("folder").textContent = answer.folder;
  get("notice").textContent = answer.notice;
  get("count").textContent = `${answer.slides.length} slide${answer.slides.length === 1 ? "" : "s"}`;
  const titles = new Map(answer.slides.flatMap((slide) => slide.scores.filter((s) => typeof s.sort === "number").map((s) => [s.name, s.title])));
  for (const [name, title] of titles) get("order").append(new Option(`by ${title}`, name));
  const entries = answer.slides.map((slide) => ({ slide, item: entryOf(slide, choose) }));
  const arrange = () => {
    const words = get("filter").value.toLowerCase(), name = get("order").value;
    const value = ({ slide }) => slide.scores.find((score) => score.name === name)?.sort ?? -Infinity;
    const ordered = name ? [...entries].sort((a, b) => value(b) - value(a)) : entries;
    get("list").replaceChildren(...ordered.filter(({ slide }) => slide.slide_id.toLowerCase().includes(words)).map(({ item }) => item));
  };
  get("filter").addEventListener("input", arrange);
  get("order").addEventListener("change", arrange);
  arrange();
}

function entryOf(slide, choose) {
  const item = make("li"), box = make(slide.number === null ? "div" : "button", "", slide.number === null ? "failed" : "");
  const text = make("span", "", "text");
  text.append(make("b", slide.slide_id));
  if (slide.number === null) {
    box.append(make("span", "", "blank"));
    text.append(make("span", `${slide.status || "not complete"}${slide.why ? `: ${slide.why}` : ""}`, "soft"));
    box.title = slide.why;
  } else {
    const picture = make("img");
    Object.assign(picture, { src: `slides/${slide.number}/thumbnail.jpeg`, alt: "", loading: "lazy" });
    box.append(picture);
    const score = slide.scores[0];
    text.append(make("span", score ? `${score.title} ${score.text} ${score.unit}` : slide.status, "soft"));
    box.type = "button";
    box.dataset.number = slide.number;
    box.addEventListener("click", () => choose(slide.number));
  }
  box.append(text);
  item.append(box);
  return item;
}

export function markCurrent(number) {
  for (const button of get("list").querySelectorAll("button")) {
    if (Number(button.dataset.number) === number) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

export function showHeadlines(description) {
  get("name").textContent = description.slide_id;
  document.title = `${description.slide_id} · pathopan`;
  get("trouble").hidden = !description.trouble;
  get("trouble").textContent = description.trouble
    && `The slide itself cannot be shown, so this is the stored picture (${description.stored_mpp} µm/px). ${description.trouble}`;
  get("headlines").replaceChildren(...description.headlines.map((score) => {
    const box = make("div");
    box.title = [score.meaning, score.note].filter(Boolean).join(" · ");
    box.append(make("span", score.title), make("b", score.text));
    if (score.empty) box.append(make("span", score.note, "why"));
    else box.append(make("span", [score.unit, score.interval && `(${score.interval})`].filter(Boolean).join(" ")));
    return box;
  }));
}

export function showClasses(box, classes, round, changed) {
  const hidden = new Set();
  box.replaceChildren(...classes.map((entry) => {
    const label = make("label", "", "line"), check = make("input");
    Object.assign(check, { type: "checkbox", checked: true });
    check.dataset.id = entry.id;
    check.addEventListener("change", () => {
      if (check.checked) hidden.delete(entry.id); else hidden.add(entry.id);
      changed();
    });
    label.append(check, swatch(entry.color, round), make("span", entry.name), make("span", entry.amount, "amount"));
    return label;
  }));
  return hidden;
}

export function showRamp(density) {
  const context = get("ramp").getContext("2d");
  const ramp = context.createLinearGradient(0, 0, 240, 0);
  density.stops.forEach((stop, i) => ramp.addColorStop(i / (density.stops.length - 1), rgb(stop)));
  context.fillStyle = ramp;
  context.fillRect(0, 0, 240, 10);
  get("ramp-top").textContent = `${density.top.toLocaleString("en")} per mm²`;
}

export function showCards(cards, description, go) {
  const box = get("picked");
  box.hidden = cards.length === 0;
  box.scrollTop = 0;
  box.replaceChildren(...cards.flatMap((card) => {
    const title = make("h3"), known = card.title.startsWith("Nucleus") ? description.nuclei : description.regions;
    const color = known.find((entry) => entry.name === card.class)?.color;
    if (color) title.append(swatch(color, known === description.nuclei));
    const show = make("button", "Show", "show");
    show.type = "button";
    show.addEventListener("click", () => go(card));
    title.append(make("span", card.title), show);
    const table = make("table");
    for (const row of card.rows) {
      const line = table.insertRow(), head = make("th", row.unit ? `${row.title}, ${row.unit}` : row.title), value = make("td", row.text);
      Object.assign(head, { scope: "row", title: row.meaning });
      value.title = row.note;
      if (row.interval) value.append(make("span", ` (${row.interval})`, "soft"));
      line.append(head, value);
    }
    return [title, table];
  }));
  if (cards.length) box.scrollIntoView({ block: "nearest" });
}

export function showRegions(largest, choose) {
  const shown = largest.rows.length;
  get("regions-count").textContent = shown < largest.total ? `${shown} of ${largest.total.toLocaleString("en")}` : String(shown);
  const [head, body] = [get("regions-table").tHead, get("regions-table").tBodies[0]];
  const line = make("tr");
  largest.heads.forEach((title, column) => {
    const cell = make("th"), button = make("button", title.unit ? `${title.title}, ${title.unit}` : title.title);
    Object.assign(cell, { scope: "col", title: title.meaning });
    button.type = "button";
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") !== "descending";
      for (const other of line.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? "")));
      const value = (row) => largest.rows[row.dataset.index].cells[column].sort;
      body.append(...[...body.rows].sort((a, b) => (value(a) === null) - (value(b) === null) || (down ? -1 : 1) * order(value(a), value(b))));
    });
    cell.append(button);
    line.append(cell);
  });
  head.replaceChildren(line);
  body.replaceChildren(...largest.rows.map((row, index) => {
    const entry = make("tr");
    Object.assign(entry, { tabIndex: 0 });
    entry.dataset.index = index;
    entry.append(...row.cells.map((cell) => make("td", cell.text)));
    entry.addEventListener("click", () => choose(row.region_id));
    entry.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(row.region_id); });
    return entry;
  }));
}

export function showScaleBar(mpp) {
  const longest = 150 * mpp, power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((step) => step * power).find((step) => step <= longest);
  get("bar-line").style.width = `${length / mpp}px`;
  get("bar-text").textContent = length >= 1000 ? `${length / 1000} mm` : `${Number(length.toPrecision(1))} µm`;
}

let hiding = 0;
export function say(text, stay = false) {
  clearTimeout(hiding);
  get("message").hidden = !text;
  get("message").textContent = text;
  if (text && !stay) hiding = setTimeout(() => { get("message").hidden = true; }, 8000);
}
