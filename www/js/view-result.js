// The product: all of it when it is small, else a corner, and downloads.

import { h, setText, show } from './dom.js';
import { element as formatElement, number } from './format.js';
import { strings } from './strings.js';
import { resultUrl } from './api.js';

const text = strings.result;

export function mountResult(root, actions) {
  const status = h('p', { class: 'quiet', role: 'status' });
  const problem = h('p', { class: 'problem', role: 'alert', hidden: true });
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
    problem,
    h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': text.heading }, table),
    h('div', { class: 'row downloads' }, h('span', { class: 'quiet' }, text.download), ...links, copy),
  );
  root.append(part);
  let shown = null;

  return ({ openJob, jobs, result }) => {
    const job = jobs[openJob];
    show(part, job?.state === 'done');
    if (job?.state !== 'done') {
      shown = null;
      return;
    }
    for (const link of links) {
      const url = resultUrl(job.job, link.dataset.format);
      if (link.getAttribute('href') !== url) link.setAttribute('href', url);
    }
    setText(status, result ? '' : text.loading);
    show(status, !result);
    show(problem, Boolean(result?.problem));
    setText(problem, result?.problem ? `${result.problem.message}. ${result.problem.hint ?? ''}` : '');
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
  const cells = (row) => row.map((value) => h('td', { 'data-value': String(value), title: String(value) }, show8(value)));
  const more = () => h('td', { class: 'quiet' }, text.more);
  const lines = rows.map((row) => h('tr', {}, ...cells(row), row.length < job.cols ? more() : null));
  if (rows.length < job.rows && rows.length > 0) lines.push(h('tr', {}, ...rows[0].map(more)));
  body.replaceChildren(...lines);
  setText(
    caption,
    complete ? text.inline(job.rows, job.cols) : text.preview(number(rows.length), number(rows[0]?.length ?? 0)),
  );
}

/** Numbers arrive as numbers in JSON and as texts in CSV; long ones are shortened, the title has all. */
function show8(value) {
  if (typeof value === 'number') return formatElement(value);
  return /^[+-]?\d+$/.test(value) || !Number.isFinite(Number(value)) ? String(value) : formatElement(Number(value));
}
