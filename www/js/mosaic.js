// Who computed which tile of a job, as the node tells it piece by piece. Pure functions.

/** Jobs of more tiles than this are not drawn tile by tile. */
export const TILES_MAX = 65_536;

/** A job of which nothing is known yet. */
export function emptyMosaic(job) {
  return { job, node: null, next: 0, tiling: null, devices: [], pieces: [], seen: {}, replaced: 0, problem: null };
}

/**
 * The mosaic after an answer of `GET /api/jobs/{job}/tiles`. Pieces are `{tile, device, at, kernel,
 * transfer}`: `at` is seconds after the job was acknowledged, or null; the others are seconds. The
 * numbers of tiles are a node's own, so another node's answer begins afresh; it must be one to `after=0`.
 */
export function withAnswer(mosaic, answer) {
  if (answer.job !== mosaic.job) return mosaic;
  const afresh = mosaic.node !== null && mosaic.node !== answer.node;
  const before = afresh ? emptyMosaic(mosaic.job) : mosaic;
  const { rows, cols, tile_rows: tileRows, tile_cols: tileCols } = answer;
  const tiling = { rows, cols, tileRows, tileCols, gridRows: Math.ceil(rows / tileRows), gridCols: Math.ceil(cols / tileCols) };
  const devices = [...before.devices];
  const places = answer.devices.map(({ device, name, kind, slots }) => {
    const known = devices.findIndex((other) => other.device === device);
    const place = known < 0 ? devices.length : known;
    // Who a device is may be written down after its first tile.
    if (known < 0 || kind !== null) devices[place] = { device, name, kind, slots };
    return place;
  });
  const seen = { ...before.seen };
  const pieces = [...before.pieces];
  let { replaced } = before;
  for (const [tile, place, at, kernel, transfer] of answer.tiles) {
    const piece = { tile, device: places[place], at: at === null ? null : at / 1e3, kernel: kernel / 1e6, transfer: transfer / 1e6 };
    // A tile that was damaged and computed again has another row; the newer one counts.
    if (tile in seen) {
      pieces[seen[tile]] = piece;
      replaced += 1;
    } else {
      seen[tile] = pieces.length;
      pieces.push(piece);
    }
  }
  return { ...before, node: answer.node, next: answer.next, tiling, devices, pieces, seen, replaced, problem: null };
}

/** The rows and columns of C that a tile covers; the last ones are included. */
export function extent({ rows, cols, tileRows, tileCols, gridCols }, tile) {
  const row = Math.floor(tile / gridCols) * tileRows;
  const col = (tile % gridCols) * tileCols;
  return { row, col, lastRow: Math.min(rows, row + tileRows) - 1, lastCol: Math.min(cols, col + tileCols) - 1 };
}

/** The piece of a tile, or undefined. */
export function pieceOf(mosaic, tile) {
  return mosaic.pieces[mosaic.seen[tile]];
}

/** The figures of each device: `{place, tiles, kernel, transfer, last}`, most tiles first. */
export function perDevice({ devices, pieces }) {
  const sums = devices.map((_, place) => ({ place, tiles: 0, kernel: 0, transfer: 0, last: null }));
  for (const { device, at, kernel, transfer } of pieces) {
    const sum = sums[device];
    sum.tiles += 1;
    sum.kernel += kernel;
    sum.transfer += transfer;
    if (at !== null && (sum.last === null || at > sum.last)) sum.last = at;
  }
  return sums.sort((x, y) => y.tiles - x.tiles || x.place - y.place);
}

/** Whether as many tiles of each device were accepted as the mosaic has, of a job that is done. */
export function agrees({ devices, pieces }, { state, tiles_done: done, contributions }) {
  if (state !== 'done' || pieces.length !== done) return true;
  const counts = perDevice({ devices, pieces }).filter(({ tiles }) => tiles > 0);
  const told = new Map(contributions.map(({ device, tiles }) => [device, tiles]));
  return counts.length === told.size && counts.every(({ place, tiles }) => told.get(devices[place].device) === tiles);
}

/**
 * Where the tiles of each device lie in time: a list of lanes for each device, each a list of
 * `{tile, from, mid, to}`: from `from` to `mid` it waited for data, from `mid` to `to` it computed, and
 * at `to` it was durable. As many lanes as the device has slots, more where tiles overlap all the same.
 */
export function lanes({ devices, pieces }) {
  const all = devices.map(() => []);
  const timed = pieces.filter(({ at }) => at !== null).sort((x, y) => x.at - y.at);
  for (const { tile, device, at, kernel, transfer } of timed) {
    const bar = { tile, from: Math.max(0, at - kernel - transfer), mid: Math.max(0, at - kernel), to: at };
    const own = all[device];
    const free = own.filter((lane) => lane.at(-1).to <= bar.from + 1e-3);
    // The one that has waited least, so that a busy device is as flat as it can be.
    const lane = free.sort((x, y) => y.at(-1).to - x.at(-1).to)[0];
    if (lane) lane.push(bar);
    else if (own.length < Math.max(1, 2 * devices[device].slots)) own.push([bar]);
    else own.reduce((first, other) => (other.at(-1).to < first.at(-1).to ? other : first)).push(bar);
  }
  return all;
}

/** Seconds until a job is done, at the pace so far; null while that can not be told. */
export function timeLeft({ state, seconds, tiles_done: done, tiles_total: total, predicted_seconds: predicted }) {
  if (state !== 'running' && state !== 'queued') return null;
  if (done > 0) return (seconds / done) * (total - done);
  return predicted === null || predicted === undefined ? null : Math.max(0, predicted - seconds);
}
