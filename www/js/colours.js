// A colour for each device, the same wherever it is shown. Pure functions.

/** Hues that are told apart, also by most people who see few colours; what comes later lies between them. */
const HUES = [231, 32, 158, 330, 196, 52, 280, 8, 110, 210, 350, 75];
const GOLDEN_ANGLE = 137.508;
/** Devices that are remembered; beyond that the first are forgotten. */
const DEVICES_MAX = 1_024;

/** The list of devices with those of `ids` that are new at its end. */
export function withDevices(known, ids) {
  const fresh = [...new Set(ids)].filter((id) => !known.includes(id));
  return fresh.length ? [...known, ...fresh].slice(-DEVICES_MAX) : known;
}

/** The colour of a device as CSS; readable on the card of a light or dark page. */
export function colourOf(known, device, dark) {
  const place = known.indexOf(device);
  if (place < 0) return dark ? 'hsl(225 8% 60%)' : 'hsl(225 8% 50%)';
  const round = Math.floor(place / HUES.length);
  const hue = (HUES[place % HUES.length] + round * GOLDEN_ANGLE) % 360;
  // Yellow and green look lighter than blue of the same lightness.
  const bright = hue > 40 && hue < 200;
  const light = dark ? (bright ? 52 : 66) : bright ? 36 : 50;
  return `hsl(${Math.round(hue)} ${dark ? 58 : 60}% ${light - 5 * (round % 3)}%)`;
}
