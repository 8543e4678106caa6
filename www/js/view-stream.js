// A line of time for each device of a job: waiting for data, computing, idle.

import { fitCanvas, h, isDark, keyed, paced, setText, show, variable } from './dom.js';
import { colourOf } from './colours.js';
import { duration } from './format.js';
import { lanes, perDevice } from './mosaic.js';
import { strings } from './strings.js';
import { nameOf } from './view-watch.js';

const text = strings.stream;
const LANE_HEIGHT = { min: 3, max: 9 };
const LINE_HEIGHT = 18;
const WAITING = 0.38;
/** Lines drawn in one frame; the others follow in the next ones. */
const FRAME_LINES = 6;

export function mountStream(actions) {
  const list = h('ul', { id: 'stream-list', class: 'stream' });
  const end = h('span', { class: 'numeric' });
  const axis = h('div', { class: 'stream-axis quiet', 'aria-hidden': 'true' }, h('span', {}, duration(0)), end);
  const key = h('p', { class: 'quiet' }, text.key);
  const element = h(
    'div',
    { id: 'stream', hidden: true },
    h('h3', { id: 'stream-heading' }, text.heading),
    h('div', { class: 'stream-scroll', tabindex: 0, role: 'region', 'aria-labelledby': 'stream-heading' }, list),
    axis,
    key,
  );
  new ResizeObserver(() => actions.redraw()).observe(list);
  const due = paced(actions.redraw);
  /** What is shown: the lines, and where their bars lie. @type {any} */
  let packed = { pieces: null, lines: [], lanes: [], span: 0, empty: '' };

  return {
    element,
    update(page) {
      const job = page.jobs[page.openJob];
      const mosaic = page.mosaic;
      const timed = Boolean(job && !job.products && mosaic?.job === page.openJob && mosaic.pieces.some(({ at }) => at !== null));
      show(element, timed);
      if (!timed || list.clientWidth === 0) return;
      const dark = isDark();
      if (due([mosaic.job, mosaic.node, job.state, mosaic.pieces.length === job.tiles_total, list.clientWidth, dark].join(' '))) {
        if (packed.pieces !== mosaic.pieces) packed = { ...packed, pieces: mosaic.pieces, lanes: lanes(mosaic) };
        packed.span = packed.lanes.flat().reduce((most, lane) => Math.max(most, lane.at(-1).to), job.seconds);
        packed.empty = variable(list, '--empty-tile');
        packed.lines = perDevice(mosaic).map((sum) => ({ ...sum, ...mosaic.devices[sum.place], colour: colourOf(page.palette, mosaic.devices[sum.place].device, dark) }));
        setText(end, duration(packed.span));
        keyed(list, packed.lines, ({ device }) => device, createLine, (item, line) => updateLine(item, line, packed.span, page.devices));
      }
      drawSome([mosaic.job, mosaic.node, mosaic.replaced].join(' '));
    },
  };

  /** Draws the bars of lines that have changed, some in each frame: each line has a canvas. */
  function drawSome(whose) {
    const width = list.firstElementChild?.children[1].clientWidth ?? 0;
    let drawn = 0;
    packed.lines.forEach((line, index) => {
      const strip = list.children[index].children[1];
      const what = [whose, line.tiles, width, packed.span.toPrecision(3), line.colour].join(' ');
      if (what === strip.dataset.drawn) return;
      drawn += 1;
      if (drawn > FRAME_LINES) return;
      strip.dataset.drawn = what;
      draw(strip.firstElementChild, width, packed.lanes[line.place], packed.span, line.colour, packed.empty);
    });
    if (drawn > FRAME_LINES) actions.redraw();
  }
}

function updateLine(item, line, span, devices) {
  const [name, , figures] = item.children;
  const all = Math.max(1, line.slots) * span;
  const shares = [line.kernel, line.transfer].map((part) => Math.min(100, Math.round((100 * part) / all)));
  setText(name.lastChild, nameOf(line, devices));
  setText(figures, text.shares(shares[0], shares[1]));
  if (name.firstChild.dataset.colour === line.colour) return;
  name.firstChild.dataset.colour = line.colour;
  name.firstChild.style.backgroundColor = line.colour;
}

function createLine({ device }) {
  return h(
    'li',
    { 'data-device': device },
    h('span', { class: 'stream-name' }, h('span', { class: 'swatch', 'aria-hidden': 'true' }), h('span', { class: 'name' })),
    h('div', { class: 'stream-strip' }, h('canvas', { 'aria-hidden': 'true' })),
    h('span', { class: 'stream-shares quiet numeric' }),
  );
}

function draw(canvas, width, bars, span, colour, empty) {
  const lane = Math.max(LANE_HEIGHT.min, Math.min(LANE_HEIGHT.max, Math.floor(LINE_HEIGHT / bars.length)));
  const { context, ratio } = fitCanvas(canvas, width, Math.max(LINE_HEIGHT, lane * bars.length));
  context.fillStyle = empty;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const x = (seconds) => (seconds / span) * canvas.width;
  const high = canvas.height / Math.max(1, bars.length);
  context.fillStyle = colour;
  bars.forEach((list, row) => {
    for (const { from, mid, to } of list) {
      const top = row * high;
      context.globalAlpha = WAITING;
      if (mid > from) context.fillRect(x(from), top, x(mid) - x(from), high - ratio);
      context.globalAlpha = 1;
      // Short ones are seen, too.
      context.fillRect(x(mid), top, Math.max(ratio / 2, x(to) - x(mid) - ratio / 2), high - ratio);
    }
  });
}
