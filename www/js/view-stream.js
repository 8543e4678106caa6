// A line of time for each device of a job: waiting for data, computing, idle.

import { fitCanvas, h, isDark, keyed, setText, show, variable } from './dom.js';
import { colourOf } from './colours.js';
import { duration } from './format.js';
import { lanes, perDevice } from './mosaic.js';
import { strings } from './strings.js';
import { nameOf } from './view-watch.js';

const text = strings.stream;
const LANE_HEIGHT = { min: 3, max: 9 };
const LINE_HEIGHT = 18;
const WAITING = 0.38;

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
  let packed = { pieces: null, lanes: [] };

  return {
    element,
    update(page) {
      const job = page.jobs[page.openJob];
      const mosaic = page.mosaic;
      const timed = Boolean(job && !job.products && mosaic?.job === page.openJob && mosaic.pieces.some(({ at }) => at !== null));
      show(element, timed);
      if (!timed || list.clientWidth === 0) return;
      if (packed.pieces !== mosaic.pieces) packed = { pieces: mosaic.pieces, lanes: lanes(mosaic) };
      const span = Math.max(job.seconds, ...packed.lanes.flat().map((lane) => lane.at(-1).to));
      const dark = isDark();
      setText(end, duration(span));
      const lines = perDevice(mosaic).map((sum) => ({ ...sum, ...mosaic.devices[sum.place] }));
      keyed(list, lines, ({ device }) => device, createLine, (item, line) => {
        const [name, strip, figures] = item.children;
        const all = Math.max(1, line.slots) * span;
        const shares = [line.kernel, line.transfer].map((part) => Math.min(100, Math.round((100 * part) / all)));
        setText(name.lastChild, nameOf(line, page.devices));
        setText(figures, text.shares(...shares));
        const colour = colourOf(page.palette, line.device, dark);
        if (name.firstChild.dataset.colour !== colour) {
          name.firstChild.dataset.colour = colour;
          name.firstChild.style.backgroundColor = colour;
        }
        const width = strip.clientWidth;
        const drawn = [mosaic.job, mosaic.node, line.tiles, mosaic.replaced, width, span.toPrecision(3), colour].join(' ');
        if (drawn === strip.dataset.drawn) return;
        strip.dataset.drawn = drawn;
        draw(strip.firstChild, width, packed.lanes[line.place], span, colour);
      });
    },
  };
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

function draw(canvas, width, bars, span, colour) {
  const lane = Math.max(LANE_HEIGHT.min, Math.min(LANE_HEIGHT.max, Math.floor(LINE_HEIGHT / bars.length)));
  const { context, ratio } = fitCanvas(canvas, width, Math.max(LINE_HEIGHT, lane * bars.length));
  context.fillStyle = variable(canvas, '--empty-tile');
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
