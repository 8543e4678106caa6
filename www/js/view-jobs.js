// The list of jobs, and one job in detail.

import { card, h, keyed, paced, problemBox, setAttribute, setText, show, table } from './dom.js';
import { bytes, duration, number, rate } from './format.js';
import { strings } from './strings.js';
import { hasEnded, jobList } from './state.js';
import { timeLeft } from './mosaic.js';
import { mountStream } from './view-stream.js';
import { mountWatch } from './view-watch.js';

/** Jobs in the list at most; the node keeps them all. */
const SHOWN_MAX = 50;
/** How long a button says that it has copied. */
const COPIED_MS = 1_500;

export function mountJobs(root, actions) {
  const list = h('ul', { id: 'jobs-list', class: 'jobs' });
  const empty = h('p', { class: 'quiet' }, strings.jobs.empty);
  const more = h('p', { class: 'quiet' });
  const lost = problemBox('lost-job');
  root.append(card('jobs', strings.jobs.heading, lost.element, empty, list, more));

  return (state) => {
    const jobs = jobList(state);
    const own = new Set(state.own);
    lost.update(state.lostJob);
    show(empty, jobs.length === 0);
    show(more, jobs.length > SHOWN_MAX);
    setText(more, strings.jobs.more(jobs.length - SHOWN_MAX));
    keyed(list, jobs.slice(0, SHOWN_MAX), (job) => job.job, (job) => createItem(job, actions), (item, job) => {
      updateItem(item, job, own.has(job.job), state.openJob === job.job);
    });
  };
}

function createItem(job, actions) {
  return h(
    'li',
    { class: 'job', 'data-job': job.job },
    h(
      'button',
      { type: 'button', class: 'job-open', onclick: () => actions.openJob(job.job) },
      h('span', { class: 'job-words' }, h('span', { class: 'job-title' }), h('span', { class: 'tag' }, strings.jobs.own), h('span', { class: 'job-shape quiet' })),
      h('span', { class: 'state' }),
    ),
    h('progress', { max: 1 }),
    h('span', { class: 'job-note quiet' }),
    h('button', { type: 'button', class: 'small job-cancel', onclick: () => actions.cancelJob(job.job) }, strings.jobs.cancel),
  );
}

function updateItem(item, job, own, open) {
  const part = (name) => item.querySelector(name);
  const title = strings.jobs.title(job);
  setAttribute(item, 'data-state', job.state);
  setAttribute(part('.job-open'), 'aria-expanded', open);
  setText(part('.job-title'), title);
  show(part('.tag'), own);
  setText(part('.job-shape'), strings.jobs.shape(job));
  setText(part('.state'), strings.jobs.state[job.state] ?? job.state);
  setAttribute(part('.state'), 'data-state', job.state);
  setAttribute(part('progress'), 'aria-label', `${title}: ${strings.job.progress}`);
  part('progress').value = shareOf(job);
  const helped = strings.jobs.active(job.contributions.length);
  setText(part('.job-note'), hasEnded(job) ? `${strings.jobs.took(job.seconds)}, ${helped}` : `${strings.jobs.tiles(job.tiles_done, job.tiles_total)}, ${helped}`);
  show(part('.job-cancel'), !hasEnded(job));
}

function shareOf(job) {
  return job.tiles_total ? job.tiles_done / job.tiles_total : 0;
}

export function mountJob(root, actions) {
  const heading = h('h2', { id: 'job-heading', tabindex: -1 });
  const state = h('span', { id: 'job-state', class: 'state', role: 'status' });
  const progress = h('progress', { id: 'progress', max: 1, 'aria-label': strings.job.progress });
  const percent = h('span', { id: 'progress-text', class: 'numeric' });
  const left = h('span', { id: 'time-left', class: 'quiet numeric' });
  const watch = mountWatch(actions);
  const stream = mountStream(actions);
  const error = h('p', { id: 'job-error', class: 'problem', role: 'alert', hidden: true });
  const problem = problemBox('job-problem');
  const facts = {};
  const list = h('dl', { class: 'facts' });
  for (const [name, label] of Object.entries(strings.job.facts)) {
    facts[name] = h('dd', { id: `job-${name}` });
    list.append(h('div', { class: `fact fact-${name}` }, h('dt', {}, label), facts[name]));
  }
  const contributions = table('contributions-table', strings.job.contributions, strings.job.columns);
  const none = h('p', { class: 'quiet' }, strings.job.noContributions);
  const leftOut = h('ul', { id: 'job-left-out', class: 'quiet plain' });
  const moments = h('ol', { id: 'job-timeline', class: 'timeline' });
  const timeline = h(
    'div',
    {},
    h('h3', { id: 'timeline-heading' }, strings.job.timeline),
    h('div', { class: 'timeline-scroll', tabindex: 0, role: 'region', 'aria-labelledby': 'timeline-heading' }, moments),
  );
  const cancel = h('button', { id: 'job-cancel', type: 'button', class: 'small', onclick: () => actions.cancelJob(section.dataset.job) }, strings.jobs.cancel);
  const close = h('button', { id: 'job-close', type: 'button', class: 'small', onclick: () => actions.openJob(null) }, strings.job.close);
  const result = h('div', { id: 'result' });
  const again = h('button', { id: 'job-again', type: 'button', class: 'small', onclick: () => actions.runAgain(section.dataset.job) }, strings.share.again);
  const copies = [
    ['link', actions.copyLink],
    ['command', actions.copyCommand],
    ['numpy', actions.copyNumpy],
  ].map(([name, copy]) => copyButton(`copy-${name}`, strings.share[name], (done) => copy(section.dataset.job, done)));
  const share = h('div', { class: 'row share' }, again, ...copies);
  const section = h(
    'section',
    { id: 'job', class: 'card', 'aria-labelledby': 'job-heading', hidden: true },
    h('div', { class: 'row spread' }, heading, h('div', { class: 'row' }, state, close)),
    h('div', { class: 'row progress-row' }, progress, percent, left, cancel),
    error,
    problem.element,
    share,
    result,
    watch.element,
    list,
    h('h3', {}, strings.job.contributions),
    none,
    h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': strings.tableOf(strings.job.contributions) }, contributions.element),
    leftOut,
    stream.element,
    timeline,
  );
  root.append(section);
  const due = paced(actions.redraw);

  const update = (page) => {
    const job = page.jobs[page.openJob];
    show(section, Boolean(job));
    watch.update(page);
    stream.update(page);
    if (!job) return;
    setAttribute(section, 'data-job', job.job);
    setText(heading, strings.job.heading(job));
    setText(state, strings.jobs.state[job.state] ?? job.state);
    setAttribute(state, 'data-state', job.state);
    progress.value = shareOf(job);
    setText(percent, `${Math.floor(100 * shareOf(job))} %`);
    show(again, Boolean(page.products[job.job]) && hasEnded(job) && !page.connection.moved);
    show(copies[1], !job.products);
    show(copies[2], !job.products);
    const seconds = timeLeft(job);
    show(left, seconds !== null);
    setText(left, seconds === null ? '' : strings.job.left(seconds));
    setAttribute(section, 'data-state', job.state);
    const failed = job.failed?.length ? strings.jobs.failed(job.failed) : null;
    show(error, Boolean(job.error ?? failed));
    setText(error, job.error ?? failed ?? '');
    problem.update(page.jobProblem?.job === job.job ? page.jobProblem : null);
    // The products of a batch have no shape in common; what devices computed is known for all jobs.
    const operations = job.products ? job.contributions.reduce((sum, part) => sum + part.operations, 0) : 2 * job.rows * job.inner * job.cols;
    setText(facts.shape, strings.jobs.shape(job));
    setText(facts.tiles, strings.jobs.tiles(job.tiles_done, job.tiles_total));
    setText(facts.time, duration(job.seconds));
    setText(facts.predicted, job.predicted_seconds === null ? strings.contribution.none : duration(job.predicted_seconds));
    setText(facts.speed, job.state === 'done' && job.seconds > 0 ? rate(operations / job.seconds) : strings.contribution.none);
    const called = (id) => page.devices.find(({ device }) => device === id)?.name ?? id.slice(0, 8);
    setText(facts.coordinator, called(job.coordinator));
    setText(facts.epoch, number(job.epoch));
    setText(facts.copies, number(job.safe_copies));
    setText(facts.backups, job.backups?.map(called).join(', ') || strings.contribution.none);
    updateTimeline(timeline, moments, job);
    setText(facts.traffic, bytes(job.bytes_sent));
    show(facts.sharing.parentElement, Boolean(job.sharing));
    setText(facts.sharing, job.sharing ? strings.job.sharing(job.sharing) : '');
    setText(facts.id, job.job);
    show(none, job.contributions.length === 0);
    show(contributions.element, job.contributions.length > 0);
    // News of a busy job come with every frame; a table that is read needs not.
    if (due(`${job.job} ${job.state}`)) updateContributions(contributions.body, job.contributions, page.me.device);
    updateLeftOut(leftOut, job);
    show(cancel, !hasEnded(job));
  };
  return { update, result, focus: () => heading.focus({ preventScroll: true }), section };
}

/** A button that says for a moment that it has copied. */
function copyButton(id, label, copy) {
  const button = h('button', {
    id,
    type: 'button',
    class: 'small',
    onclick: () =>
      copy(() => {
        setText(button, strings.share.copied);
        setTimeout(() => setText(button, label), COPIED_MS);
      }),
  }, label);
  return button;
}

/** Who the plan leaves out, and why. */
function updateLeftOut(list, { plan = [], contributions, predicted_seconds: whole }) {
  const helped = new Set(contributions.map(({ device }) => device));
  const out = plan.filter(({ device, tiles }) => tiles === 0 && !helped.has(device));
  show(list, out.length > 0);
  keyed(list, out, ({ device }) => device, () => h('li'), (item, part) => setText(item, strings.job.leftOut(part, whole)));
}

/** Newest first, as in the log. */
function updateTimeline(section, list, { job, timeline = [] }) {
  show(section, timeline.length > 0);
  const key = ({ at, event, device, tile }) => [job, at, event, device, tile].join(' ');
  keyed(list, [...timeline].reverse(), key, createMoment, () => {});
}

function createMoment(moment) {
  return h('li', { 'data-event': moment.event }, h('time', {}, duration(moment.at)), ' ', h('span', {}, strings.job.moment(moment)));
}

function updateContributions(body, contributions, me) {
  const all = contributions.reduce((sum, { operations }) => sum + operations, 0);
  const sorted = [...contributions].sort((x, y) => y.operations - x.operations);
  keyed(body, sorted, ({ device }) => device, createContribution, (row, part) => {
    const cells = row.cells;
    setAttribute(cells[0], 'title', part.user_agent);
    setText(cells[0].firstChild, part.name.trim() || part.device.slice(0, 8));
    setText(cells[0].lastChild, strings.devices.me);
    show(cells[0].lastChild, part.device === me);
    setText(cells[1], strings.devices.kind[part.kind] ?? part.kind);
    setText(cells[2], number(part.tiles));
    setText(cells[3], number(part.rows));
    setText(cells[4], all ? `${number(Math.round((1000 * part.operations) / all) / 10)} %` : '');
    setText(cells[5], duration(part.compute_ms / 1000));
    setText(cells[6], duration(part.transfer_ms / 1000));
    setText(cells[7], number(part.mflops));
  });
}

function createContribution(part) {
  const numeric = () => h('td', { class: 'numeric' });
  return h(
    'tr',
    { 'data-device': part.device },
    h('th', { scope: 'row' }, h('span', { class: 'name' }), h('span', { class: 'tag' })),
    h('td'),
    numeric(),
    numeric(),
    numeric(),
    numeric(),
    numeric(),
    numeric(),
  );
}
