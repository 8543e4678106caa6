// Who computes what of a job: the result as a map of tiles, a legend, and the same as a table.

import { h, isDark, keyed, paced, setAttribute, setText, show, table } from './dom.js';
import { colourOf } from './colours.js';
import { duration, number } from './format.js';
import { agrees, extent, perDevice, pieceOf } from './mosaic.js';
import { strings } from './strings.js';
import { TileMap } from './tile-map.js';

const text = strings.watch;
/** Rows of the table of tiles. */
const ROWS_MAX = 100;
/** Steps of the arrow keys through the map: rows, columns. */
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export function mountWatch(actions) {
  const about = h('output', { id: 'map-about', class: 'map-about quiet', 'aria-live': 'polite' });
  const canvas = h('canvas', { id: 'map', class: 'map', role: 'img', tabindex: 0, 'aria-label': text.map, 'aria-describedby': 'map-about' });
  const cursor = h('div', { class: 'map-cursor', hidden: true });
  const frame = h('div', { class: 'map-frame' }, canvas, cursor);
  const legend = h('ul', { id: 'map-legend', class: 'legend', 'aria-label': text.legend });
  const problem = h('p', { id: 'map-problem', class: 'quiet', hidden: true });
  const tiles = table('tiles-table', text.table, text.columns);
  const shown = h('p', { class: 'quiet' });
  const details = h(
    'details',
    { id: 'tiles', ontoggle: () => actions.redraw() },
    h('summary', {}, text.table),
    shown,
    h('div', { class: 'scroll tiles-scroll', tabindex: 0, role: 'region', 'aria-label': strings.tableOf(text.table) }, tiles.element),
  );
  const parts = h('div', { class: 'watch-parts' }, h('div', { class: 'map-side' }, frame, about), legend);
  const element = h('div', { id: 'watch', class: 'watch', hidden: true }, h('h3', {}, text.heading), problem, parts, details);

  const map = new TileMap(canvas);
  let mosaic = null;
  let selected = null;
  /** Devices: pinned by a press, or looked at for now. */
  let pinned = null;
  let looked = null;
  const due = paced(actions.redraw);

  new ResizeObserver(() => actions.redraw()).observe(frame);
  for (const query of ['(prefers-color-scheme: dark)', '(prefers-reduced-motion: reduce)']) {
    matchMedia(query).addEventListener('change', () => actions.redraw());
  }
  const point = ({ clientX, clientY }) => {
    const { left, top } = canvas.getBoundingClientRect();
    select(map.tileAt(clientX - left, clientY - top));
  };
  canvas.addEventListener('pointermove', point);
  canvas.addEventListener('pointerdown', point);
  canvas.addEventListener('pointerleave', ({ pointerType }) => pointerType === 'mouse' && select(null));
  canvas.addEventListener('blur', () => select(null));
  canvas.addEventListener('keydown', (event) => {
    const step = STEPS[event.key];
    if (!step || !mosaic?.tiling) return;
    event.preventDefault();
    const { gridRows, gridCols } = mosaic.tiling;
    const from = selected ?? 0;
    const inside = (value, end) => Math.min(end - 1, Math.max(0, value));
    const row = inside(Math.floor(from / gridCols) + (selected === null ? 0 : step[0]), gridRows);
    const col = inside((from % gridCols) + (selected === null ? 0 : step[1]), gridCols);
    select(row * gridCols + col);
  });

  function select(tile) {
    if (tile === selected) return;
    selected = tile;
    actions.redraw();
  }

  function look(device) {
    looked = device;
    actions.redraw();
  }

  function createEntry({ device }) {
    return h(
      'li',
      { 'data-device': device },
      h(
        'button',
        {
          type: 'button',
          class: 'legend-entry',
          onclick: () => {
            pinned = pinned === device ? null : device;
            actions.redraw();
          },
          onpointerenter: ({ pointerType }) => pointerType === 'mouse' && look(device),
          onpointerleave: () => look(null),
          onfocus: () => look(device),
          onblur: () => look(null),
        },
        h('span', { class: 'swatch', 'aria-hidden': 'true' }),
        h('span', { class: 'name' }),
        h('span', { class: 'legend-figures quiet numeric' }),
      ),
    );
  }

  function update(page) {
    const job = page.jobs[page.openJob];
    const known = page.mosaic?.job === page.openJob ? page.mosaic : null;
    show(element, Boolean(job && known && !job.products));
    if (!job || !known || job.products) return;
    if (mosaic?.job !== known.job) selected = pinned = looked = null;
    mosaic = known;
    const { tiling, devices, pieces } = mosaic;
    const differs = job.sharing ? text.shared : text.differs;
    const caveat = mosaic.problem ?? (agrees(mosaic, job) ? null : differs);
    show(problem, caveat !== null);
    setText(problem, caveat ?? '');
    show(parts, tiling !== null);
    show(details, pieces.length > 0);
    if (!tiling) return;
    const dark = isDark();
    const only = looked ?? pinned;
    const place = only === null ? -1 : devices.findIndex(({ device }) => device === only);
    if (frame.clientWidth > 0) map.draw(mosaic, frame.clientWidth, page.palette, place < 0 ? null : place);
    const sums = perDevice(mosaic);
    const named = (index) => nameOf(devices[index], page.devices);
    setAttribute(canvas, 'data-tiles', pieces.length);
    setAttribute(canvas, 'aria-label', text.mapOf(pieces.length, job.tiles_total, devices.length));
    if (due([mosaic.job, job.state, pieces.length === job.tiles_total, pinned, dark, devices.length].join(' '))) {
      keyed(legend, sums.map((sum) => ({ ...sum, device: devices[sum.place].device })), ({ device }) => device, createEntry, (item, sum) => {
        const [swatch, name, figures] = item.firstChild.children;
        setAttribute(item.firstChild, 'aria-pressed', pinned === sum.device);
        const colour = colourOf(page.palette, sum.device, dark);
        if (swatch.dataset.colour !== colour) {
          swatch.dataset.colour = colour;
          swatch.style.backgroundColor = colour;
        }
        setText(name, named(sum.place));
        setText(figures, text.share(sum.tiles, job.tiles_total));
      });
    }
    const at = selected === null ? null : pieceOf(mosaic, selected);
    if (selected !== null) setText(about, text.tile(selected, extent(tiling, selected), at, at ? named(at.device) : null));
    else if (place >= 0) setText(about, text.device(named(place), sums.find((sum) => sum.place === place)));
    else setText(about, text.hint);
    moveCursor();
    if (details.open) fillTable(tiles.body, shown, mosaic, named);
  }

  function moveCursor() {
    show(cursor, selected !== null);
    if (selected === null) return;
    const { x, y, width, height } = map.place(selected);
    Object.assign(cursor.style, { left: `${x + canvas.offsetLeft}px`, top: `${y + canvas.offsetTop}px`, width: `${width}px`, height: `${height}px` });
  }

  return { element, update };
}

/** How a device is called now, or was when it computed. */
export function nameOf({ device, name }, devices) {
  const now = devices.find((entry) => entry.device === device)?.name.trim();
  return now || name.trim() || device.slice(0, 8);
}

/** Newest first. */
function fillTable(body, shown, { pieces, tiling }, named) {
  setText(shown, text.tableShows(Math.min(ROWS_MAX, pieces.length), pieces.length));
  const latest = pieces.slice(-ROWS_MAX).reverse();
  const cells = () => ['tile', 'rows', 'cols'].map(() => h('td', { class: 'numeric' }));
  const create = ({ tile }) => h('tr', { 'data-tile': tile }, ...cells(), h('td', {}, h('span', { class: 'name' })), ...cells());
  keyed(body, latest, ({ tile }) => tile, create, (row, { tile, device, at, kernel, transfer }) => {
    const { row: firstRow, lastRow, col: firstCol, lastCol } = extent(tiling, tile);
    const texts = [
      number(tile),
      text.range(firstRow, lastRow),
      text.range(firstCol, lastCol),
      null,
      at === null ? text.unknown : duration(at),
      duration(kernel),
      duration(transfer),
    ];
    texts.forEach((value, index) => setText(value === null ? row.cells[index].firstChild : row.cells[index], value ?? named(device)));
  });
}
