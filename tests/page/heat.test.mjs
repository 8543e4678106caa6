// The page's arithmetic about heat maps.

import assert from 'node:assert/strict';
import test from 'node:test';

import { elementsOf, firstWindow, isExact, moved, numeric, scaleOf, shade, zoomed } from '../../www/js/heat.js';

const whole = { rows: 1000, cols: 600 };
const inside = ({ row, col, rows, cols }, { rows: allRows, cols: allCols }) =>
  row >= 0 && col >= 0 && rows > 0 && cols > 0 && row + rows <= allRows && col + cols <= allCols;

test('all of a matrix is shown first, of a huge one as much as is read in a moment', () => {
  assert.deepEqual(firstWindow(1000, 600), { row: 0, col: 0, rows: 1000, cols: 600 });
  for (const [rows, cols] of [[1e5, 1e5], [2 ** 32, 1], [1, 2 ** 32], [1e6, 1e3]]) {
    const window = firstWindow(rows, cols);
    assert.ok(inside(window, { rows, cols }) && window.rows * window.cols <= 2 ** 28, `${rows} x ${cols}: ${JSON.stringify(window)}`);
  }
});

test('zooming keeps the point in place and never leaves the matrix', () => {
  const all = { row: 0, col: 0, ...whole };
  const near = zoomed(all, whole, 2, { x: 0.25, y: 0.75 });
  assert.deepEqual(near, { row: 375, col: 75, rows: 500, cols: 300 });
  assert.deepEqual(zoomed(near, whole, 0.5, { x: 0.25, y: 0.75 }), all);
  let window = all;
  for (let i = 0; i < 20; i += 1) window = zoomed(window, whole, 2, { x: 1, y: 1 });
  assert.ok(inside(window, whole) && window.rows === 4 && window.cols === 4, JSON.stringify(window));
  for (let i = 0; i < 20; i += 1) window = zoomed(window, whole, 0.5, { x: 0, y: 0 });
  assert.deepEqual(window, all);
});

test('a window moves by shares of itself and stops at the edges', () => {
  const window = { row: 10, col: 10, rows: 100, cols: 100 };
  assert.deepEqual(moved(window, whole, 0.5, -0.05), { row: 5, col: 60, rows: 100, cols: 100 });
  assert.deepEqual(moved(window, whole, 90, -90), { row: 0, col: 500, rows: 100, cols: 100 });
});

test('each element is in one cell', () => {
  const picture = { row: 3, col: 0, rows: 10, cols: 7, height: 3, width: 7 };
  const rows = [0, 1, 2].map((y) => elementsOf(picture, y, 0));
  assert.deepEqual(rows.map(({ row, lastRow }) => [row, lastRow]), [[3, 6], [7, 9], [10, 12]]);
  assert.deepEqual(elementsOf(picture, 0, 6), { row: 3, lastRow: 6, col: 6, lastCol: 6 });
  assert.equal(isExact(picture), false);
  assert.equal(isExact({ rows: 3, cols: 7, height: 3, width: 7 }), true);
});

test('the scale fits what is finite and is even around zero', () => {
  assert.deepEqual(scaleOf([[1, 'NaN'], ['Infinity', 3]]), { low: 1, high: 3, diverging: false });
  assert.deepEqual(scaleOf([[-1, 5]]), { low: -5, high: 5, diverging: true });
  assert.equal(scaleOf([['NaN']]), null);
  assert.equal(numeric('9007199254740993'), 9007199254740992);
});

test('colours run from one end to the other, what is no number has none', () => {
  const scale = { low: -2, high: 2, diverging: true };
  assert.deepEqual(shade(0, scale), [245, 245, 243]);
  assert.deepEqual(shade(Infinity, scale), shade(2, scale));
  assert.equal(shade(NaN, scale), null);
  assert.equal(shade(1, { low: 1, high: 1, diverging: false }).length, 3);
});
