// The header: which node, and how the connection stands.

import { h, setAttribute, setText, show } from './dom.js';
import { pageElsewhere } from './state.js';
import { strings } from './strings.js';

export function mountHeader(root, actions) {
  const node = h('span', { id: 'node-name', class: 'node-name' });
  const phase = h('span', { id: 'connection-state', class: 'connection', role: 'status' });
  // Apart from the status, so that a screen reader does not read every second aloud.
  const next = h('span', { id: 'next-try', class: 'next-try quiet', 'aria-hidden': 'true' });
  const moved = h('a', { id: 'moved-to' }, strings.connection.openMoved);
  const retry = h('button', { id: 'retry', type: 'button', class: 'small', onclick: actions.reconnect }, strings.connection.retry);
  const install = h('button', { id: 'install', type: 'button', class: 'small', hidden: true, onclick: actions.install }, strings.install);
  const join = h('button', { id: 'add-device', type: 'button', class: 'small', 'aria-haspopup': 'dialog', onclick: actions.addDevice }, strings.join.open);
  root.append(
    h('div', { class: 'brand' }, h('img', { src: '/icons/icon.svg', alt: '', width: 32, height: 32 }), h('h1', {}, strings.title)),
    h('div', { class: 'where' }, node, phase, moved, next, retry, install, join),
  );

  return ({ connection, me, now }) => {
    show(install, me.installable);
    const elsewhere = pageElsewhere(connection);
    setText(node, connection.node && !connection.moved ? strings.connection.node(connection.node.name) : '');
    show(node, !connection.moved);
    show(moved, Boolean(elsewhere));
    setAttribute(moved, 'href', elsewhere);
    setAttribute(phase, 'data-state', connection.phase);
    setText(phase, phaseText(connection));
    show(next, connection.phase === 'waiting');
    setText(next, connection.phase === 'waiting' ? strings.connection.nextTry(secondsLeft(connection, now)) : '');
    show(retry, connection.phase === 'waiting');
  };
}

function phaseText({ phase, reason, moved, node }) {
  if (phase === 'online' && moved) return strings.connection.moved(node.name);
  return (phase === 'waiting' && strings.connection.refused[reason]) || strings.connection[phase];
}

function secondsLeft({ retryAt }, now) {
  return Math.max(0, Math.ceil((retryAt - now) / 1000));
}
