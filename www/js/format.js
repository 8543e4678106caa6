// Numbers as people read them. English, so that pages of one mesh look alike.

const integer = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });

/** 1234567 → "1,234,567"; small fractions keep three digits. */
export function number(value) {
  if (!Number.isFinite(value)) return '–';
  return Math.abs(value) >= 100 || Number.isInteger(value) ? integer.format(value) : three.format(value);
}

/** 3 → "3 devices", 1 → "1 device". */
export function count(value, noun) {
  return `${number(value)} ${noun}${value === 1 ? '' : 's'}`;
}

/** @type {[number, string][]} */
const SCALES = [[1e15, 'P'], [1e12, 'T'], [1e9, 'G'], [1e6, 'M']];

/** 2.5e9 → "2.5 G". */
export function scaled(value) {
  for (const [unit, name] of SCALES) {
    if (value >= unit) return `${three.format(value / unit)} ${name}`;
  }
  return integer.format(value);
}

/** Operations per second: 2.5e9 → "2.5 GFLOP/s". */
export function rate(value) {
  const text = scaled(value);
  return `${text}${text.includes(' ') ? '' : ' '}FLOP/s`;
}

/** 2000000 → "1.91 MiB". */
export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    unit += 1;
  }
  return `${three.format(value)} ${['bytes', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

/** Bytes a second: 1.18e8 → "118 MB/s". */
export function speed(value) {
  for (const [unit, name] of SCALES) {
    if (value >= unit) return `${three.format(value / unit)} ${name}B/s`;
  }
  return value >= 1e3 ? `${three.format(value / 1e3)} kB/s` : `${integer.format(value)} B/s`;
}

/** Seconds → "340 ms", "12.3 s", "4 min 05 s", "3 h 12 min". */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds < 1) return `${integer.format(seconds * 1000)} ms`;
  if (seconds < 60) return `${three.format(seconds)} s`;
  const whole = Math.round(seconds);
  const pad = (n) => String(n).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor(whole / 60) % 60)} min`;
}

/** Text from elsewhere, whose direction of writing does not reach what stands beside it. */
export function isolated(text) {
  return `\u2068${text}\u2069`;
}

/** A double with the fewest digits that read back the same if they are few, else with eight. */
export function element(value) {
  const text = String(value);
  return text.length <= 10 ? text : String(Number(value.toPrecision(8)));
}
