// My Node Contribution: what this page has computed, and the controls of its worker.

import { card, h, keyed, setAttribute, setText, show, table } from './dom.js';
import { duration, number, scaled } from './format.js';
import { ownShares } from './state.js';
import { strings } from './strings.js';

const text = strings.contribution;
/** Jobs in the table at most. */
const JOBS_MAX = 20;

export function mountContribution(root, actions) {
  const values = {};
  const list = h('dl', { class: 'facts' });
  for (const [name, label] of Object.entries(text.fields)) {
    values[name] = h('span', { id: `contribution-${name}`, 'data-testid': `contribution-${name}`, role: name === 'status' ? 'status' : null });
    list.append(h('div', { class: `fact fact-${name}` }, h('dt', {}, label), h('dd', {}, values[name])));
  }

  const name = h('input', {
    id: 'device-name',
    type: 'text',
    maxlength: 64,
    autocomplete: 'off',
    spellcheck: 'false',
    onchange: () => actions.rename(name.value),
  });
  const threads = h('input', {
    id: 'threads',
    type: 'range',
    min: 1,
    step: 1,
    oninput: () => setText(threadsText, strings.contribution.threadsOf(threads.value, threads.max)),
    onchange: () => actions.setThreads(Number(threads.value)),
  });
  const threadsText = h('output', { id: 'threads-value', for: 'threads' });
  const pause = h('button', { id: 'pause', type: 'button', onclick: actions.togglePause });
  const leave = h('button', { id: 'leave', type: 'button', onclick: actions.toggleLeave });
  const bench = h('button', { id: 'bench', type: 'button', onclick: actions.bench });
  const figures = {};
  for (const dtype of ['f64', 'f32']) figures[dtype] = h('p', { id: `bench-${dtype}`, class: 'quiet' });
  const benchProblem = h('p', { id: 'bench-problem', class: 'problem', hidden: true });
  const speed = h('p', { id: 'speed', class: 'quiet' });
  const keepOpen = h('p', { id: 'keep-open', class: 'quiet', hidden: true }, text.keepOpen);
  const shares = table('contribution-jobs', text.jobs, text.columns);
  const details = h(
    'details',
    { id: 'contribution-shares', hidden: true },
    h('summary', {}, text.jobs),
    h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': strings.tableOf(text.jobs) }, shares.element),
  );
  const noNode = h('p', { id: 'no-node', class: 'problem', role: 'status', hidden: true }, text.noNode(location.host));
  const awake = h('input', { id: 'keep-awake', type: 'checkbox', onchange: () => actions.keepAwake(awake.checked) });
  const awakeNow = h('span', { id: 'awake-now', class: 'quiet', role: 'status' });
  const awakeHttps = h('a', { id: 'awake-https', href: '/ca' }, strings.join.https);
  const awakeRow = h('div', { class: 'row' }, h('label', { class: 'check' }, awake, text.awake.label), awakeNow, awakeHttps);
  const unsupported = h('p', { class: 'problem', hidden: true }, text.unsupported);

  root.append(
    card(
      'contribution',
      text.heading,
      noNode,
      list,
      details,
      unsupported,
      h(
        'div',
        { class: 'controls' },
        h('label', { class: 'field grow' }, h('span', {}, text.name), name),
        h('label', { class: 'field grow' }, h('span', { class: 'spread' }, text.threads, threadsText), threads),
        pause,
        leave,
        bench,
      ),
      speed,
      h('div', { role: 'status' }, figures.f64, figures.f32, benchProblem),
      awakeRow,
      keepOpen,
    ),
  );

  return (state) => {
    const { me, contribution, connection, jobs, joining } = state;
    const own = ownShares(state).slice(0, JOBS_MAX);
    show(details, own.length > 0);
    keyed(shares.body, own, (entry) => entry.job.job, createShare, updateShare);
    const job = contribution.job && (jobs[contribution.job] ?? { job: contribution.job });
    const status = statusOf(me, connection);
    write('compute-time', duration(contribution.kernelMs / 1000), contribution.kernelMs);
    write('mflops', number(contribution.mflops), contribution.mflops);
    write('operations', scaled(contribution.operations), contribution.operations);
    write('rows', number(contribution.rows), contribution.rows);
    write('tiles', number(contribution.tiles), contribution.tiles);
    write('device', me.name, me.device ?? '');
    write('node', connection.node?.name ?? text.none, connection.node?.device ?? '');
    write('job', job ? strings.jobs.title(job) : text.none, contribution.job ?? '');
    write('last-tile', contribution.lastTile ? text.lastTile(contribution.lastTile) : text.none, contribution.lastTile?.tile ?? '');
    write('status', text.status[status], status);

    if (document.activeElement !== name) name.value = me.name;
    setAttribute(threads, 'max', me.threadsMax);
    if (document.activeElement !== threads) threads.value = me.threads;
    setText(threadsText, text.threadsOf(threads.value, me.threadsMax));
    setText(pause, me.paused ? text.resume : text.pause);
    setAttribute(pause, 'aria-pressed', me.paused);
    show(noNode, connection.phase === 'waiting' && !strings.connection.refused[connection.reason]);
    show(awakeRow, Boolean(me.build && me.awakeWay));
    awake.checked = me.keepAwake;
    setText(awakeNow, me.awakeWay ? text.awake[me.awakeWay][me.awake] : '');
    show(awakeHttps, me.awakeWay === 'video' && Boolean(joining?.authority));
    show(unsupported, !me.build);
    show(keepOpen, me.handheld && Boolean(me.build));
    setText(leave, me.left ? text.rejoin : text.leave);
    leave.disabled = !me.build || !me.mflops;
    pause.disabled = !me.build || me.left;
    threads.disabled = !me.build;
    const found = me.bench;
    bench.disabled = !me.mflops || Boolean(found?.running);
    setText(bench, found?.running ? text.benching : text.bench);
    for (const [dtype, element] of Object.entries(figures)) {
      show(element, Boolean(found?.[dtype]));
      setText(element, found?.[dtype] ? text.benched(dtype, found[dtype], found.threads) : '');
      setAttribute(element, 'data-value', found?.[dtype]?.mflops ?? '');
      setAttribute(element, 'data-limit', found?.[dtype]?.limit ?? '');
    }
    show(benchProblem, Boolean(found?.problem));
    setText(benchProblem, found?.problem ? text.benchFailed(found.problem) : '');
    setText(speed, me.mflops ? text.speed(me.mflops, me.limit, me.build) : '');
  };

  function write(name, shown, raw) {
    setText(values[name], shown);
    setAttribute(values[name], 'data-value', raw);
  }
}

function createShare({ job }) {
  const numeric = () => h('td', { class: 'numeric' });
  return h('tr', { 'data-job': job.job }, h('th', { scope: 'row', class: 'name' }), numeric(), numeric(), numeric(), numeric());
}

function updateShare({ cells }, { job, part, share }) {
  setText(cells[0], strings.jobs.title(job));
  setText(cells[1], text.share(share));
  setText(cells[2], number(part.tiles));
  setText(cells[3], duration(part.compute_ms / 1000));
  setText(cells[4], number(part.mflops));
}

function statusOf(me, connection) {
  if (!me.build) return 'unsupported';
  if (me.left) return 'left';
  if (me.away) return 'away';
  if (connection.phase === 'starting') return 'starting';
  if (connection.phase !== 'online') return 'offline';
  if (me.paused) return 'paused';
  return me.computing > 0 ? 'computing' : 'ready';
}
