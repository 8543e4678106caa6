// Which of the two wasm builds this browser runs. Each probe is the smallest module that holds one
// instruction of the feature; a browser without it does not validate the module.

// (module (func (result v128) (i8x16.splat (i32.const 0))))
const SIMD128 = [
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // \0asm, version 1
  1, 5, 1, 0x60, 0, 1, 0x7b, // one type: () -> v128
  3, 2, 1, 0, // one function of it
  10, 8, 1, 6, 0, 0x41, 0, 0xfd, 0x0f, 0x0b, // i8x16.splat
];

const RELAXED_SIMD = [
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
  1, 5, 1, 0x60, 0, 1, 0x7b,
  3, 2, 1, 0,
  10, 19, 1, 17, 0,
  0x41, 0, 0xfd, 0x0f, 0x41, 0, 0xfd, 0x0f, 0x41, 0, 0xfd, 0x0f, // three operands
  0xfd, 0x87, 2, 0x0b, // f64x2.relaxed_madd
];

/** `relaxed`, `simd`, or null when the kernel can not run here. */
export function detectBuild(forced) {
  const valid = (bytes) => typeof WebAssembly === 'object' && WebAssembly.validate(new Uint8Array(bytes));
  if (!valid(SIMD128)) return null;
  if (forced === 'simd' || !valid(RELAXED_SIMD)) return 'simd';
  return 'relaxed';
}

/** Threads of this device, at least one. */
export function hardwareThreads() {
  return Math.max(1, navigator.hardwareConcurrency || 1);
}

/** A phone or tablet: its browser freezes pages that nobody looks at. */
export function isHandheld() {
  return /Android|iPhone|iPad|iPod|Mobile/i.test(navigator.userAgent) || (navigator.maxTouchPoints > 1 && /Macintosh/.test(navigator.userAgent));
}

/** The browser's and the system's names for people, such as `Chrome` and `Android`. */
export function browserNames() {
  const agent = navigator.userAgent;
  const first = (table) => table.find(([pattern]) => pattern.test(agent))?.[1];
  const browser = first([
    [/Edg(e|A|iOS)?\//, 'Edge'],
    [/OPR\/|Opera/, 'Opera'],
    [/SamsungBrowser/, 'Samsung Internet'],
    [/Firefox|FxiOS/, 'Firefox'],
    [/Chrome|Chromium|CriOS/, 'Chrome'],
    [/Safari/, 'Safari'],
  ]);
  const system = first([
    [/Android/, 'Android'],
    [/iPhone|iPod/, 'iPhone'],
    [/iPad/, 'iPad'],
    [/CrOS/, 'ChromeOS'],
    [/Windows/, 'Windows'],
    [/Macintosh/, isHandheld() ? 'iPad' : 'macOS'],
    [/Linux/, 'Linux'],
  ]);
  return [browser ?? 'Browser', system ?? 'this device'];
}
