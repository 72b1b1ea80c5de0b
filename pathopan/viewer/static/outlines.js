// Nuclei as vectors: fetched in squares of the slide, kept as paths, drawn only where the view is.
const CELL_UM = 512; // divides the slide into squares, each fetched once
const FINEST_MPP = 1.2; // coarser than this, a nucleus is a few pixels wide: its pixels are shown instead
const KEPT = 160; // squares in memory
const AT_ONCE = 3; // requests under way

export class Outlines {
  // fetchCell(x0, y0, x1, y1) gives the answer of the server; changed() is called when there is more to draw.
  constructor(fetchCell, changed) {
    this.fetchCell = fetchCell;
    this.changed = changed;
    this.cells = new Map(); // key to { paths, count }, least recently used first; null while under way
    this.wanted = [];
    this.underWay = 0;
    this.generation = 0;
  }

  clear() {
    this.generation += 1;
    this.cells.clear();
    this.wanted = [];
    this.underWay = 0;
  }

  // Asks for what the view, in micrometres, lacks. Gives whether outlines can be told apart, and whether all are here.
  prepare(view, size, wanted) {
    this.wanted = [];
    const fine = view.mpp <= FINEST_MPP;
    if (!wanted || !fine) return { fine, complete: false };
    const missing = [];
    for (const [column, row] of cellsIn(view, size)) {
      const key = `${column}_${row}`, cell = this.cells.get(key);
      if (cell === undefined) missing.push([column, row]);
      else if (cell) { this.cells.delete(key); this.cells.set(key, cell); }
    }
    const middle = [(view.x0 + view.x1) / 2 / CELL_UM - 0.5, (view.y0 + view.y1) / 2 / CELL_UM - 0.5];
    const far = ([column, row]) => Math.hypot(column - middle[0], row - middle[1]);
    this.wanted = missing.sort((a, b) => far(a) - far(b));
    this.pump();
    return { fine, complete: cellsIn(view, size).every(([column, row]) => this.cells.get(`${column}_${row}`)) };
  }

  get busy() { return this.underWay > 0; }

  async pump() {
    while (this.underWay < AT_ONCE && this.wanted.length) {
      const [column, row] = this.wanted.shift();
      this.load(column, row);
    }
  }

  async load(column, row) {
    const key = `${column}_${row}`, generation = this.generation;
    this.cells.set(key, null);
    this.underWay += 1;
    let found = null;
    try {
      found = await this.fetchCell(column * CELL_UM, row * CELL_UM, (column + 1) * CELL_UM, (row + 1) * CELL_UM);
    } catch { /* the page says so; the square is asked for again when the view moves */ }
    if (generation !== this.generation) return;
    this.underWay -= 1;
    if (found) this.cells.set(key, { paths: toPaths(found.classes), x: found.x_um, y: found.y_um, count: found.count });
    else this.cells.delete(key);
    for (const old of this.cells.keys()) {
      if (this.cells.size <= KEPT) break;
      if (this.cells.get(old)) this.cells.delete(old);
    }
    this.pump();
    this.changed(found !== null);
  }

  // toScreen: { scale: canvas pixels per um, x, y: um at the canvas's corner }
  draw(context, toScreen, view, size, style) {
    const unit = toScreen.scale * style.unit;
    for (const [column, row] of cellsIn(view, size, 1)) {
      const cell = this.cells.get(`${column}_${row}`);
      if (!cell) continue;
      context.setTransform(unit, 0, 0, unit, (cell.x - toScreen.x) * toScreen.scale, (cell.y - toScreen.y) * toScreen.scale);
      context.lineJoin = "round";
      for (const [kind, path] of cell.paths) {
        const color = style.colors.get(kind);
        if (!color) continue;
        if (style.fill) {
          context.globalAlpha = style.opacity * 0.35;
          context.fillStyle = color;
          context.fill(path);
        }
        context.globalAlpha = style.opacity;
        context.strokeStyle = color;
        context.lineWidth = style.width / unit;
        context.stroke(path);
      }
    }
    context.globalAlpha = 1;
  }
}

// Squares that the view touches; with a margin also those whose nuclei may reach into it.
function cellsIn(view, size, margin = 0) {
  const found = [];
  const first = (low) => Math.max(0, Math.floor(low / CELL_UM) - margin);
  const last = (high, end) => Math.min(Math.ceil(end / CELL_UM) - 1, Math.floor(high / CELL_UM) + margin);
  for (let row = first(view.y0); row <= last(view.y1, size.height); row += 1) {
    for (let column = first(view.x0); column <= last(view.x1, size.width); column += 1) found.push([column, row]);
  }
  return found;
}

function toPaths(classes) {
  return Object.entries(classes).map(([kind, { points, lengths }]) => {
    const path = new Path2D();
    let at = 0;
    for (const length of lengths) {
      path.moveTo(points[at], points[at + 1]);
      for (let i = at + 2; i < at + 2 * length; i += 2) path.lineTo(points[i], points[i + 1]);
      path.closePath();
      at += 2 * length;
    }
    return [Number(kind), path];
  });
}
