// What happened, newest first.

import { card, h, keyed } from './dom.js';
import { strings } from './strings.js';

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

export function mountLog(root) {
  const list = h('ol', { id: 'log-list', class: 'log' });
  root.append(card('log', strings.log.heading, h('div', { class: 'log-scroll', role: 'log', 'aria-labelledby': 'log-heading', tabindex: 0 }, list)));

  return ({ log }) => {
    keyed(
      list,
      log,
      (entry) => entry.id,
      (entry) =>
        h(
          'li',
          { 'data-level': entry.level },
          h('time', { datetime: new Date(entry.time).toISOString() }, clock.format(entry.time)),
          ' ',
          h('span', {}, entry.text),
        ),
      () => {},
    );
  };
}
