// What a product will need, and how others come to the page.

import assert from 'node:assert/strict';
import test from 'node:test';

import { needsOf, questionOf } from '../../www/js/outlook.js';
import { deviceList, initialState, ownShares, reduce } from '../../www/js/state.js';

const start = initialState({ name: '', threads: 1, threadsMax: 1, handheld: false, build: 'simd' });
const devices = [
  { device: 'x', name: 'x', state: 'ready', mflops: 1500 },
  { device: 'y', name: 'y', state: 'busy', mflops: 500 },
  { device: 'z', name: 'z', state: 'paused', mflops: 500 },
];

test('bytes, operations and time of a product', () => {
  const { form } = reduce(start, { type: 'preset', preset: 1000 });
  assert.deepEqual(needsOf(form, devices), { rows: 1000, cols: 1000, bytes: 24e6, operations: 2e9, devices: 2, seconds: 1 });
  assert.equal(needsOf({ ...form, dtype: 'f32' }, []).bytes, 12e6);
  assert.equal(needsOf(form, []).seconds, null);
  assert.equal(needsOf({ ...form, rows: NaN }, devices), null);
});

test('the node is asked about files that fit', () => {
  const file = (id, rows, cols) => ({ name: id, matrix: { id, rows, cols, dtype: 'f64' } });
  const one = reduce(start, { type: 'file', operand: 'a', file: file('aa', 7, 5) });
  assert.equal(questionOf(one.form), null);
  const both = reduce(one, { type: 'file', operand: 'b', file: file('bb', 5, 2) });
  assert.deepEqual(questionOf(both.form), { a: 'aa', b: 'bb', reproducible: false, explain: true });
  assert.equal(questionOf({ ...both.form, dtype: 'f32' }), null);
  assert.equal(questionOf(reduce(one, { type: 'file', operand: 'b', file: file('bb', 6, 2) }).form), null);
});

test('links do not lead to the name that only this machine has', () => {
  const links = [{ url: 'http://192.168.1.7:8080/', code: [] }];
  const own = (hostname, scheme = 'http') => ({ hostname, port: '8080', protocol: `${scheme}:`, origin: `${scheme}://${hostname}:8080` });
  const told = (hostname, alone) => reduce(start, { type: 'joining', joining: { alone, links }, own: own(hostname) }).joining.origin;
  assert.equal(told('localhost', false), 'http://192.168.1.7:8080');
  assert.equal(told('127.0.0.1', true), 'http://127.0.0.1:8080');
  assert.equal(told('10.0.0.4', false), 'http://10.0.0.4:8080');
  // Whoever gets the link may not trust the certificate of this node.
  const secure = { type: 'joining', joining: { alone: false, links }, own: own('10.0.0.4', 'https') };
  assert.equal(reduce(start, secure).joining.origin, 'http://10.0.0.4:8080');
});

test('what this page did for each job is its part of all operations, the newest job first', () => {
  const part = (device, operations) => ({ device, operations, tiles: 1, rows: 1, compute_ms: 1, mflops: 1 });
  const job = (id, submitted, contributions) => ({ job: id, state: 'done', epoch: 1, tiles_done: 1, submitted, contributions });
  let state = reduce(start, { type: 'me', change: { device: 'y' } });
  const jobs = [job('a', '2026-01-01', [part('x', 30), part('y', 10)]), job('b', '2026-01-02', [part('x', 5)]), job('c', '2026-01-03', [part('y', 7)])];
  state = reduce(state, { type: 'jobs', jobs: [...jobs, { ...job('d', '2026-01-04', []) }] });
  assert.deepEqual(ownShares(state).map(({ job: { job: id }, share }) => [id, share]), [['c', 1], ['a', 0.25]]);
});

test('who has left is not there', () => {
  let state = reduce(start, { type: 'devices', devices });
  state = reduce(state, { type: 'me', change: { device: 'y', left: true } });
  assert.deepEqual(deviceList(state).map(({ device, state: now }) => [device, now]), [['y', 'lost'], ['x', 'ready'], ['z', 'paused']]);
});
