// The page's arithmetic about tiles.

import assert from 'node:assert/strict';
import test from 'node:test';

import { colourOf, withDevices } from '../../www/js/colours.js';
import { agrees, emptyMosaic, extent, lanes, perDevice, pieceOf, timeLeft, withAnswer } from '../../www/js/mosaic.js';
import { initialState, reduce } from '../../www/js/state.js';

const answer = (tiles, change = {}) => ({
  job: 'j',
  node: 'n',
  rows: 1000,
  cols: 700,
  tile_rows: 512,
  tile_cols: 256,
  devices: [
    { device: 'x', name: 'anna', kind: 'native', slots: 2 },
    { device: 'y', name: 'phone', kind: 'browser', slots: 1 },
  ],
  tiles,
  next: tiles.length,
  ...change,
});

test('answers add up and devices keep their place', () => {
  const first = withAnswer(emptyMosaic('j'), answer([[0, 1, 100, 50_000, 0]]));
  const more = answer([[5, 0, 200, 70_000, 10_000]], { devices: [{ device: 'y', name: 'phone', kind: 'browser', slots: 1 }], next: 9 });
  const both = withAnswer(first, more);
  assert.deepEqual(both.pieces.map(({ tile, device }) => [tile, device]), [[0, 1], [5, 1]]);
  assert.equal(both.next, 9);
  assert.deepEqual(pieceOf(both, 5), { tile: 5, device: 1, at: 0.2, kernel: 0.07, transfer: 0.01 });
  assert.equal(pieceOf(both, 1), undefined);
  assert.equal(first.pieces.length, 1, 'what was there before is as it was');
});

test('a tile that came twice counts once, as it came last', () => {
  const first = withAnswer(emptyMosaic('j'), answer([[0, 1, 100, 50_000, 0], [1, 1, 100, 50_000, 0]]));
  const again = withAnswer(first, answer([[0, 0, 300, 60_000, 0]]));
  assert.deepEqual(perDevice(again).map(({ place, tiles }) => [place, tiles]), [[0, 1], [1, 1]]);
  assert.equal(again.replaced, 1);
});

test('another node and another job', () => {
  const first = withAnswer(emptyMosaic('j'), answer([[0, 1, 100, 1, 1]]));
  assert.deepEqual(withAnswer(first, answer([[2, 0, 100, 1, 1]], { node: 'm' })).pieces.map(({ tile }) => tile), [2]);
  assert.equal(withAnswer(first, answer([[2, 0, 1, 1, 1]], { job: 'other' })), first);
});

test('the last tiles of a row and of a column are smaller', () => {
  const { tiling } = withAnswer(emptyMosaic('j'), answer([]));
  assert.deepEqual([tiling.gridRows, tiling.gridCols], [2, 3]);
  assert.deepEqual(extent(tiling, 0), { row: 0, col: 0, lastRow: 511, lastCol: 255 });
  assert.deepEqual(extent(tiling, 5), { row: 512, col: 512, lastRow: 999, lastCol: 699 });
});

test('tiles that were computed at the same time lie in lanes of their own', () => {
  const s = 1e6;
  const told = answer([[0, 0, 1000, s, 0], [1, 0, 1100, s, 0], [2, 0, 2100, s, 0], [3, 1, null, s, 0]]);
  const [first, second] = lanes(withAnswer(emptyMosaic('j'), told));
  assert.deepEqual(first.map((lane) => lane.map(({ tile }) => tile)), [[0], [1, 2]]);
  assert.deepEqual(second, [], 'what has no time is nowhere');
  for (const { from, mid, to } of first.flat()) assert.ok(0 <= from && from <= mid && mid <= to);
});

test('ten thousand tiles of fifty devices are quick', () => {
  const devices = Array.from({ length: 50 }, (_, i) => ({ device: `d${i}`, name: '', kind: 'native', slots: 4 }));
  const tiles = Array.from({ length: 10_000 }, (_, i) => [i, i % 50, 10 * i, 900_000, 100_000]);
  const mosaic = withAnswer(emptyMosaic('j'), answer(tiles, { devices, rows: 100 * 512, cols: 100 * 256 }));
  assert.equal(perDevice(mosaic).reduce((sum, { tiles: own }) => sum + own, 0), 10_000);
  assert.equal(lanes(mosaic).flat(2).length, 10_000);
});

test('the time that is left follows the pace, before the first tile the prediction', () => {
  const job = { state: 'running', seconds: 10, tiles_done: 25, tiles_total: 100, predicted_seconds: 12 };
  assert.equal(timeLeft(job), 30);
  assert.equal(timeLeft({ ...job, tiles_done: 0 }), 2);
  assert.equal(timeLeft({ ...job, tiles_done: 0, seconds: 20 }), 0);
  assert.equal(timeLeft({ ...job, tiles_done: 0, predicted_seconds: null }), null);
  assert.equal(timeLeft({ ...job, state: 'done' }), null);
});

test('fifty devices have fifty colours, which stay', () => {
  const ids = Array.from({ length: 50 }, (_, i) => `d${i}`);
  const known = withDevices([], ids);
  for (const dark of [false, true]) assert.equal(new Set(ids.map((id) => colourOf(known, id, dark))).size, 50);
  const more = withDevices(known, ['d3', 'new', 'new']);
  assert.equal(colourOf(more, 'd3', true), colourOf(known, 'd3', true));
  assert.equal(more.length, 51);
  assert.equal(withDevices(known, ids), known);
});

test('an answer for a job that is no longer open changes nothing', () => {
  let state = initialState({ name: '', threads: 1, threadsMax: 1, handheld: false, build: 'simd' });
  state = reduce(state, { type: 'open', job: 'j' });
  const told = reduce(state, { type: 'mosaic', answer: answer([[0, 1, 100, 1, 1]]) });
  assert.equal(told.mosaic.pieces.length, 1);
  assert.deepEqual(told.palette, ['x', 'y']);
  const other = reduce(told, { type: 'open', job: 'k' });
  assert.equal(reduce(other, { type: 'mosaic', answer: answer([[1, 1, 100, 1, 1]]) }), other);
});

test('the map of a job that is done has as many tiles of each device as were accepted', () => {
  const mosaic = withAnswer(emptyMosaic('j'), answer([[0, 1, 1, 1, 1], [1, 0, 1, 1, 1], [2, 0, 1, 1, 1]]));
  const job = { state: 'done', tiles_done: 3, contributions: [{ device: 'x', tiles: 2 }, { device: 'y', tiles: 1 }] };
  assert.equal(agrees(mosaic, job), true);
  assert.equal(agrees(mosaic, { ...job, contributions: [{ device: 'x', tiles: 3 }] }), false);
  assert.equal(agrees(mosaic, { ...job, state: 'running', contributions: [] }), true);
});

test('who a device is may be told after its first tile', () => {
  const unknown = { device: 'x', name: '', kind: null, slots: 0 };
  const first = withAnswer(emptyMosaic('j'), answer([[0, 0, 1, 1, 1]], { devices: [unknown] }));
  const told = withAnswer(first, answer([[1, 0, 2, 1, 1]]));
  assert.deepEqual(told.devices[0], { device: 'x', name: 'anna', kind: 'native', slots: 2 });
  const again = withAnswer(told, answer([[2, 0, 3, 1, 1]], { devices: [unknown] }));
  assert.equal(again.devices[0].name, 'anna');
});
