// The mesh as a picture: nodes, pages, links, who coordinates.

import { isDark, s, setAttribute, setText, show, svg } from './dom.js';
import { colourOf } from './colours.js';
import { speed } from './format.js';
import { coordinators, layout } from './mesh-layout.js';
import { strings } from './strings.js';

const text = strings.mesh;
const SIZE = { width: 420, height: 300 };
/** Names of pages around one node that have room. */
const NAMES_MAX = 2;
const NAME_CHARS = 16;

/** The picture and its key; `update(state)` draws it when something in it changed. */
export function mountMesh() {
  const picture = svg(`0 0 ${SIZE.width} ${SIZE.height}`, { id: 'mesh-picture', class: 'mesh-picture', role: 'img' });
  const key = s('desc', {});
  picture.append(key);
  let drawn = '';

  return {
    element: picture,
    update({ devices, links, jobs, palette, connection, me }) {
      const home = connection.node?.device ?? null;
      const there = devices.filter(({ state }) => state !== 'lost');
      show(picture, there.length > 1);
      const runs = coordinators(jobs);
      const shown = JSON.stringify([there.map(({ device, name, state, address }) => [device, name, state, address]), links, runs, palette.length, home, isDark()]);
      if (shown === drawn || there.length < 2) return;
      drawn = shown;
      const { places, lines } = layout(devices, { home, links, ...SIZE });
      const at = new Map(places.map((place) => [place.device, place]));
      setAttribute(picture, 'aria-label', text.summary(there.length, lines.length));
      setText(key, text.key);
      const named = (entry) => entry.name.trim() || entry.device.slice(0, 8);
      const parts = [];
      for (const { from, to, rate } of lines) {
        const [x, y] = [at.get(from), at.get(to)];
        if (!x || !y) continue;
        parts.push(s('line', { x1: x.x, y1: x.y, x2: y.x, y2: y.y, class: 'mesh-line' }));
        if (rate !== null && !y.page) parts.push(label((x.x + y.x) / 2, (x.y + y.y) / 2 + 3, speed(rate), 'mesh-rate'));
      }
      for (const place of places) {
        const entry = there.find(({ device }) => device === place.device);
        const size = place.page ? 6 : 11;
        const shape = place.page ? s('rect', { x: place.x - size, y: place.y - size, width: 2 * size, height: 2 * size, rx: 3 }) : s('circle', { cx: place.x, cy: place.y, r: size });
        shape.setAttribute('class', `mesh-device ${entry.state}`);
        shape.style.setProperty('--device', colourOf(palette, entry.device, isDark()));
        const rate = links.find(({ device }) => device === entry.device)?.bytes_per_second ?? null;
        shape.append(s('title', {}, text.device(named(entry), strings.devices.state[entry.state] ?? entry.state, runs[entry.device] ?? 0, rate)));
        if (runs[entry.device]) parts.push(s('circle', { cx: place.x, cy: place.y, r: size + 4, class: 'mesh-runs' }));
        parts.push(shape);
        const mine = entry.device === me.device;
        const host = lines.find(({ to }) => to === place.device)?.from;
        if (place.page && !mine && lines.filter(({ from, to }) => from === host && at.get(to).page).length > NAMES_MAX) continue;
        // Names of pages stand on the side that is away from their node.
        const above = place.page && at.get(host)?.y > place.y;
        parts.push(label(place.x, above ? place.y - size - 4 : place.y + size + 12, shortened(mine ? strings.devices.me : named(entry)), 'mesh-name'));
      }
      picture.replaceChildren(key, ...parts);
    },
  };
}

/** Long names differ at their ends. */
function shortened(name) {
  const chars = [...name];
  if (chars.length <= NAME_CHARS) return name;
  return `${chars.slice(0, NAME_CHARS - 6).join('')}…${chars.slice(-5).join('')}`;
}

function label(x, y, words, kind) {
  // A name near the edge does not leave the picture.
  const anchor = x < 50 ? 'start' : x > SIZE.width - 50 ? 'end' : 'middle';
  return s('text', { x: anchor === 'start' ? Math.max(4, x - 12) : anchor === 'end' ? Math.min(SIZE.width - 4, x + 12) : x, y: Math.min(SIZE.height - 3, y), class: kind, 'text-anchor': anchor }, words);
}
