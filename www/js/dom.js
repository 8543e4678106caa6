// The only place that makes elements. Text is always a text node, so names of devices and files
// can not become markup.

/**
 * An element with attributes and children. `on*` functions become listeners, `null` and `false`
 * attributes are left out, strings become text.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element of SVG; its attributes and children as those of `h`. */
export function s(tag, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** A picture of SVG. */
export function svg(viewBox, attributes) {
  return s('svg', { viewBox, ...attributes });
}

/** Sets an element's text when it changed, so that screen readers hear changes only. */
export function setText(element, text) {
  const string = String(text);
  if (element.textContent !== string) element.textContent = string;
}

/** Shows or hides an element. */
export function show(element, visible) {
  // Elements of SVG have the attribute alone.
  if (element.hasAttribute('hidden') === visible) element.toggleAttribute('hidden', !visible);
}

/** Sets or removes an attribute when it changed. */
export function setAttribute(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Whether the page is dark. */
export const isDark = () => matchMedia('(prefers-color-scheme: dark)').matches;

/** Whether a person asked for little motion. */
export const isStill = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

/** A colour of the style sheet, for canvases. */
export function variable(element, name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

/** Empties a canvas, gives it that many pixels of the page, and returns its context, in device pixels, and their ratio. */
export function fitCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [width, height].map((edge) => Math.max(1, Math.round(edge * ratio)));
  // Setting a size makes a new picture, also when it is the same.
  if (canvas.width !== wide) canvas.width = wide;
  if (canvas.height !== high) canvas.height = high;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, wide, high);
  return { context, ratio };
}

/**
 * Makes `parent`'s children follow `items`: one child for each key, made by `create(item)` once and
 * brought up to date by `update(child, item)`; order follows the items, focus stays where it is.
 */
export function keyed(parent, items, key, create, update) {
  const known = (parent.keyedChildren ??= new Map());
  const wanted = new Set(items.map(key));
  for (const [id, child] of known) {
    if (!wanted.has(id)) {
      child.remove();
      known.delete(id);
    }
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    let child = known.get(key(item));
    if (!child) {
      child = create(item);
      known.set(key(item), child);
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
}

/** What people read, as against what moves, follows the state this often: a glance needs no more. */
const PACE_MS = 250;

/**
 * Returns a function that says whether it is time: at most every `PACE_MS`, and whenever what it is given is
 * not what it was given last. When it is too soon it asks for another `redraw`.
 */
export function paced(redraw) {
  let last = -Infinity;
  let known = null;
  let timer = null;
  return (key) => {
    const rest = last + PACE_MS - performance.now();
    if (rest <= 0 || key !== known) {
      last = performance.now();
      known = key;
      return true;
    }
    timer ??= setTimeout(() => {
      timer = null;
      redraw();
    }, rest);
    return false;
  };
}

/** A card: a section with a heading. */
export function card(id, heading, ...children) {
  const title = h('h2', { id: `${id}-heading` }, heading);
  return h('section', { id, class: 'card', 'aria-labelledby': `${id}-heading` }, title, ...children);
}

/** A table with a caption for screen readers; returns the table and its body. */
export function table(id, caption, columns) {
  const body = h('tbody');
  const head = Object.entries(columns).map(([name, text]) => h('th', { scope: 'col', class: `col-${name}` }, text));
  const element = h('table', { id }, h('caption', { class: 'quiet' }, caption), h('thead', {}, h('tr', {}, ...head)), body);
  return { element, body };
}

/** The place for one message with its hint, next to what caused it. */
export function problemBox(id) {
  const message = h('strong', { id: `${id}-message` });
  const hint = h('span', { id: `${id}-hint` });
  const box = h('p', { id, class: 'problem', role: 'alert', hidden: true }, message, ' ', hint);
  return {
    element: box,
    update(problem) {
      show(box, Boolean(problem));
      setText(message, problem?.message ?? '');
      setText(hint, problem?.hint ?? '');
    },
  };
}
