// Wires the page together: events change the state, the state is drawn, people's actions become
// calls to the node and messages to the mesh worker.

import * as api from './api.js';
import { awakeWay, keepAwake } from './awake.js';
import { detectBuild, hardwareThreads, isHandheld } from './feature-detect.js';
import * as identity from './identity.js';
import { checkForm, newSeed, randomCells, randomNpy, readCells } from './matrix-input.js';
import { EDGE, firstWindow } from './heat.js';
import { install, keepPage, watchOffers } from './install.js';
import { TILES_MAX } from './mosaic.js';
import { questionOf } from './outlook.js';
import { commandLine, numpyCode } from './snippets.js';
import { GRID_MAX, hasEnded, initialState, reduce, shapeOf, sourceOf, wantsAwake } from './state.js';
import { strings } from './strings.js';
import { mountContribution } from './view-contribution.js';
import { mountDevices } from './view-devices.js';
import { mountHeader } from './view-header.js';
import { mountJob, mountJobs } from './view-jobs.js';
import { mountJoin } from './view-join.js';
import { mountLog } from './view-log.js';
import { mountMultiply } from './view-multiply.js';
import { mountResult } from './view-result.js';
import { acceptDrops } from './drop.js';

/** The preview of a large result. */
const CORNER = { rows: 8, cols: 6 };
/** The preview of a file. */
const FILE_CORNER = { rows: 4, cols: 4 };
/** The longest that a form waits for an answer about a job whose news do not come over the socket. */
const WAIT_S = 20;
/** How long a page may be refused for its id before it takes another. */
const DUPLICATE_MS = 2_500;
/** How often a page that can not compute asks for news. */
const REFRESH_MS = 5_000;
/** How long the form rests before the node is asked about it. */
const REST_MS = 300;
/** How often a batch is asked for while its parts have news, at most. */
const BATCH_MS = 500;

let seed = identity.seed();
const build = detectBuild(new URLSearchParams(location.search).get('build'));
const threadsMax = hardwareThreads();
// A phone that nobody looks at is a lost worker; a hidden desktop page goes on.
const handheld = isHandheld();

let state = initialState({
  name: identity.name(seed),
  threads: threadsMax,
  threadsMax,
  handheld,
  awakeWay: awakeWay(),
  build,
  own: identity.ownJobs(),
  products: identity.products(),
});

// A snapshot for tests and for the curious; changing it changes nothing here.
Object.defineProperty(window, 'gemmesh', { get: () => structuredClone(state) });

function dispatch(event) {
  const { form } = state;
  state = reduce(state, event);
  if (state.form !== form) consider();
  scheduleDraw();
  stayAwake();
}

function log(text, level = 'info') {
  dispatch({ type: 'log', text, level, time: Date.now() });
}

// Drawing.

const place = (id) => document.getElementById(id);
const actions = {
  reconnect: () => tellMesh({ type: 'reconnect' }),
  rename,
  setThreads,
  togglePause,
  toggleLeave,
  keepAwake: (wanted) => dispatch({ type: 'me', change: { keepAwake: wanted } }),
  install: () => install(tellOffer),
  addDevice: () => join.open(),
  copyUrl: copyText,
  bench,
  setDimension: (name, value) => dispatch({ type: 'dimension', name, value }),
  setPreset,
  setCell: (operand, row, col, text) => dispatch({ type: 'cell', operand, row, col, text }),
  setCells: (operand, cells) => dispatch({ type: 'cells', operand, cells }),
  setOption: (name, value) => dispatch({ type: 'option', name, value }),
  setFiles,
  removeFile: (operand) => dispatch({ type: 'file', operand, file: null }),
  fillRandom,
  clearCells: () => dispatch({ type: 'fill', a: { cells: {}, seed: null }, b: { cells: {}, seed: null } }),
  run: () => run().catch((error) => log(String(error?.stack ?? error), 'error')),
  openJob: (job) => openJob(job, true),
  cancelJob,
  copyResult,
  copyLink: (id, done) => copyText(linkTo(id), done),
  copyCommand: (id, done) => copyText(commandLine(id, state.products[id], state.joining?.origin ?? location.origin), done),
  copyNumpy: (id, done) => copyText(numpyCode(id, state.products[id], state.joining?.origin ?? location.origin), done),
  runAgain: (id) => submit({ ...state.products[id], token: undefined }).catch((error) => tellProblem(id, error)),
  firstWindow: () => firstWindow(state.heat.whole.rows, state.heat.whole.cols),
  lookAt,
  redraw: scheduleDraw,
};

const join = mountJoin(document.body, actions);
const job = mountJob(place('job-place'), actions);
// A file that misses both operands is not to replace the page.
acceptDrops(document.documentElement, (files) => setFiles(state.form.a.file ? 'b' : 'a', files));
/** @type {((page: any) => void)[]} */
const views = [
  mountHeader(place('header'), actions),
  mountContribution(place('contribution-place'), actions),
  mountMultiply(place('multiply-place'), actions),
  job.update,
  mountResult(job.result, actions),
  mountDevices(place('devices-place')),
  mountJobs(place('jobs-place'), actions),
  mountLog(place('log-place')),
  join.update,
];

let drawing = false;

function scheduleDraw() {
  if (drawing) return;
  drawing = true;
  // A hidden page gets no animation frames; then there is nobody to draw for.
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const now = Date.now();
  for (const view of views) view({ ...state, now });
}

// The page as an app, and the screen.

function tellOffer(installable) {
  dispatch({ type: 'me', change: { installable } });
}

let pageKept = false;

/** Once a node has answered, the page is kept for when none does. */
async function keepThisPage() {
  if (pageKept) return;
  pageKept = true;
  const problem = await keepPage(build);
  if (problem) log(strings.log.notKept(problem));
}

const awake = keepAwake(state.me.awakeWay, (now) => {
  // What the browser refused is not asked for again until the person does.
  if (now !== state.me.awake) dispatch({ type: 'me', change: { awake: now, ...(now === 'refused' ? { keepAwake: false } : {}) } });
});

function stayAwake() {
  awake(wantsAwake(state) && document.visibilityState === 'visible');
}

// The mesh worker.

const mesh = build ? new Worker(new URL('./mesh-worker.js', import.meta.url), { type: 'module', name: 'gemmesh' }) : null;
let away = false;

function tellMesh(message) {
  mesh?.postMessage(message);
}

const fromMesh = {
  ready({ build: used, threads, mflops, limit }) {
    dispatch({ type: 'me', change: { build: used, mflops, limit } });
    dispatch({ type: 'connection', phase: 'connecting' });
    log(strings.log.ready(threads, used));
  },

  benched({ bench }) {
    dispatch({ type: 'me', change: { bench } });
  },

  device({ device }) {
    dispatch({ type: 'me', change: { device, away: false } });
  },

  state({ contribution }) {
    // It may have been under way when the person left.
    if (state.me.left) return;
    tellConnection(contribution);
    const { tiles, rows, operations, kernel_ms: kernelMs, busy_ms: busyMs, mflops, last } = contribution;
    dispatch({
      type: 'contribution',
      contribution: { tiles, rows, operations, kernelMs, busyMs, mflops, job: last?.job ?? null, lastTile: last },
    });
    dispatch({ type: 'me', change: { computing: contribution.active_slots } });
  },

  devices({ devices }) {
    tellDevices(devices);
  },

  job({ job: status }) {
    tellJob(status);
  },

  nobody({ retryAt }) {
    dispatch({ type: 'connection', phase: 'waiting', retryAt });
  },

  away() {
    dispatch({ type: 'me', change: { away: true, computing: 0 } });
    dispatch({ type: 'connection', phase: 'away' });
  },

  resumed: () => log(strings.log.resumed),
  fallback: () => log(strings.log.fallback, 'warning'),
  refused: ({ reason }) => log(strings.log.refused(reason), 'warning'),
  slotFailed: ({ slot, why }) => log(strings.log.slotFailed(slot, why), 'warning'),

  failed({ message }) {
    dispatch({ type: 'me', change: { build: null } });
    dispatch({ type: 'connection', phase: 'unsupported' });
    log(strings.log.workerFailed(message), 'error');
  },
};

if (mesh) {
  mesh.onmessage = ({ data }) => fromMesh[data.type](data);
  mesh.onerror = (event) => fromMesh.failed({ message: event.message ?? '' });
  tellMesh({
    type: 'start',
    build,
    seed,
    node: location.host.includes(':') ? location.host : `${location.host}:${location.protocol === 'https:' ? 443 : 80}`,
    secure: location.protocol === 'https:',
    name: state.me.name,
    threads: state.me.threads,
    paused: false,
    userAgent: navigator.userAgent,
  });
} else {
  dispatch({ type: 'connection', phase: 'unsupported' });
}

/** How the page stands with its node, and what changed. */
function tellConnection({ connection, refusal, node, moved, retryAt }) {
  duplicate(refusal === 'duplicate_id');
  const before = state.connection;
  if (connection === 'connected') {
    const entry = state.devices.find(({ device }) => device === node) ?? { device: node, name: node.slice(0, 8) };
    const same = before.phase === 'online' && before.node?.device === node && before.moved === moved;
    if (same && before.node.name === entry.name) return;
    dispatch({ type: 'connection', phase: 'online', node: entry, moved });
    if (same) return;
    log(moved ? strings.log.moved(entry.name) : strings.log.connected(entry.name));
    refresh();
    keepThisPage();
    return;
  }
  if (before.phase === 'online') log(strings.log.disconnected, 'warning');
  const phase = retryAt === null ? 'connecting' : 'waiting';
  if (before.phase !== phase || before.retryAt !== retryAt || before.reason !== refusal) {
    dispatch({ type: 'connection', phase, retryAt, reason: refusal });
  }
}

let duplicateTimer = null;

/**
 * Another page has this one's id. It may be this page before it was loaded again, whose socket goes
 * soon; if it stays, this page takes another id.
 */
function duplicate(refused) {
  if (!refused) {
    clearTimeout(duplicateTimer);
    duplicateTimer = null;
    return;
  }
  duplicateTimer ??= setTimeout(() => {
    duplicateTimer = null;
    log(strings.log.newId, 'warning');
    seed = identity.newSeed();
    const name = identity.name(seed);
    dispatch({ type: 'me', change: { name } });
    tellMesh({ type: 'identity', seed, name });
  }, DUPLICATE_MS);
}

/** Devices whose coming was logged; the list is told anew after every reconnect. */
const present = new Set();
/** Batches that will be asked for. */
const asking = new Set();

function tellDevices(devices) {
  for (const { device, name, state: now } of devices) {
    if (now !== 'lost' && !present.has(device)) {
      present.add(device);
      if (device !== state.me.device) log(strings.log.joined(name));
    } else if (now === 'lost' && present.delete(device)) {
      log(strings.log.left(name));
    }
  }
  dispatch({ type: 'devices', devices });
  const home = state.connection.node;
  const entry = home && devices.find(({ device }) => device === home.device);
  if (entry && entry.name !== home.name) dispatch({ type: 'connection', ...state.connection, node: entry });
}

function tellJob(status) {
  if (status.part) {
    tellPart(status.part);
    return;
  }
  const before = state.jobs[status.job];
  dispatch({ type: 'job', job: status });
  const now = state.jobs[status.job];
  if (now.state !== before?.state) {
    log(strings.log.jobState(now, strings.jobs.state[now.state]), now.state === 'failed' ? 'error' : 'info');
    if (now.job === state.openJob && now.state === 'done') loadResult(now);
    if (before && hasEnded(now)) refreshLinks();
  }
  if (now.job === state.openJob) watchTiles(now);
}

/** A part of a batch has news: how the batch stands is asked for, at most twice a second. */
function tellPart({ batch }) {
  if (state.connection.moved || asking.has(batch)) return;
  asking.add(batch);
  setTimeout(async () => {
    asking.delete(batch);
    try {
      tellJob(await api.job(batch));
    } catch (error) {
      log(error.message, 'warning');
    }
  }, BATCH_MS);
}

/** Links are measured when they open and while they are used: when devices come and when jobs end. */
async function refreshLinks() {
  if (state.connection.moved) return;
  try {
    dispatch({ type: 'links', links: (await api.links()).links });
  } catch (error) {
    log(error.message, 'warning');
  }
}

/**
 * What the node knows, asked for once after every connection; news come over the socket. Who has moved
 * has the socket alone: the node that would answer is gone.
 */
async function refresh() {
  if (state.connection.moved) return;
  try {
    const [devices, jobs] = await Promise.all([api.nodes(), api.jobs()]);
    tellDevices(devices);
    dispatch({ type: 'jobs', jobs });
    if (state.openJob) openJob(state.openJob, false);
    dispatch({ type: 'joining', joining: await api.joining(), own: location });
    await refreshLinks();
  } catch (error) {
    log(error.message, 'warning');
  }
}

function visibility() {
  if (!handheld || !mesh) return;
  const hidden = document.visibilityState === 'hidden';
  if (hidden === away) return;
  away = hidden;
  tellMesh({ type: hidden ? 'sleep' : 'wake' });
  if (!hidden) draw();
}

document.addEventListener('visibilitychange', visibility);
document.addEventListener('visibilitychange', stayAwake);
watchOffers(tellOffer);
window.addEventListener('pageshow', (event) => {
  // Back from the browser's cache: the sockets were closed when the page went there.
  if (event.persisted) tellMesh({ type: 'wake' });
});
window.addEventListener('pagehide', (event) => {
  tellMesh({ type: event.persisted ? 'sleep' : 'leave' });
});
// The countdown to the next try.
setInterval(() => state.connection.phase === 'waiting' && scheduleDraw(), 500);

// What people do with this page's worker.

function rename(text) {
  const name = text.trim().slice(0, 64);
  identity.rememberName(name);
  const shown = name || identity.name(seed);
  dispatch({ type: 'me', change: { name: shown } });
  tellMesh({ type: 'configure', name: shown });
}

function setThreads(threads) {
  dispatch({ type: 'me', change: { threads } });
  tellMesh({ type: 'configure', threads });
}

function togglePause() {
  const paused = !state.me.paused;
  dispatch({ type: 'me', change: { paused } });
  tellMesh({ type: 'configure', paused });
}

function toggleLeave() {
  const left = !state.me.left;
  dispatch({ type: 'me', change: { left, computing: 0 } });
  dispatch({ type: 'connection', phase: left ? 'left' : 'connecting' });
  log(left ? strings.log.leftMesh : strings.log.rejoined);
  tellMesh({ type: left ? 'leave' : 'rejoin' });
}

function bench() {
  dispatch({ type: 'me', change: { bench: { running: true } } });
  tellMesh({ type: 'bench' });
}

// What people multiply.

let considering = null;

/** Asks for a prediction once the form has rested for a moment. */
function consider() {
  clearTimeout(considering);
  const question = questionOf(state.form);
  if (!question) return void (state.outlook && dispatch({ type: 'outlook', outlook: null }));
  considering = setTimeout(async () => {
    try {
      dispatch({ type: 'outlook', outlook: await api.submit(question) });
    } catch (error) {
      // The form itself says what is wrong with it.
      log(error.message, 'warning');
      dispatch({ type: 'outlook', outlook: null });
    }
  }, REST_MS);
}

function setPreset(preset) {
  dispatch({ type: 'preset', preset });
  if (preset === 'custom') place('dim-rows').focus();
}

function fillRandom() {
  const random = (operand) =>
    sourceOf(state.form, operand) === 'cells'
      ? { cells: randomCells(state.form, operand) }
      : sourceOf(state.form, operand) === 'random'
        ? { seed: newSeed() }
        : null;
  dispatch({ type: 'fill', a: random('a'), b: random('b') });
}

/** Files for an operand; a second one is for the other operand. */
async function setFiles(operand, [first, second]) {
  if (state.submission.phase !== 'idle') return;
  await setFile(operand, first);
  if (second && !state.submission.problem) await setFile(operand === 'a' ? 'b' : 'a', second);
}

async function setFile(operand, file) {
  const format = api.fileFormat(file.name);
  const early = !format ? strings.problem.fileType(file.name) : file.size === 0 ? strings.problem.emptyFile(file.name) : null;
  if (early) {
    dispatch({ type: 'submission', submission: { problem: { operand, ...early } } });
    return;
  }
  try {
    const matrix = await upload(operand, file, format);
    dispatch({ type: 'submission', submission: {} });
    dispatch({ type: 'file', operand, file: { name: file.name, matrix } });
    const problem = checkForm(state.form);
    if (problem?.field === 'file-b') dispatch({ type: 'submission', submission: { problem } });
    preview(operand, matrix).catch((error) => log(error.message, 'warning'));
  } catch (error) {
    fail(error, operand);
  }
}

/** Shows the start of what the node read, so that people see whether it was read as they meant it. */
async function preview(operand, { id, rows, cols }) {
  const corner = await api.corner(api.matrixUrl(id, 'csv'), Math.min(rows, FILE_CORNER.rows), FILE_CORNER.cols);
  dispatch({ type: 'preview', operand, id, rows: corner.map((row) => row.slice(0, cols)) });
}

async function upload(operand, body, format) {
  const progress = (share) =>
    dispatch({ type: 'submission', submission: { phase: 'uploading', operand, percent: Math.floor(100 * share) } });
  progress(0);
  return api.putMatrix(body, format, progress);
}

/** Puts what is not there yet, then submits. */
async function run() {
  const { form } = state;
  if (state.submission.phase !== 'idle') return;
  const problem = checkForm(form);
  if (problem) {
    dispatch({ type: 'submission', submission: { problem } });
    place(problem.field)?.focus();
    return;
  }
  let operand = null;
  try {
    const product = { reproducible: form.reproducible };
    if (form.dtype !== 'auto') product.dtype = form.dtype;
    if (form.mode !== 'plain') product.mode = form.mode;
    if (form.name.trim()) product.name = form.name.trim();
    for (operand of ['a', 'b']) product[operand] = await operandValue(form, operand);
    operand = null;
    dispatch({ type: 'submission', submission: { phase: 'submitting' } });
    await submit(product);
  } catch (error) {
    fail(error, operand);
  }
}

/** Submits a product, as the API takes it, and opens its job. */
async function submit(product) {
  const { job: id, token } = await api.submit(product);
  dispatch({ type: 'submitted', job: id, product: product.mode ? { ...product, token } : product });
  identity.rememberOwnJobs(state.own);
  identity.rememberProducts(state.products);
  log(strings.log.submitted(id));
  await openJob(id, true);
  if (state.connection.phase !== 'online') await follow(id);
}

/** What the API takes as an operand: nested arrays for cells, else the id of a matrix. */
async function operandValue(form, operand) {
  const source = sourceOf(form, operand);
  if (source === 'cells') return readCells(form, operand).values;
  if (source === 'file') return form[operand].file.matrix.id;
  const { rows, cols } = shapeOf(form, operand);
  const generating = (share) =>
    dispatch({ type: 'submission', submission: { phase: 'generating', operand, percent: Math.floor(100 * share) } });
  generating(0);
  const blob = await randomNpy(rows, cols, form.dtype, form[operand].seed ?? newSeed(), generating);
  return (await upload(operand, blob, 'npy')).id;
}

function fail(error, operand) {
  const known = error instanceof api.ApiProblem;
  if (!known) console.error(error);
  const problem = known ? { message: error.message, hint: error.hint } : strings.problem.unexpected(String(error));
  dispatch({ type: 'submission', submission: { problem: { operand, ...problem } } });
  log(problem.message, 'error');
}

// Jobs and results.

async function openJob(id, focus) {
  dispatch({ type: 'open', job: id });
  showInAddress(id);
  if (!id) return;
  try {
    if (!state.connection.moved) tellJob(await api.job(id));
    const known = state.jobs[id];
    if (known?.state === 'done' && !state.result) await loadResult(known);
  } catch (error) {
    // Who came by a link wants to know.
    if (!state.jobs[id]) dispatch({ type: 'lost', job: id, problem: { message: error.message, hint: error.hint } });
    log(error.message, 'warning');
  }
  if (focus && state.jobs[id]) {
    draw();
    job.section.scrollIntoView({ block: 'nearest' });
    job.focus();
  }
}

/** The job whose tiles are being asked for. */
let asked = null;

/** Asks for the tiles of the open job that the map has not yet; its news say when there are more. */
async function watchTiles({ job: id, products, tiles_total: total }) {
  if (products || asked === id) return;
  const refuse = (problem) => state.mosaic?.problem !== problem && dispatch({ type: 'mosaicProblem', job: id, problem });
  if (total > TILES_MAX) return void refuse(strings.watch.tooMany(total, TILES_MAX));
  if (state.connection.moved) return void refuse(strings.watch.notHere);
  asked = id;
  try {
    while (state.mosaic?.job === id && state.mosaic.pieces.length < state.jobs[id].tiles_done) {
      const before = state.mosaic.pieces.length;
      const answer = await api.tiles(id, state.mosaic.next);
      const other = state.mosaic?.job === id && state.mosaic.node !== null && state.mosaic.node !== answer.node;
      // Another node counts its tiles otherwise.
      if (other) dispatch({ type: 'mosaic', answer: await api.tiles(id, 0), afresh: true });
      else dispatch({ type: 'mosaic', answer });
      // What is missing is not written down yet, or not here: the next news come.
      if (state.mosaic?.pieces.length === before) break;
    }
  } catch (error) {
    refuse(strings.watch.failed(error.message));
  } finally {
    asked = null;
  }
  if (state.openJob && state.openJob !== id && state.jobs[state.openJob]) watchTiles(state.jobs[state.openJob]);
}

/** A page whose browser can not compute has no socket: it asks until the job has ended. */
async function follow(id) {
  while (state.openJob === id && !hasEnded(state.jobs[id] ?? {}) && state.connection.phase !== 'online') {
    tellJob(await api.job(id, WAIT_S));
  }
}

/** The job that the address names, or null. */
function jobInAddress() {
  return /^#job=([0-9a-f]{32})$/.exec(location.hash)?.[1] ?? null;
}

function showInAddress(id) {
  const wanted = id ? `#job=${id}` : '';
  if (location.hash !== wanted) history.replaceState(null, '', wanted || location.pathname + location.search);
}

/** Where others see a job: this page's address, or that of the node if this one leads nowhere from there. */
function linkTo(id) {
  return `${state.joining?.origin ?? location.origin}/#job=${id}`;
}

window.addEventListener('hashchange', () => {
  const id = jobInAddress();
  if (id && id !== state.openJob) openJob(id, true);
});

/** The window that is to be looked at next, while a picture is on its way. */
let wantedWindow = null;
let drawingWindow = false;

/** What opens a private job of this tab. */
function tokenOf(id) {
  return state.products[id]?.token;
}

/** Shows another window of the result. */
async function lookAt(window, cells = EDGE) {
  const id = state.openJob;
  dispatch({ type: 'heat', job: id, change: { window, loading: true } });
  wantedWindow = window;
  if (drawingWindow) return;
  drawingWindow = true;
  try {
    while (wantedWindow && state.openJob === id) {
      const next = wantedWindow;
      wantedWindow = null;
      // What is private is not told with the news of jobs.
      const matrix = state.jobs[id]?.result ?? (await api.job(id)).result;
      const picture = await api.picture(matrix, next, cells, cells, tokenOf(id));
      dispatch({ type: 'heat', job: id, change: { picture, problem: null, loading: false } });
    }
  } catch (error) {
    dispatch({ type: 'heat', job: id, change: { problem: error.message, loading: false } });
  } finally {
    drawingWindow = false;
  }
  // Another job was opened meanwhile.
  if (wantedWindow && state.openJob && state.openJob !== id && state.heat) lookAt(state.heat.window, cells);
}

async function loadResult({ job: id, rows, cols, products }) {
  // Each product of a batch has a file of its own.
  if (products) return;
  const complete = rows <= GRID_MAX && cols <= GRID_MAX;
  if (state.connection.moved) {
    dispatch({ type: 'result', result: { job: id, problem: strings.problem.elsewhere } });
    return;
  }
  const whole = { rows, cols };
  dispatch({ type: 'heat', job: id, change: { whole } });
  lookAt(firstWindow(rows, cols), complete ? 1 : EDGE);
  try {
    const data = complete ? (await api.resultJson(id, tokenOf(id))).data : await api.corner(api.resultUrl(id, 'csv', null, tokenOf(id)), CORNER.rows, CORNER.cols);
    dispatch({ type: 'result', result: { job: id, rows: data, complete } });
  } catch (error) {
    dispatch({ type: 'result', result: { job: id, problem: { message: error.message, hint: error.hint } } });
  }
}

async function cancelJob(id) {
  try {
    dispatch({ type: 'jobProblem', problem: null });
    await api.cancel(id, tokenOf(id));
    tellJob(await api.job(id));
  } catch (error) {
    tellProblem(id, error);
  }
}

function tellProblem(id, error) {
  dispatch({ type: 'open', job: id });
  dispatch({ type: 'jobProblem', problem: { job: id, message: error.message, hint: error.hint } });
  log(error.message, 'warning');
}

/** Copies the table as TSV. */
function copyResult(table, done) {
  const rows = Array.from(table.tBodies[0].rows, (row) => Array.from(row.cells, (cell) => cell.dataset.value));
  copyText(rows.map((row) => row.join('\t')).join('\n'), done);
}

/** There is no clipboard API on plain http, but a selection can be copied. */
function copyText(text, done) {
  const before = document.activeElement;
  const field = document.createElement('textarea');
  field.value = text;
  document.body.append(field);
  field.select();
  if (document.execCommand('copy')) done();
  field.remove();
  if (before instanceof HTMLElement) before.focus({ preventScroll: true });
}

draw();
refresh();
if (jobInAddress()) openJob(jobInAddress(), false);
// Without a socket nothing tells what happens.
setInterval(() => (!mesh || state.me.left) && refresh(), REFRESH_MS);
