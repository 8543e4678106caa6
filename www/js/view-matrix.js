// A matrix, or its upper left corner, as rows of a table.

import { h } from './dom.js';
import { element as formatElement } from './format.js';
import { strings } from './strings.js';

/**
 * Fills `body` with `values`, the first rows and columns of a matrix of shape `whole`; where
 * something is left out there is an ellipsis.
 */
export function fillMatrix(body, values, whole) {
  const cell = (value) => h('td', { 'data-value': String(value), title: String(value) }, short(value));
  const more = () => h('td', { class: 'quiet' }, strings.result.more);
  const lines = values.map((row) => h('tr', {}, ...row.map(cell), row.length < whole.cols ? more() : null));
  if (values.length < whole.rows && values.length > 0) {
    const width = values[0].length + (values[0].length < whole.cols ? 1 : 0);
    lines.push(h('tr', {}, ...Array.from({ length: width }, more)));
  }
  body.replaceChildren(...lines);
}

/** Numbers arrive as numbers in JSON and as texts in CSV; long ones are shortened, the title has all. */
function short(value) {
  if (typeof value === 'number') return formatElement(value);
  return /^[+-]?\d+$/.test(value) || !Number.isFinite(Number(value)) ? String(value) : formatElement(Number(value));
}
