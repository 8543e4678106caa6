// Where devices stand in the picture of the mesh.

import assert from 'node:assert/strict';
import test from 'node:test';

import { coordinators, layout } from '../../www/js/mesh-layout.js';

const size = { width: 420, height: 300 };
const node = (device) => ({ device, kind: 'native', address: `10.0.0.${device}:8080`, state: 'ready' });
const page = (device, at) => ({ device, kind: 'browser', address: `10.0.0.${at}:8080`, state: 'busy' });

test('everybody who is there has a place inside, and pages hang on their node', () => {
  const devices = [node('1'), node('2'), node('3'), { ...node('4'), state: 'lost' }, page('p', '2'), page('q', '2')];
  const links = [{ device: '2', bytes_per_second: 1e8 }, { device: '4', bytes_per_second: 1e8 }];
  const { places, lines } = layout(devices, { home: '1', links, ...size });
  assert.deepEqual(places.map(({ device }) => device), ['1', '2', '3', 'p', 'q']);
  for (const { x, y } of places) assert.ok(x > 0 && x < size.width && y > 0 && y < size.height);
  assert.deepEqual(lines, [
    { from: '1', to: '2', rate: 1e8 },
    { from: '2', to: 'p', rate: null },
    { from: '2', to: 'q', rate: null },
  ]);
});

test('fifty devices do not stand on each other', () => {
  const devices = [node('1'), node('2'), ...Array.from({ length: 48 }, (_, i) => page(`p${i}`, i % 2 ? '1' : '2'))];
  const { places } = layout(devices, { home: '1', links: [], ...size });
  const spots = new Set(places.map(({ x, y }) => `${Math.round(x)},${Math.round(y)}`));
  assert.ok(spots.size >= 46, String(spots.size));
});

test('a node alone stands in the middle', () => {
  const { places } = layout([node('1')], { home: '1', links: [], ...size });
  assert.deepEqual([places[0].x, places[0].y], [210, 150]);
});

test('who coordinates what runs', () => {
  const jobs = { a: { state: 'running', coordinator: 'x' }, b: { state: 'done', coordinator: 'y' }, c: { state: 'queued', coordinator: 'x' } };
  assert.deepEqual(coordinators(jobs), { x: 2 });
});
