// "Add a device": how another device comes to this page.

import { h, setAttribute, setText, show } from './dom.js';
import { strings } from './strings.js';

const text = strings.join;
/** Light modules around a code, without which cameras do not find it. */
const QUIET = 4;
const MODULE = 8;

export function mountJoin(root, actions) {
  const canvas = h('canvas', { id: 'qr', class: 'qr', role: 'img' });
  const url = h('a', { id: 'join-url', class: 'join-url' });
  const copy = h('button', { type: 'button', class: 'small', onclick: () => actions.copyUrl(url.href, () => setText(copy, text.copied)) }, text.copy);
  const others = h('div', { class: 'row', role: 'group', 'aria-label': text.others });
  const https = h('a', { id: 'join-https', href: '/ca' }, text.https);
  const httpsOff = h('p', { class: 'quiet' }, text.httpsOff);
  const reach = h('div', { class: 'join-reach' }, canvas, url, copy, others, h('p', { class: 'quiet' }, text.how), https, httpsOff);
  const alone = h('p', { id: 'join-alone', class: 'problem', hidden: true });
  const close = h('button', { id: 'join-close', type: 'button', class: 'small', onclick: () => dialog.close() }, text.close);
  const dialog = h(
    'dialog',
    { id: 'join', class: 'card join', 'aria-labelledby': 'join-heading' },
    h('div', { class: 'row spread' }, h('h2', { id: 'join-heading' }, text.heading), close),
    reach,
    alone,
  );
  // A press beside the card closes it.
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
  root.append(dialog);
  let chosen = 0;
  let drawn = null;

  function update({ joining, connection }) {
    const links = joining?.links ?? [];
    const why = connection.moved ? text.moved : !joining ? text.unknown : joining.alone ? text.alone : null;
    show(alone, why !== null);
    setText(alone, why ?? '');
    show(reach, why === null);
    if (why !== null || !dialog.open) return;
    const link = links[Math.min(chosen, links.length - 1)];
    show(others, links.length > 1);
    show(https, Boolean(joining.authority));
    show(httpsOff, !joining.authority);
    if (others.childElementCount !== links.length) {
      others.replaceChildren(...links.map((other, index) => h('button', { type: 'button', class: 'chip', onclick: () => choose(index) }, new URL(other.url).host)));
    }
    [...others.children].forEach((button, index) => setAttribute(button, 'aria-pressed', index === chosen));
    setAttribute(url, 'href', link.url);
    setText(url, short(link.url));
    if (drawn === link.url) return;
    drawn = link.url;
    setText(copy, text.copy);
    setAttribute(canvas, 'aria-label', text.code(link.url));
    show(canvas, link.code.length > 0);
    draw(canvas, link.code);
  }

  function choose(index) {
    chosen = index;
    actions.redraw();
  }

  return {
    update,
    open() {
      dialog.showModal();
      actions.redraw();
    },
  };
}

/** A URL as people type it. */
function short(url) {
  return url.replace(/\/$/, '');
}

/** Black on white in light and dark: cameras expect that. */
function draw(canvas, code) {
  const edge = code.length + 2 * QUIET;
  canvas.width = canvas.height = edge * MODULE;
  const context = canvas.getContext('2d');
  context.fillStyle = '#ffffff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = '#000000';
  code.forEach((row, y) =>
    [...row].forEach((module, x) => {
      if (module === '1') context.fillRect((x + QUIET) * MODULE, (y + QUIET) * MODULE, MODULE, MODULE);
    }),
  );
}
