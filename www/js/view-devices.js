// The devices of the mesh.

import { card, h, keyed, setAttribute, setText, show, table } from './dom.js';
import { number } from './format.js';
import { coordinators } from './mesh-layout.js';
import { deviceList } from './state.js';
import { mountMesh } from './view-mesh.js';
import { strings } from './strings.js';

const text = strings.devices;

export function mountDevices(root) {
  const { element, body } = table('devices-table', text.heading, text.columns);
  const summary = h('p', { id: 'devices-summary', class: 'quiet' });
  const mesh = mountMesh();
  root.append(card('devices', text.heading, summary, mesh.element, h('div', { class: 'scroll devices-scroll', tabindex: 0, role: 'region', 'aria-label': strings.tableOf(text.heading) }, element)));

  return (state) => {
    const { me, connection, links } = state;
    mesh.update(state);
    const runs = coordinators(state.jobs);
    const devices = deviceList(state);
    const there = devices.filter((device) => device.state !== 'lost');
    const threads = there.reduce((sum, device) => sum + device.slots, 0);
    setText(summary, devices.length ? text.summary(there.length, threads, devices.length - there.length) : text.empty);
    show(element, devices.length > 0);
    keyed(body, devices, (device) => device.device, createRow, (row, device) => {
      const tag = device.device === me.device ? text.me : device.device === connection.node?.device ? text.home : '';
      setAttribute(row, 'data-state', device.state);
      const [name, label, more] = row.cells[0].children;
      setText(name, device.name.trim() || device.device.slice(0, 8));
      setText(label, tag);
      show(label, tag !== '');
      const rate = links.find((link) => link.device === device.device)?.bytes_per_second;
      const facts = [rate && strings.mesh.link(rate), runs[device.device] && strings.mesh.coordinates(runs[device.device])].filter(Boolean);
      show(more, facts.length > 0);
      setText(more, facts.join(', '));
      setAttribute(row.cells[0], 'title', device.address);
      setText(row.cells[1], text.kind[device.kind] ?? device.kind);
      setText(row.cells[2], number(device.slots));
      setText(row.cells[3], number(device.mflops));
      setText(row.cells[4].firstChild, text.state[device.state] ?? device.state);
      setAttribute(row.cells[4].firstChild, 'data-state', device.state);
    });
  };
}

function createRow(device) {
  return h(
    'tr',
    { 'data-device': device.device },
    h('th', { scope: 'row' }, h('span', { class: 'name' }), h('span', { class: 'tag' }), h('span', { class: 'quiet device-more' })),
    h('td'),
    h('td', { class: 'numeric' }),
    h('td', { class: 'numeric' }),
    h('td', {}, h('span', { class: 'state' })),
  );
}
