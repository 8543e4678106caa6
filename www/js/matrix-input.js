// What a person gives as a matrix: typed cells, pasted tables, random values. Pure functions, so
// that every problem is found before anything is submitted.

import { strings } from './strings.js';
import { bytes } from './format.js';
import { DIMENSION_MAX, GRID_MAX, shapeOf, sourceOf } from './state.js';

/** The page generates at most this many bytes for one random matrix. */
const RANDOM_BYTES_MAX = 2 ** 30;
/** Random values are generated in pieces of this many elements, between which the page lives on. */
const PIECE = 1 << 17;

const FLOAT = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const SPECIAL = /^([+-]?)(nan|inf(inity)?)$/i;
const INTEGER = /^[+-]?\d+$/;

/** What pasted text holds as rows of cells: TSV from a spreadsheet, CSV, or words. */
export function parseTable(text) {
  const lines = text.replace(/\r\n?/g, '\n').replace(/\n+$/, '').split('\n');
  const separator = lines.some((line) => line.includes('\t')) ? '\t' : lines.some((line) => /[,;]/.test(line)) ? /[,;]/ : /\s+/;
  return lines.map((line) =>
    (separator === '\t' ? line : line.trim()).split(separator).map((cell) => cell.trim().replace(/^"(.*)"$/, '$1')),
  );
}

/**
 * The cells of an operand as nested arrays for the API, or the first problem and the field it is
 * in. Integers stay strings of digits, so that none is rounded on the way.
 */
export function readCells(form, operand) {
  const cells = cellsOf(form, operand);
  const wrong = cells.find(({ value }) => value === undefined);
  if (wrong) {
    const where = strings.multiply.cell(operand, wrong.row, wrong.col);
    const problem = form.dtype === 'int' ? strings.problem.notAnInteger : strings.problem.notANumber;
    return { problem: { field: wrong.field, operand, ...problem(where, wrong.text) } };
  }
  const values = [];
  for (const { row, value } of cells) (values[row] ??= []).push(value);
  return { values };
}

/** The fields of the cells of an operand that are no numbers of the element type. */
export function badCells(form, operand) {
  return cellsOf(form, operand)
    .filter(({ value }) => value === undefined)
    .map(({ field }) => field);
}

/** The cells of an operand row by row; what is no number has no value. */
function cellsOf(form, operand) {
  const { rows, cols } = shapeOf(form, operand);
  return Array.from({ length: rows * cols }, (_, index) => {
    const row = Math.floor(index / cols);
    const col = index % cols;
    const text = (form[operand].cells[`${row},${col}`] ?? '').trim().replace(/^[−–]/, '-');
    return { row, col, text, field: `cell-${operand}-${row}-${col}`, value: readNumber(text, form.dtype) };
  });
}

function readNumber(text, dtype) {
  if (text === '') return 0;
  if (dtype === 'int') return INTEGER.test(text) ? text.replace(/^\+/, '') : undefined;
  if (FLOAT.test(text)) {
    const value = Number(text);
    return Number.isFinite(value) ? value : value > 0 ? 'Infinity' : '-Infinity';
  }
  const special = SPECIAL.exec(text);
  if (!special) return undefined;
  if (special[2].toLowerCase() === 'nan') return 'NaN';
  return special[1] === '-' ? '-Infinity' : 'Infinity';
}

/** The first problem of the form that can be seen without the node, or null. */
export function checkForm(form) {
  for (const name of ['rows', 'inner', 'cols']) {
    if (!Number.isInteger(form[name]) || form[name] < 1 || form[name] > DIMENSION_MAX) {
      return { field: `dim-${name}`, ...strings.problem.dimension(name, DIMENSION_MAX) };
    }
  }
  const a = shapeOf(form, 'a');
  const b = shapeOf(form, 'b');
  if (a.cols !== b.rows) {
    // Only two files can disagree: what is typed or random follows the dimensions.
    return { field: 'file-b', operand: 'b', ...strings.problem.mismatch(a.cols, b.rows) };
  }
  for (const operand of ['a', 'b']) {
    const { rows, cols } = shapeOf(form, operand);
    const size = rows * cols * elementBytes(form.dtype);
    if (sourceOf(form, operand) === 'random' && size > RANDOM_BYTES_MAX) {
      const field = rows >= cols ? (operand === 'a' ? 'dim-rows' : 'dim-inner') : operand === 'a' ? 'dim-inner' : 'dim-cols';
      return { field, operand, ...strings.problem.tooLarge(bytes(size), bytes(RANDOM_BYTES_MAX)) };
    }
    if (sourceOf(form, operand) === 'cells') {
      const { problem } = readCells(form, operand);
      if (problem) return problem;
    }
  }
  return null;
}

/** Bytes of one generated element. */
export function elementBytes(dtype) {
  return dtype === 'f32' ? 4 : 8;
}

/** Random texts for the cells of an operand that fits into the grid. */
export function randomCells(form, operand) {
  const { rows, cols } = shapeOf(form, operand);
  const next = generator(newSeed());
  const cells = {};
  for (let row = 0; row < Math.min(rows, GRID_MAX); row += 1) {
    for (let col = 0; col < Math.min(cols, GRID_MAX); col += 1) {
      const value = next() / 2 ** 32;
      cells[`${row},${col}`] = form.dtype === 'int' ? String(Math.floor(value * 199) - 99) : (value * 20 - 10).toFixed(2);
    }
  }
  return cells;
}

/** A seed for random values. */
export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(4));
}

/**
 * A .npy file (version 1.0, C order, little-endian) of random elements: uniform in [-1, 1), or
 * integers from -99 to 99. `progress` is told the share that is done.
 */
export async function randomNpy(rows, cols, dtype, seed, progress) {
  const kind = dtype === 'int' ? '<i8' : dtype === 'f32' ? '<f4' : '<f8';
  /** @type {BlobPart[]} */
  const parts = [npyHeader(kind, rows, cols)];
  const total = rows * cols;
  const next = generator(seed);
  for (let done = 0; done < total; done += PIECE) {
    const length = Math.min(PIECE, total - done);
    parts.push(piece(kind, length, next));
    progress((done + length) / total);
    await new Promise((resolve) => setTimeout(resolve));
  }
  return new Blob(parts, { type: 'application/octet-stream' });
}

function npyHeader(kind, rows, cols) {
  const text = `{'descr': '${kind}', 'fortran_order': False, 'shape': (${rows}, ${cols}), }`;
  const padded = text.padEnd(Math.ceil((10 + text.length + 1) / 64) * 64 - 11) + '\n';
  const header = new Uint8Array(10 + padded.length);
  header.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8]);
  header.set(new TextEncoder().encode(padded), 10);
  return header;
}

// Typed arrays have the byte order of the machine; every browser runs on little-endian ones.
function piece(kind, length, next) {
  if (kind === '<i8') {
    // An integer from -99 to 99 as two 32-bit halves, the upper one its sign.
    const halves = new Int32Array(2 * length);
    for (let i = 0; i < length; i += 1) {
      const value = Math.floor((next() / 2 ** 32) * 199) - 99;
      halves[2 * i] = value;
      halves[2 * i + 1] = value < 0 ? -1 : 0;
    }
    return halves;
  }
  const values = kind === '<f4' ? new Float32Array(length) : new Float64Array(length);
  for (let i = 0; i < length; i += 1) values[i] = next() / 2 ** 31 - 1;
  return values;
}

/**
 * xoshiro128** (Blackman, Vigna, "Scrambled Linear Pseudorandom Number Generators", 2021): 32-bit
 * integers from 0. Not for secrets.
 */
function generator(seed) {
  let [s0, s1, s2, s3] = seed;
  if ((s0 | s1 | s2 | s3) === 0) s0 = 1;
  const rotate = (x, k) => (x << k) | (x >>> (32 - k));
  return () => {
    const result = Math.imul(rotate(Math.imul(s1, 5), 7), 9) >>> 0;
    const t = s1 << 9;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    s2 ^= t;
    s3 = rotate(s3, 11);
    return result;
  };
}
