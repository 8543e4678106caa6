// What a product will need, told before it starts. Pure functions.

import { shapeOf, sourceOf } from './state.js';
import { elementBytes } from './matrix-input.js';

/** What can be told without asking: shape of C, bytes of all three matrices, operations, the mesh's speed. */
export function needsOf(form, devices) {
  const a = shapeOf(form, 'a');
  const b = shapeOf(form, 'b');
  const whole = (value) => Number.isInteger(value) && value > 0;
  if (![a.rows, a.cols, b.rows, b.cols].every(whole) || a.cols !== b.rows) return null;
  const operations = 2 * a.rows * a.cols * b.cols;
  const able = devices.filter(({ state }) => state === 'ready' || state === 'busy');
  const mflops = able.reduce((sum, device) => sum + device.mflops, 0);
  const element = elementBytes(form.dtype);
  return {
    rows: a.rows,
    cols: b.cols,
    bytes: (a.rows * a.cols + b.rows * b.cols + a.rows * b.cols) * element,
    operations,
    devices: able.length,
    // Computing alone, at the speed that the devices measured for f64.
    seconds: mflops > 0 ? operations / (mflops * 1e6) : null,
  };
}

/** What to ask the node about; null when it has not got both operands, or would have to make others of them. */
export function questionOf(form) {
  if (form.dtype !== 'auto') return null;
  if (sourceOf(form, 'a') !== 'file' || sourceOf(form, 'b') !== 'file') return null;
  const [a, b] = [form.a.file.matrix, form.b.file.matrix];
  if (!a || !b || a.cols !== b.rows) return null;
  return { a: a.id, b: b.id, reproducible: form.reproducible, ...(form.mode !== 'plain' && { mode: form.mode }), explain: true };
}
