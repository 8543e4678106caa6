// The product: all of it when it is small, else a corner, and downloads.

import { h, problemBox, setAttribute, setText, show } from './dom.js';
import { element as shortNumber, number } from './format.js';
import { pageElsewhere } from './state.js';
import { strings } from './strings.js';
import { resultUrl } from './api.js';
import { mountHeat } from './view-heat.js';
import { fillMatrix } from './view-matrix.js';

const text = strings.result;

export function mountResult(root, actions) {
  const status = h('p', { class: 'quiet', role: 'status' });
  const problem = problemBox('problem-result');
  const caption = h('caption');
  const body = h('tbody');
  const table = h('table', { id: 'result-table', class: 'result-table' }, caption, body);
  const scroll = h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': strings.tableOf(text.heading) }, table);
  const corner = h('details', { hidden: true }, h('summary', {}, text.corner));
  const links = Object.entries(text.formats).map(([format, label]) =>
    h('a', { id: `download-${format}`, class: 'button', 'data-format': format, download: true }, label),
  );
  const copy = h('button', { id: 'copy-result', type: 'button', onclick: () => actions.copyResult(table, () => setText(copy, text.copied)) }, text.copy);
  const heat = mountHeat(actions);
  const figures = Object.fromEntries(Object.keys(text.figures).map((name) => [name, h('dd', { id: `result-${name}` })]));
  const summary = h(
    'dl',
    { id: 'summary', class: 'facts summary' },
    ...Object.entries(figures).map(([name, value]) => h('div', { class: 'fact' }, h('dt', {}, text.figures[name]), value)),
  );
  const summaryOf = h('p', { class: 'quiet', hidden: true });
  const index = h('input', { id: 'result-index', type: 'number', min: 0, value: 0, oninput: () => actions.redraw() });
  const label = h('span');
  const which = h('label', { class: 'row', hidden: true }, label, index);
  const part = h(
    'div',
    { class: 'result', hidden: true },
    h('h3', {}, text.heading),
    status,
    problem.element,
    summary,
    summaryOf,
    heat.element,
    scroll,
    corner,
    which,
    h('div', { class: 'row downloads' }, h('span', { class: 'quiet' }, text.download), ...links, copy),
  );
  root.append(part);
  let shown = null;

  return (page) => {
    const { openJob, jobs, result, connection, products } = page;
    const job = jobs[openJob];
    heat.update(page);
    updateSummary(page.heat?.job === openJob ? page.heat : null);
    show(part, job?.state === 'done');
    if (job?.state !== 'done') {
      shown = null;
      return;
    }
    const batch = job.products > 0;
    show(which, batch);
    if (batch) {
      setText(label, text.product(job.products));
      index.max = job.products - 1;
    }
    const product = batch ? Math.min(Math.max(Math.trunc(index.valueAsNumber) || 0, 0), job.products - 1) : null;
    for (const link of links) {
      const url = (pageElsewhere(connection) ?? '') + resultUrl(job.job, link.dataset.format, product, products[job.job]?.token);
      if (link.getAttribute('href') !== url) link.setAttribute('href', url);
    }
    setText(status, result || batch ? '' : text.loading);
    show(status, !result && !batch);
    problem.update(result?.problem);
    show(table, Boolean(result?.rows));
    show(copy, Boolean(result?.complete));
    // A part of the values stands behind the heat map; all of them stand there at once.
    const partial = Boolean(result?.rows) && !result.complete;
    show(corner, partial);
    if (partial !== (scroll.parentElement === corner)) partial ? corner.append(scroll) : corner.before(scroll);
    if (result === shown) return;
    shown = result;
    if (!result?.rows) return;
    setText(copy, text.copy);
    fill(body, caption, result, job);
  };

  function updateSummary(heat) {
    const known = heat?.summary;
    show(summary, Boolean(known));
    const part = known && (known.rows < heat.whole.rows || known.cols < heat.whole.cols);
    show(summaryOf, Boolean(part));
    if (!known) return;
    if (part) setText(summaryOf, text.summaryOf(number(known.rows), number(known.cols)));
    for (const name of ['min', 'max', 'norm']) {
      setText(figures[name], known[name] === null ? text.none : shortNumber(Number(known[name])));
      setAttribute(figures[name], 'title', known[name]);
    }
    setText(figures.nan, number(known.nan));
  }
}

function fill(body, caption, { rows, complete }, job) {
  fillMatrix(body, rows, job);
  setText(
    caption,
    complete ? text.inline(job.rows, job.cols) : text.preview(number(rows.length), number(rows[0]?.length ?? 0)),
  );
}
