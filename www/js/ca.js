// The page at /ca: how this device comes to trust the node's https, for each system.

import * as api from './api.js';
import { h } from './dom.js';
import { browserNames } from './feature-detect.js';
import { strings } from './strings.js';

const text = strings.authority;

/** Whose steps this device needs, by its system's name. */
const SYSTEMS = { Android: 'android', iPhone: 'ios', iPad: 'ios', macOS: 'macos', Windows: 'windows' };

function steps(authority) {
  const [browser, system] = browserNames();
  const own = browser === 'Firefox' && system !== 'iPhone' ? 'firefox' : (SYSTEMS[system] ?? 'linux');
  const details = Object.entries(text.systems).map(([name, { heading, steps: list }]) =>
    h('details', { open: name === own }, h('summary', {}, heading), h('ol', {}, ...list.map((step) => h('li', {}, step)))),
  );
  const url = `https://${location.hostname}:${location.port || 80}/`;
  return [
    location.protocol === 'https:' ? h('p', { id: 'authority-there' }, text.there) : h('p', {}, text.how),
    h('a', { id: 'authority-get', class: 'button', href: '/ca.crt' }, text.get),
    h('p', {}, text.check(authority.name)),
    h('code', { id: 'authority-fingerprint', class: 'fingerprint' }, authority.fingerprint),
    ...details,
    h('p', {}, text.then, ' ', h('a', { id: 'authority-open', href: url }, url.replace(/\/$/, ''))),
    h('p', { class: 'quiet' }, text.limits),
  ];
}

async function body() {
  try {
    const { authority } = await api.joining();
    return authority ? steps(authority) : [h('p', { id: 'authority-off' }, text.off, ' ', h('code', {}, 'gemmesh serve --tls'))];
  } catch (error) {
    return [h('p', { class: 'problem', role: 'alert' }, error.message)];
  }
}

document.title = text.title;
document
  .getElementById('authority')
  .replaceChildren(
    h('section', { class: 'card' }, h('h1', {}, text.heading), h('p', {}, text.why), ...(await body()), h('p', {}, h('a', { href: '/' }, text.back))),
  );
