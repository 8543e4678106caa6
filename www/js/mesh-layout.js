// Where the devices of the mesh stand in its picture. Pure functions.

/** Pages around one node before a second row begins. */
const ROW = 12;

/**
 * Places for all devices that are there, in a picture of `width` × `height`: nodes on an ellipse, the node
 * `home` on top, pages fanned out behind the node that they came through; and the lines between them.
 *
 * Returns `{places: [{device, x, y, page}], lines: [{from, to, rate}]}`; `rate` is bytes a second, or null
 * where nobody has measured it.
 */
export function layout(devices, { home, links, width, height }) {
  const there = devices.filter(({ state }) => state !== 'lost');
  const nodes = there.filter(({ kind }) => kind === 'native');
  nodes.sort((x, y) => Number(y.device === home) - Number(x.device === home) || (x.device < y.device ? -1 : 1));
  const pages = there.filter(({ kind }) => kind === 'browser').sort((x, y) => (x.device < y.device ? -1 : 1));
  const center = { x: width / 2, y: height / 2 };
  const places = nodes.map(({ device }, index) => {
    const angle = (2 * Math.PI * index) / nodes.length - Math.PI / 2;
    const reach = nodes.length === 1 ? 0 : 0.23;
    return { device, angle, x: center.x + width * reach * Math.cos(angle), y: center.y + height * reach * Math.sin(angle), page: false };
  });
  const rate = (device) => links.find((link) => link.device === device)?.bytes_per_second ?? null;
  const lines = places.filter(({ device }) => device !== home && rate(device) !== null).map(({ device }) => ({ from: home, to: device, rate: rate(device) }));
  const host = ({ address }) => Math.max(0, nodes.findIndex((node) => node.address === address));
  places.slice().forEach((node, index) => {
    const own = pages.filter((page) => host(page) === index);
    own.forEach(({ device }, place) => {
      const row = Math.floor(place / ROW);
      const many = Math.min(ROW, own.length - row * ROW);
      const wide = nodes.length === 1 ? 2 * Math.PI : Math.min(2.4, (2 * Math.PI) / nodes.length + 0.4);
      const steps = nodes.length === 1 ? many : Math.max(1, many - 1);
      const angle = node.angle + (many === 1 ? 0 : wide * ((place % ROW) / steps - (nodes.length === 1 ? 0 : 0.5)));
      const reach = 0.17 + 0.06 * row;
      const inside = (value, end) => Math.min(end - 12, Math.max(12, value));
      places.push({ device, angle, x: inside(node.x + width * reach * Math.cos(angle), width), y: inside(node.y + height * reach * Math.sin(angle), height), page: true });
      lines.push({ from: node.device, to: device, rate: node.device === home ? rate(device) : null });
    });
  });
  return { places, lines };
}

/** Jobs that run now, by coordinator: device → how many. */
export function coordinators(jobs) {
  const running = Object.values(jobs).filter(({ state }) => state === 'running' || state === 'queued');
  const counts = {};
  for (const { coordinator } of running) counts[coordinator] = (counts[coordinator] ?? 0) + 1;
  return counts;
}
