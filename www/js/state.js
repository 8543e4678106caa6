// What the page knows, as a pure function of events: `reduce(state, event)` returns the next state.
// Nothing here touches the document, the network or a clock; events carry the time.

import { withDevices } from './colours.js';
import { emptyMosaic, withAnswer } from './mosaic.js';

/** Cells are typed up to this edge; larger operands are random or files. */
export const GRID_MAX = 15;
/** The longest dimension that a matrix may have. */
export const DIMENSION_MAX = 2 ** 32;
const LOG_MAX = 200;
/** Own jobs that are remembered. */
const OWN_MAX = 100;

export function initialState(device) {
  return {
    /** `moved`: attached to another node than the one that served the page. */
    connection: { phase: 'starting', retryAt: null, reason: null, node: null, moved: false },
    me: {
      device: null,
      name: device.name,
      threads: device.threads,
      threadsMax: device.threadsMax,
      handheld: device.handheld,
      paused: false,
      away: false,
      left: false,
      computing: 0,
      /** Keep the screen on while helping, as the person wants it; how the browser can, and whether it does. */
      keepAwake: device.awakeWay === 'lock' && device.handheld,
      awakeWay: device.awakeWay,
      awake: 'off',
      /** The browser offers to install the page. */
      installable: false,
      build: device.build,
      mflops: null,
      limit: null,
      /** What the benchmark's button found: `{running}`, `{problem}` or `{f64, f32, threads}`. */
      bench: null,
    },
    contribution: { tiles: 0, rows: 0, operations: 0, kernelMs: 0, busyMs: 0, mflops: 0, job: null, lastTile: null },
    devices: [],
    /** How fast the links of the page's node are: `[{device, bytes_per_second}]`. */
    links: [],
    /** Devices in the order in which they got a colour. */
    palette: [],
    jobs: {},
    own: device.own ?? [],
    /** What this tab asked for with its own jobs: id → product, as the API takes it. */
    products: device.products ?? {},
    openJob: null,
    /** A job that was asked for by its link and is not there: `{job, message, hint}`. */
    lostJob: null,
    /** `{alone, links: [{url, code}], authority, origin}`: how other devices come here. */
    joining: null,
    /** What went wrong with an action on a job: `{job, message, hint}`. */
    jobProblem: null,
    result: null,
    /** What is shown of a large result, and the summary of any; see heat.js. */
    heat: null,
    /** Who computed which tile of the open job; see mosaic.js. */
    mosaic: null,
    form: {
      rows: 2,
      inner: 3,
      cols: 2,
      preset: 'custom',
      dtype: 'auto',
      reproducible: false,
      mode: 'plain',
      name: '',
      a: typed(['1', '2', '3', '4', '5', '6'], 3),
      b: typed(['7', '8', '9', '10', '11', '12'], 2),
    },
    /** What the node predicts of the product in the form: `{question, told}`. */
    outlook: null,
    submission: { phase: 'idle', operand: null, percent: 0, problem: null },
    log: [],
    logCount: 0,
  };
}

/** An operand whose values are typed in, `values` row by row. */
function typed(values, cols) {
  const cells = {};
  values.forEach((text, i) => {
    cells[`${Math.floor(i / cols)},${i % cols}`] = text;
  });
  return { cells, seed: null, file: null };
}

/** Rows and columns of operand `a` or `b` as the form stands. */
export function shapeOf(form, operand) {
  const file = form[operand].file;
  if (file?.matrix) return { rows: file.matrix.rows, cols: file.matrix.cols };
  return operand === 'a' ? { rows: form.rows, cols: form.inner } : { rows: form.inner, cols: form.cols };
}

/** Where operand `a` or `b` comes from: `file`, `cells` or `random`. */
export function sourceOf(form, operand) {
  if (form[operand].file) return 'file';
  const { rows, cols } = shapeOf(form, operand);
  return rows <= GRID_MAX && cols <= GRID_MAX ? 'cells' : 'random';
}

/** Whether a file decides dimension `rows`, `inner` or `cols`. */
export function isFixed(form, name) {
  return Boolean((name !== 'cols' && form.a.file) || (name !== 'rows' && form.b.file));
}

/** The page of the node that this one has moved to; null while it has not. The address is a node's word. */
export function pageElsewhere({ phase, moved, node }) {
  const known = phase === 'online' && moved && /^(\d+(\.\d+){3}|\[[\da-f:]+\]):\d+$/i.test(node.address);
  return known ? `http://${node.address}` : null;
}

/** Jobs for the list: own ones first, then the newest first. */
export function jobList(state) {
  const own = new Set(state.own);
  return Object.values(state.jobs).sort(
    (x, y) =>
      Number(own.has(y.job)) - Number(own.has(x.job)) || (x.submitted < y.submitted ? 1 : x.submitted > y.submitted ? -1 : 0),
  );
}

/** Devices for the list: this page, its node, then who is there, by name. */
export function deviceList({ devices, me, connection }) {
  const rank = ({ device, state: now }) =>
    device === me.device ? 0 : device === connection.node?.device ? 1 : now === 'lost' ? 3 : 2;
  // Who has just left is not on the list of those that it no longer hears.
  const now = devices.map((entry) => (me.left && entry.device === me.device ? { ...entry, state: 'lost' } : entry));
  return now.sort((x, y) => rank(x) - rank(y) || x.name.localeCompare(y.name, 'en', { numeric: true }) || (x.device < y.device ? -1 : 1));
}

/** What this page has done for each job that it had a part in, the newest first. `share` is of the operations. */
export function ownShares({ jobs, me }) {
  const own = Object.values(jobs).flatMap((job) => {
    const part = job.contributions?.find(({ device }) => device === me.device);
    const all = job.contributions?.reduce((sum, { operations }) => sum + operations, 0);
    return part && all > 0 ? [{ job, part, share: part.operations / all }] : [];
  });
  return own.sort((x, y) => (x.job.submitted < y.job.submitted ? 1 : -1));
}

/** The screen of this device should stay on: it takes part, and its person wants that. */
export function wantsAwake({ me, connection }) {
  return Boolean(me.keepAwake && me.build && !me.left && !me.paused && !me.away && connection.phase === 'online');
}

/** A job's state is final. */
export function hasEnded(job) {
  return job.state === 'done' || job.state === 'failed' || job.state === 'cancelled';
}

/** The next state. */
export function reduce(state, event) {
  const handler = handlers[event.type];
  if (!handler) throw new Error(`no such event: ${event.type}`);
  return handler(state, event);
}

const handlers = {
  connection: (state, { phase, retryAt = null, reason = null, node, moved = false }) => ({
    ...state,
    connection: { phase, retryAt, reason, node: node ?? state.connection.node, moved },
  }),

  me: (state, { change }) => ({ ...state, me: { ...state.me, ...change } }),

  contribution: (state, { contribution }) => ({ ...state, contribution }),

  devices: (state, { devices }) => ({
    ...state,
    devices,
    palette: withDevices(state.palette, devices.filter(({ state: now }) => now !== 'lost').map(({ device }) => device)),
  }),

  // A status replaces an older one; an ended job never runs again. Under the same coordinator tiles
  // only get more; one that took over may have fewer at first.
  job: (state, { job }) => {
    const known = state.jobs[job.job];
    if (known && hasEnded(known) && !hasEnded(job)) return state;
    if (known && !hasEnded(job)) {
      if (known.epoch > job.epoch) return state;
      if (known.epoch === job.epoch && known.tiles_done > job.tiles_done) return state;
    }
    return { ...state, jobs: { ...state.jobs, [job.job]: job } };
  },

  jobs: (state, { jobs }) => {
    const next = jobs.reduce((before, job) => handlers.job(before, { job }), state);
    // What the node no longer lists has expired, unless this page just submitted it.
    const listed = new Set([...jobs.map((job) => job.job), ...state.own, state.openJob]);
    const kept = Object.entries(next.jobs).filter(([id]) => listed.has(id));
    return { ...next, jobs: Object.fromEntries(kept) };
  },

  dimension: (state, { name, value }) => withForm(state, { [name]: value, preset: 'custom' }),

  // A size for both operands leaves no room for files.
  preset: (state, { preset }) => {
    if (preset === 'custom') return withForm(state, { preset });
    const a = { ...state.form.a, file: null };
    const b = { ...state.form.b, file: null };
    return withForm(state, { preset, rows: preset, inner: preset, cols: preset, a, b });
  },

  cell: (state, { operand, row, col, text }) =>
    withOperand(state, operand, { cells: { ...state.form[operand].cells, [`${row},${col}`]: text } }),

  cells: (state, { operand, cells }) =>
    withOperand(state, operand, { cells: { ...state.form[operand].cells, ...cells } }),

  fill: (state, { a, b }) => {
    const next = a ? withOperand(state, 'a', a) : state;
    return b ? withOperand(next, 'b', b) : next;
  },

  // A file sets the dimensions that belong to it; typed cells come back when it is removed.
  file: (state, { operand, file }) => {
    const next = withOperand(state, operand, { file });
    if (!file?.matrix) return next;
    const { rows, cols } = file.matrix;
    const other = operand === 'a' ? state.form.b.file : state.form.a.file;
    if (operand === 'a') return withForm(next, { rows, ...(other ? {} : { inner: cols }), preset: 'custom' });
    return withForm(next, { cols, ...(other ? {} : { inner: rows }), preset: 'custom' });
  },

  // What the node read from a file, for the file that is still there.
  preview: (state, { operand, id, rows }) => {
    const { file } = state.form[operand];
    if (file?.matrix.id !== id) return state;
    return { ...state, form: { ...state.form, [operand]: { ...state.form[operand], file: { ...file, preview: rows } } } };
  },

  option: (state, { name, value }) => withForm(state, { [name]: value }),

  submission: (state, { submission }) => ({
    ...state,
    submission: { phase: 'idle', operand: null, percent: 0, problem: null, ...submission },
  }),

  mosaic: (state, { answer, afresh }) => {
    if (state.mosaic?.job !== answer.job) return state;
    const mosaic = withAnswer(afresh ? emptyMosaic(answer.job) : state.mosaic, answer);
    return { ...state, mosaic, palette: withDevices(state.palette, mosaic.devices.map(({ device }) => device)) };
  },

  // How others come here: the address that this page was opened with, unless it is this machine's own name.
  // Who gets a link may not trust the certificate, and the same port answers both.
  joining: (state, { joining, own }) => {
    const { alone, links } = joining;
    const local = /^(localhost|127\.|\[::1\])/.test(own.hostname);
    const plain = own.protocol === 'https:' ? `http://${own.hostname}:${own.port || 443}` : own.origin;
    const origin = local && !alone && links[0] ? links[0].url.replace(/\/$/, '') : plain;
    return { ...state, joining: { ...joining, origin } };
  },

  links: (state, { links }) => ({ ...state, links }),

  outlook: (state, { outlook }) => ({ ...state, outlook }),

  lost: (state, { job, problem }) => ({ ...state, openJob: null, lostJob: { job, ...problem } }),

  mosaicProblem: (state, { job, problem }) =>
    state.mosaic?.job === job ? { ...state, mosaic: { ...state.mosaic, problem } } : state,

  submitted: (state, { job, product }) => ({
    ...state,
    own: [job, ...state.own].slice(0, OWN_MAX),
    products: Object.fromEntries([[job, product], ...Object.entries(state.products)].slice(0, OWN_MAX)),
    openJob: job,
    jobProblem: null,
    mosaic: emptyMosaic(job),
    heat: null,
    result: null,
    submission: { phase: 'idle', operand: null, percent: 0, problem: null },
  }),

  jobProblem: (state, { problem }) => ({ ...state, jobProblem: problem }),

  open: (state, { job }) => ({
    ...state,
    openJob: job,
    lostJob: null,
    jobProblem: null,
    mosaic: !job ? null : state.mosaic?.job === job ? state.mosaic : emptyMosaic(job),
    heat: state.heat?.job === job ? state.heat : null,
    result: state.result?.job === job ? state.result : null,
  }),

  // The first picture of a result is of all of it, or of the part that the summary is of then.
  heat: (state, { job, change }) => {
    if (job !== state.openJob) return state;
    const before = state.heat?.job === job ? state.heat : { job, window: null, whole: null, picture: null, summary: null, loading: false, problem: null, sequence: 0 };
    const { picture } = change;
    const fresh = picture ? { sequence: before.sequence + 1, summary: before.summary ?? summaryOf(picture) } : {};
    return { ...state, heat: { ...before, ...change, ...fresh } };
  },

  result: (state, { result }) => (result.job === state.openJob ? { ...state, result } : state),

  log: (state, { text, level = 'info', time }) => ({
    ...state,
    log: [{ id: state.logCount, text, level, time }, ...state.log].slice(0, LOG_MAX),
    logCount: state.logCount + 1,
  }),
};

function summaryOf({ min, max, norm, nan, row, col, rows, cols }) {
  return { min, max, norm, nan, row, col, rows, cols };
}

function withForm(state, change) {
  return {
    ...state,
    form: { ...state.form, ...change },
    submission: { ...state.submission, problem: null },
  };
}

function withOperand(state, operand, change) {
  return withForm(state, { [operand]: { ...state.form[operand], ...change } });
}
