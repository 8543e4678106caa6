// The product: all of it when it is small, else a corner, and downloads.

import { h, problemBox, setText, show } from './dom.js';
import { number } from './format.js';
import { pageElsewhere } from './state.js';
import { strings } from './strings.js';
import { resultUrl } from './api.js';
import { fillMatrix } from './view-matrix.js';

const text = strings.result;

export function mountResult(root, actions) {
  const status = h('p', { class: 'quiet', role: 'status' });
  const problem = problemBox('problem-result');
  const caption = h('caption');
  const body = h('tbody');
  const table = h('table', { id: 'result-table', class: 'result-table' }, caption, body);
  const links = Object.entries(text.formats).map(([format, label]) =>
    h('a', { id: `download-${format}`, class: 'button', 'data-format': format, download: true }, label),
  );
  const copy = h('button', { id: 'copy-result', type: 'button', onclick: () => actions.copyResult(table, () => setText(copy, text.copied)) }, text.copy);
  const part = h(
    'div',
    { class: 'result', hidden: true },
    h('h3', {}, text.heading),
    status,
    problem.element,
    h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': strings.tableOf(text.heading) }, table),
    h('div', { class: 'row downloads' }, h('span', { class: 'quiet' }, text.download), ...links, copy),
  );
  root.append(part);
  let shown = null;

  return ({ openJob, jobs, result, connection }) => {
    const job = jobs[openJob];
    show(part, job?.state === 'done');
    if (job?.state !== 'done') {
      shown = null;
      return;
    }
    for (const link of links) {
      const url = (pageElsewhere(connection) ?? '') + resultUrl(job.job, link.dataset.format);
      if (link.getAttribute('href') !== url) link.setAttribute('href', url);
    }
    setText(status, result ? '' : text.loading);
    show(status, !result);
    problem.update(result?.problem);
    show(table, Boolean(result?.rows));
    show(copy, Boolean(result?.complete));
    if (result === shown) return;
    shown = result;
    if (!result?.rows) return;
    setText(copy, text.copy);
    fill(body, caption, result, job);
  };
}

function fill(body, caption, { rows, complete }, job) {
  fillMatrix(body, rows, job);
  setText(
    caption,
    complete ? text.inline(job.rows, job.cols) : text.preview(number(rows.length), number(rows[0]?.length ?? 0)),
  );
}
