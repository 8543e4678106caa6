// The arithmetic of the heat map: which window is shown, what a cell is, which colour it has. Pure
// functions. A picture is an answer of `GET /api/matrices/{id}/picture`.

/** Cells of an edge that are asked for. */
export const EDGE = 128;
/** Elements of the window that is asked for first, at most: more would keep a node busy for seconds. */
const ELEMENTS_MAX = 2 ** 28;
const ZOOM = 2;

/** What is shown first of a matrix: all of it, or a corner that can be read in a moment. */
export function firstWindow(rows, cols) {
  const edge = Math.floor(Math.sqrt(ELEMENTS_MAX));
  if (rows * cols <= ELEMENTS_MAX) return { row: 0, col: 0, rows, cols };
  const high = rows < edge ? rows : Math.min(rows, Math.max(edge, Math.floor(ELEMENTS_MAX / cols)));
  return { row: 0, col: 0, rows: high, cols: Math.min(cols, Math.floor(ELEMENTS_MAX / high)) };
}

/**
 * The window after zooming in (`factor` > 1) or out around a point given as shares of the window; whole
 * elements, inside the matrix.
 */
export function zoomed(window, whole, factor = ZOOM, at = { x: 0.5, y: 0.5 }) {
  const [rows, row] = zoomedEdge(window.rows, window.row, whole.rows, factor, at.y);
  const [cols, col] = zoomedEdge(window.cols, window.col, whole.cols, factor, at.x);
  if (rows * cols > ELEMENTS_MAX) return window;
  return { row, col, rows, cols };
}

function zoomedEdge(many, first, all, factor, share) {
  const wanted = Math.round(many / factor);
  const next = Math.min(all, Math.max(Math.min(all, 4), wanted));
  const start = Math.round(first + many * share - next * share);
  return [next, Math.min(all - next, Math.max(0, start))];
}

/** The window after moving by shares of itself. */
export function moved(window, whole, x, y) {
  const start = (first, many, all, share) => Math.min(all - many, Math.max(0, first + Math.round(many * share)));
  return { ...window, row: start(window.row, window.rows, whole.rows, y), col: start(window.col, window.cols, whole.cols, x) };
}

/** Whether two windows are the same. */
export function same(x, y) {
  return x.row === y.row && x.col === y.col && x.rows === y.rows && x.cols === y.cols;
}

/** The elements that belong to cell (y, x) of a picture: the first and last row and column. */
export function elementsOf({ row, col, rows, cols, height, width }, y, x) {
  const first = (index, cells, all) => Math.ceil((index * all) / cells);
  return {
    row: row + first(y, height, rows),
    lastRow: row + first(y + 1, height, rows) - 1,
    col: col + first(x, width, cols),
    lastCol: col + first(x + 1, width, cols) - 1,
  };
}

/** Whether each cell is one element. */
export function isExact({ rows, cols, height, width }) {
  return rows === height && cols === width;
}

/** A value of a picture as a number; it may be a text there. */
export function numeric(value) {
  return typeof value === 'number' ? value : Number(value);
}

/**
 * The ends of the scale for the values of a picture: symmetric around zero when they lie on both sides
 * of it; null when no cell is finite.
 */
export function scaleOf(cells) {
  let low = Infinity;
  let high = -Infinity;
  for (const line of cells) {
    for (const cell of line) {
      const value = numeric(cell);
      if (!Number.isFinite(value)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) return null;
  if (low < 0 && high > 0) {
    const most = Math.max(-low, high);
    return { low: -most, high: most, diverging: true };
  }
  return { low, high, diverging: false };
}

// Lightness rises or falls evenly along each ramp, so that they read without colours, too.
const SEQUENTIAL = [[24, 28, 84], [54, 74, 160], [52, 128, 180], [74, 178, 168], [160, 214, 130], [246, 240, 132]];
const DIVERGING = [[24, 64, 140], [70, 130, 200], [168, 205, 232], [245, 245, 243], [248, 196, 160], [214, 110, 72], [140, 32, 40]];

/** The colour of a value as [red, green, blue]; null for what is no number. */
export function shade(value, scale) {
  if (Number.isNaN(value) || !scale) return null;
  const span = scale.high - scale.low;
  const share = span > 0 ? Math.min(1, Math.max(0, (value - scale.low) / span)) : 0.5;
  const ramp = scale.diverging ? DIVERGING : SEQUENTIAL;
  const at = share * (ramp.length - 1);
  const from = Math.min(ramp.length - 2, Math.floor(at));
  return ramp[from].map((part, i) => Math.round(part + (ramp[from + 1][i] - part) * (at - from)));
}
