// Who this page is: a random seed for its id, which lives as long as the tab, and a name, which
// the browser remembers. Storage may be forbidden; then both live as long as the page.

import { strings } from './strings.js';
import { browserNames } from './feature-detect.js';

const SEED = 'gemmesh.seed';
const NAME = 'gemmesh.name';
const OWN = 'gemmesh.own';
const PRODUCTS = 'gemmesh.products';

/** 32 random bytes; the device's id is their hash. */
export function seed() {
  const stored = read('sessionStorage', SEED);
  if (/^[0-9a-f]{64}$/.test(stored ?? '')) {
    return Uint8Array.from(stored.match(/../g), (pair) => parseInt(pair, 16));
  }
  return newSeed();
}

/** Another seed, when a second page (a duplicated tab) has the first one's. */
export function newSeed() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  write('sessionStorage', SEED, hex(bytes));
  return bytes;
}

/** The name that a person gave, else one made of browser, system and four digits of the seed. */
export function name(seedBytes) {
  return read('localStorage', NAME) || strings.defaultName(...browserNames(), hex(seedBytes.subarray(0, 2)));
}

/** Remembers the name; an empty one means the default again. */
export function rememberName(text) {
  write('localStorage', NAME, text);
}

/** Jobs that this tab submitted: ids, newest first. */
export function ownJobs() {
  try {
    const list = JSON.parse(read('sessionStorage', OWN) ?? '[]');
    return Array.isArray(list) ? list.filter((id) => typeof id === 'string') : [];
  } catch {
    return [];
  }
}

/** Remembers them. */
export function rememberOwnJobs(ids) {
  write('sessionStorage', OWN, JSON.stringify(ids));
}

/** What this tab asked for with its jobs: id → product. */
export function products() {
  try {
    const known = JSON.parse(read('sessionStorage', PRODUCTS) ?? '{}');
    return known && typeof known === 'object' && !Array.isArray(known) ? known : {};
  } catch {
    return {};
  }
}

/** Remembers it. */
export function rememberProducts(known) {
  write('sessionStorage', PRODUCTS, JSON.stringify(known));
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @param {'localStorage' | 'sessionStorage'} storage */
function read(storage, key) {
  try {
    return window[storage].getItem(key);
  } catch {
    return null;
  }
}

/** @param {'localStorage' | 'sessionStorage'} storage */
function write(storage, key, value) {
  try {
    if (value === '') window[storage].removeItem(key);
    else window[storage].setItem(key, value);
  } catch {
    // Forbidden or full: nothing is lost but the memory of it.
  }
}
