// A large result as a heat map: zoom, move, and the value at the pointer.

import { fitCanvas, h, isDark, setAttribute, setText, show } from './dom.js';
import { elementsOf, isExact, moved, numeric, same, scaleOf, shade, zoomed } from './heat.js';
import { element as shortNumber } from './format.js';
import { strings } from './strings.js';

const text = strings.heat;
const HEIGHT_MAX = 460;
const EDGE_MIN = 60;
const BAR = { width: 160, height: 10 };
/** Like nothing on either scale. */
const NOT_A_NUMBER = [214, 33, 155];
const ARROWS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

export function mountHeat(actions) {
  const about = h('output', { id: 'heat-about', class: 'map-about quiet', 'aria-live': 'polite' });
  const canvas = h('canvas', { id: 'heat', class: 'map heat', role: 'img', tabindex: 0, 'aria-describedby': 'heat-about' });
  const cursor = h('div', { class: 'map-cursor', hidden: true });
  const frame = h('div', { class: 'map-frame' }, canvas, cursor);
  const button = (name, act) => h('button', { id: `heat-${name}`, type: 'button', class: 'small', onclick: act }, text[name]);
  const zoomIn = button('zoomIn', () => zoom(2));
  const zoomOut = button('zoomOut', () => zoom(0.5));
  const all = button('whole', () => look(actions.firstWindow()));
  const low = h('span', { class: 'numeric' });
  const high = h('span', { class: 'numeric' });
  const bar = h('canvas', { 'aria-hidden': 'true' });
  const scaleRow = h('div', { class: 'row heat-scale quiet' }, low, bar, high);
  const where = h('span', { id: 'heat-window', class: 'quiet' });
  const problem = h('p', { class: 'problem', role: 'alert', hidden: true });
  const element = h(
    'div',
    { class: 'heat-part', hidden: true },
    h('div', { class: 'row' }, zoomIn, zoomOut, all, where),
    problem,
    frame,
    scaleRow,
    about,
  );

  let heat = null;
  let drawn = '';
  /** The cell that is pointed at: {x, y}. */
  let cell = null;
  let drag = null;

  new ResizeObserver(() => actions.redraw()).observe(frame);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => actions.redraw());
  const share = ({ clientX, clientY }) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return { x: (clientX - left) / width, y: (clientY - top) / height };
  };
  canvas.addEventListener('pointerdown', (event) => {
    if (event.pointerType === 'mouse') drag = { from: share(event), id: event.pointerId };
    point(event);
  });
  canvas.addEventListener('pointermove', point);
  canvas.addEventListener('pointerup', (event) => {
    const to = share(event);
    const far = drag && Math.hypot(to.x - drag.from.x, to.y - drag.from.y) > 0.02;
    if (far) look(moved(heat.window, heat.whole, drag.from.x - to.x, drag.from.y - to.y));
    drag = null;
  });
  canvas.addEventListener('pointerleave', ({ pointerType }) => {
    drag = null;
    if (pointerType === 'mouse') choose(null);
  });
  canvas.addEventListener('blur', () => choose(null));
  canvas.addEventListener('dblclick', (event) => zoom(2, share(event)));
  // A page that is scrolled past the picture is not held up by it.
  canvas.addEventListener(
    'wheel',
    (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 2 : 0.5, share(event));
    },
    { passive: false },
  );
  canvas.addEventListener('keydown', (event) => {
    if (!heat?.picture || event.altKey || event.metaKey || event.ctrlKey) return;
    const step = ARROWS[event.key];
    const acts = { '+': () => zoom(2), '=': () => zoom(2), '-': () => zoom(0.5), 0: () => look(actions.firstWindow()) };
    if (step && event.shiftKey) look(moved(heat.window, heat.whole, step[0] / 2, step[1] / 2));
    else if (step) {
      const { width, height } = heat.picture;
      const inside = (value, end) => Math.min(end - 1, Math.max(0, value));
      choose(cell ? { x: inside(cell.x + step[0], width), y: inside(cell.y + step[1], height) } : { x: 0, y: 0 });
    } else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  });

  function point(event) {
    if (!heat?.picture) return;
    const { x, y } = share(event);
    const { width, height } = heat.picture;
    const inside = x >= 0 && y >= 0 && x < 1 && y < 1;
    choose(inside ? { x: Math.floor(x * width), y: Math.floor(y * height) } : null);
  }

  function choose(next) {
    if (next?.x === cell?.x && next?.y === cell?.y) return;
    cell = next;
    actions.redraw();
  }

  function zoom(factor, at) {
    if (!heat?.picture) return;
    const { width, height } = heat.picture;
    look(zoomed(heat.window, heat.whole, factor, at ?? (cell ? { x: (cell.x + 0.5) / width, y: (cell.y + 0.5) / height } : undefined)));
  }

  function look(window) {
    if (heat && !same(window, heat.window)) actions.lookAt(window);
  }

  function update(page) {
    heat = page.heat?.job === page.openJob ? page.heat : null;
    const visible = Boolean(heat && page.result?.job === page.openJob && !page.result.complete);
    show(element, visible);
    if (!visible) {
      drawn = '';
      cell = null;
      return;
    }
    const { picture, window } = heat;
    show(problem, Boolean(heat.problem));
    setText(problem, heat.problem ?? '');
    setText(where, text.window(window, heat.whole));
    setAttribute(element, 'aria-busy', heat.loading);
    show(frame, picture !== null);
    show(scaleRow, picture !== null);
    if (!picture) setText(about, heat.problem ? '' : text.drawing);
    if (!picture || frame.clientWidth === 0) return;
    const size = [frame.clientWidth, isDark(), heat.sequence, devicePixelRatio].join(' ');
    if (size !== drawn) {
      drawn = size;
      paint(picture);
    }
    const known = cell && cell.y < picture.height && cell.x < picture.width;
    show(cursor, Boolean(known));
    setText(about, known ? valueText(picture, cell) : text.hint);
    if (known) {
      const [width, height] = [canvas.clientWidth / picture.width, canvas.clientHeight / picture.height];
      Object.assign(cursor.style, { left: `${cell.x * width}px`, top: `${cell.y * height}px`, width: `${width}px`, height: `${height}px` });
    }
  }

  function paint({ cells, width, height, rows, cols }) {
    const scale = scaleOf(cells);
    const room = frame.clientWidth;
    const wide = Math.min(room, Math.max(EDGE_MIN, (cols / rows) * HEIGHT_MAX));
    const tall = Math.min(HEIGHT_MAX, Math.max(EDGE_MIN, (rows / cols) * wide));
    const { context } = fitCanvas(canvas, Math.floor(wide), Math.floor(tall));
    const image = new ImageData(width, height);
    cells.forEach((line, y) =>
      line.forEach((value, x) => image.data.set([...(shade(numeric(value), scale) ?? NOT_A_NUMBER), 255], 4 * (y * width + x))),
    );
    const small = h('canvas', { width, height });
    small.getContext('2d').putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    setAttribute(canvas, 'data-cells', `${height}x${width}`);
    setAttribute(canvas, 'aria-label', text.map);
    setText(low, scale ? shortNumber(scale.low) : '');
    setText(high, scale ? shortNumber(scale.high) : '');
    paintBar(scale);
  }

  function paintBar(scale) {
    show(bar, Boolean(scale));
    if (!scale) return;
    const { context } = fitCanvas(bar, BAR.width, BAR.height);
    for (let x = 0; x < bar.width; x += 1) {
      const [r, g, b] = shade(scale.low + ((scale.high - scale.low) * x) / bar.width, scale);
      context.fillStyle = `rgb(${r} ${g} ${b})`;
      context.fillRect(x, 0, 1, bar.height);
    }
  }

  return { element, update };
}

/** The value of a cell in words. */
function valueText(picture, { x, y }) {
  const value = picture.cells[y][x];
  const { row, lastRow, col, lastCol } = elementsOf(picture, y, x);
  if (isExact(picture)) return text.value(row, col, String(value));
  return text.mean(strings.watch.range(row, lastRow), strings.watch.range(col, lastCol), shortNumber(numeric(value)));
}
