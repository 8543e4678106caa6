// The result matrix on a canvas: each tile in the colour of the device that computed it. Only tiles
// that are new are drawn; everything again only when size, colours or what is emphasised change.

import { fitCanvas, isDark, isStill, variable } from './dom.js';
import { colourOf } from './colours.js';

const HEIGHT_MAX = 420;
const EDGE_MIN = 44;
/** Tiles of others, while one device is emphasised. */
const FAINT = 0.16;
const FADE_MS = 350;

export class TileMap {
  #canvas;
  #context = null;
  #shown = '';
  #drawn = 0;
  #tiling = null;
  /** Tiles that appear: tile → {colour, since}. */
  #fading = new Map();
  #frame = null;
  #empty = '';

  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** Draws what is new of `mosaic` in a place of `width` pixels; `only` is a place in its devices or null. */
  draw(mosaic, width, known, only) {
    const { tiling, pieces, devices, replaced } = mosaic;
    const dark = isDark();
    const colours = devices.map(({ device }) => colourOf(known, device, dark));
    const { rows, cols, tileRows, tileCols } = tiling;
    const shown = [mosaic.job, mosaic.node, rows, cols, tileRows, tileCols, width, window.devicePixelRatio, dark, only, replaced].join(' ');
    const afresh = shown !== this.#shown || pieces.length < this.#drawn;
    if (afresh) {
      this.#shown = shown;
      this.#tiling = tiling;
      this.#drawn = 0;
      this.#fading.clear();
      this.#begin(width, mosaic.seen);
    }
    const still = afresh || isStill();
    const now = performance.now();
    for (const { tile, device } of pieces.slice(this.#drawn)) {
      const alpha = only === null || only === device ? 1 : FAINT;
      if (still) this.#paint(tile, colours[device], alpha, afresh);
      else this.#fading.set(tile, { colour: colours[device], alpha, since: now });
    }
    this.#drawn = pieces.length;
    if (this.#fading.size && this.#frame === null) this.#frame = requestAnimationFrame((time) => this.#fade(time));
  }

  /** The tile at a place on the canvas in pixels of the page, or null. */
  tileAt(x, y) {
    if (!this.#tiling) return null;
    const { rows, cols, tileRows, tileCols, gridCols } = this.#tiling;
    const { width, height } = this.#canvas.getBoundingClientRect();
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    const row = Math.floor(((y / height) * rows) / tileRows);
    const col = Math.floor(((x / width) * cols) / tileCols);
    return row * gridCols + col;
  }

  /** Where a tile is, in pixels of the page from the canvas' corner. */
  place(tile) {
    const ratio = window.devicePixelRatio || 1;
    const { x, y, width, height } = this.#rect(tile);
    return { x: x / ratio, y: y / ratio, width: width / ratio, height: height / ratio };
  }

  #begin(width, seen) {
    const { rows, cols, gridRows, gridCols } = this.#tiling;
    const wide = Math.min(width, Math.max(EDGE_MIN, (cols / rows) * HEIGHT_MAX));
    const high = Math.min(HEIGHT_MAX, Math.max(EDGE_MIN, (rows / cols) * wide));
    this.#context = fitCanvas(this.#canvas, Math.floor(wide), Math.floor(high)).context;
    this.#empty = variable(this.#canvas, '--empty-tile');
    for (let tile = 0; tile < gridRows * gridCols; tile += 1) {
      if (!(tile in seen)) this.#paint(tile, this.#empty, 1, true);
    }
  }

  #rect(tile) {
    const { rows, cols, tileRows, tileCols, gridCols } = this.#tiling;
    const { width, height } = this.#canvas;
    const row = Math.floor(tile / gridCols) * tileRows;
    const col = (tile % gridCols) * tileCols;
    const x = Math.round((col / cols) * width);
    const y = Math.round((row / rows) * height);
    return {
      x,
      y,
      width: Math.round((Math.min(cols, col + tileCols) / cols) * width) - x,
      height: Math.round((Math.min(rows, row + tileRows) / rows) * height) - y,
    };
  }

  #paint(tile, colour, alpha, blank = false) {
    const { x, y, width, height } = this.#rect(tile);
    // A line between tiles, where there is room for one.
    const gap = Math.min(width, height) > 5 ? 1 : 0;
    if (!blank) this.#context.clearRect(x, y, width, height);
    if (alpha < 1) {
      this.#context.fillStyle = this.#empty;
      this.#context.fillRect(x, y, width - gap, height - gap);
    }
    this.#context.globalAlpha = alpha;
    this.#context.fillStyle = colour;
    this.#context.fillRect(x, y, width - gap, height - gap);
    this.#context.globalAlpha = 1;
  }

  #fade(time) {
    for (const [tile, { colour, alpha, since }] of this.#fading) {
      const share = Math.min(1, Math.max(0, (time - since) / FADE_MS));
      this.#paint(tile, colour, alpha * share);
      if (share === 1) this.#fading.delete(tile);
    }
    this.#frame = this.#fading.size ? requestAnimationFrame((next) => this.#fade(next)) : null;
  }
}
