// The page's link to the mesh, in a worker of its own so that it goes on while the page is busy:
// WebSockets, the protocol (wasm), the blocks that are kept, and the compute workers.

import { ComputePool } from './compute-pool.js';

/** Wasm memory of one compute worker at most (see TASK_BYTES_MAX in wasm-worker). */
const WORKER_BYTES = 64 * 2 ** 20;
const PAGE_BYTES = 256 * 2 ** 20;
const CACHE_BYTES_MIN = 32 * 2 ** 20;
/** A tile is some milliseconds of work; below this the clock's steps would show. */
const PROBE = { edge: 256, ms: 60 };
/** What a person asks for is measured longer. */
const BENCH = { edge: 512, ms: 300 };
const CONNECT_MS_MAX = 4_000;
/** A timer this late was asleep: the sockets are dead, even if they do not know it. */
const JUMP_MS = 10_000;
const HEARTBEAT_MS = 2_000;
/** The page is told at most this often how things stand. */
const TELL_MS = 100;

let session = null;
let pool = null;
let settings = null;
let glue = null;
let away = false;
let timer = null;
let lastBeat = Date.now();
let lastLinkNumber = 0;
let told = '';
let tellTimer = null;
/** Addresses of nodes that earlier sessions of this page knew. */
let others = [];
/** What earlier sessions of this page computed. */
let earlier = { tiles: 0, rows: 0, operations: 0, computed: 0, kernel_ms: 0, busy_ms: 0, last: null };

/** The frame whose actions are being carried out. */
let receivedBytes = null;

/** Open and opening links: number → { socket, address, opened }. */
const links = new Map();
/** Blocks: id → bytes. */
const cache = new Map();
/** Payloads that the session knows by number: number → bytes. */
const payloads = new Map();
/** Those that are results of this page, whose buffers are used again. */
const results = new Map();

onmessage = ({ data }) => {
  const handler = { start, configure, bench, identity, wake, sleep, reconnect, leave, rejoin }[data.type];
  handler(data);
};

async function start(message) {
  settings = message;
  try {
    const module = await load(message.build);
    pool = new ComputePool(module, glueUrl(settings.build), {
      done: slabDone,
      failed: (slot, why) => {
        say({ type: 'slotFailed', slot, why });
        run(session.slotFailed(slot, performance.now()));
      },
    });
    await pool.resize(settings.threads);
    const speeds = await pool.probe(PROBE);
    Object.assign(settings, speeds);
    say({ type: 'ready', build: settings.build, threads: settings.threads, ...speeds });
    settings.opened = Date.now();
    settings.mesh = await meshName();
    open();
    setInterval(beat, HEARTBEAT_MS);
  } catch (error) {
    say({ type: 'failed', message: String(error?.message ?? error) });
  }
}

/** Compiles the wanted build, or the plainer one when a browser accepts the probe but not the module. */
async function load(build) {
  try {
    const url = new URL(`../wasm/${build}/gemmesh_wasm_worker_bg.wasm`, import.meta.url);
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url.pathname}: ${response.status}`);
    const module = await WebAssembly.compile(await response.arrayBuffer());
    glue = await import(glueUrl(build));
    await glue.default({ module_or_path: module });
    settings.build = build;
    return module;
  } catch (error) {
    if (build === 'simd') throw error;
    say({ type: 'fallback' });
    return load('simd');
  }
}

function glueUrl(build) {
  return new URL(`../wasm/${build}/gemmesh_wasm_worker.js`, import.meta.url).href;
}

/** The mesh that the node belongs to; asked for until it answers. */
async function meshName() {
  for (;;) {
    try {
      const response = await fetch('/api/info');
      if (response.ok) return (await response.json()).mesh;
    } catch {
      // Not reachable yet.
    }
    say({ type: 'nobody', retryAt: Date.now() + HEARTBEAT_MS });
    await new Promise((resolve) => setTimeout(resolve, HEARTBEAT_MS));
  }
}

/** A new session: a page that was just opened, or that comes back. */
function open() {
  const start = {
    node: settings.node,
    others,
    mesh: settings.mesh,
    time: settings.opened,
    name: settings.name,
    slots: settings.threads,
    mflops: settings.mflops * settings.threads,
    fuses: settings.fuses,
    user_agent: settings.userAgent,
    cache_bytes: Math.max(CACHE_BYTES_MIN, PAGE_BYTES - WORKER_BYTES * settings.threads),
    paused: settings.paused,
  };
  told = '';
  session = new glue.MeshSession(settings.seed, start, performance.now());
  say({ type: 'device', device: session.device() });
  run(session.actions());
}

/** Everything of the session goes: links, blocks, payloads, what is being computed. */
function close({ goodbye }) {
  if (!session) return;
  if (goodbye) run(session.leave(performance.now()));
  earlier = total();
  others = session.nodes();
  for (const { socket } of links.values()) abandon(socket);
  links.clear();
  cache.clear();
  payloads.clear();
  results.clear();
  pool.abortAll();
  clearTimeout(timer);
  session.free();
  session = null;
}

function abandon(socket) {
  socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
  socket.close();
}

// What the page tells.

function configure({ name, threads, paused }) {
  const fewer = threads < settings.threads;
  if (name !== undefined) settings.name = name;
  if (threads !== undefined) settings.threads = threads;
  if (paused !== undefined) settings.paused = paused;
  const tell = () => session && run(session.configure(name, threads, paused, performance.now()));
  // The session may use only slots that are there.
  if (fewer) {
    tell();
    pool.resize(threads);
  } else if (threads !== undefined) {
    pool.resize(threads).then(tell);
  } else {
    tell();
  }
}

/** Speed and limit for both kinds of floats, all compute workers at once; a tile at hand is finished first. */
async function bench() {
  try {
    const f64 = await pool.probe(BENCH);
    const f32 = await pool.probe({ ...BENCH, single: true });
    say({ type: 'benched', bench: { f64, f32, threads: settings.threads } });
  } catch (error) {
    say({ type: 'benched', bench: { problem: String(error?.message ?? error) } });
  }
}

/** Another id, because a second page has this one. */
function identity({ seed, name }) {
  settings.seed = seed;
  settings.name = name;
  settings.opened = Date.now();
  reconnect();
}

/** The page is looked at again, or came back from the browser's cache. */
function wake() {
  if (away) {
    away = false;
    open();
  }
}

/** A hidden phone is a lost worker: give the leases back while there is time. */
function sleep() {
  if (!session || away) return;
  away = true;
  close({ goodbye: true });
  say({ type: 'away' });
}

/** Sockets may be dead without knowing it: start afresh. */
function reconnect() {
  if (!session) return;
  close({ goodbye: false });
  open();
}

function leave() {
  close({ goodbye: true });
}

/** The person who left comes back. */
function rejoin() {
  if (session || !settings.mesh) return;
  away = false;
  open();
}

function beat() {
  const now = Date.now();
  const slept = now - lastBeat > JUMP_MS;
  lastBeat = now;
  if (slept && session) {
    say({ type: 'resumed' });
    reconnect();
  } else if (session) {
    tellState();
  }
}

// What the session wants.

/** Carries out what the session wants, in order. */
function run(actions) {
  for (const action of actions) carryOut[action.kind](action);
  if (!session) return;
  clearTimeout(timer);
  const at = session.timeout();
  if (at !== undefined) timer = setTimeout(tick, Math.max(0, at - performance.now()));
  tellState();
}

function tick() {
  if (session) run(session.tick(performance.now()));
}

const carryOut = {
  dial({ address }) {
    lastLinkNumber += 1;
    const number = lastLinkNumber;
    let socket;
    try {
      socket = new WebSocket(`${settings.secure ? 'wss' : 'ws'}://${address}/ws`);
    } catch {
      // Mixed content or an address that is none; answered later, as every failure is.
      queueMicrotask(() => session && run(session.dialFailed(address, performance.now())));
      return;
    }
    socket.binaryType = 'arraybuffer';
    const link = { socket, address, opened: false };
    links.set(number, link);
    const limit = setTimeout(() => gone(number), CONNECT_MS_MAX);
    socket.onopen = () => {
      clearTimeout(limit);
      link.opened = true;
      run(session.linkUp(number, address, performance.now()));
    };
    socket.onmessage = ({ data }) => received(number, data);
    socket.onclose = socket.onerror = () => {
      clearTimeout(limit);
      gone(number);
    };
  },

  send({ link, header, payload }) {
    const socket = links.get(link)?.socket;
    if (!socket) return;
    socket.send(payload === null ? header : joined(header, payloads.get(payload)));
  },

  close({ link, reason }) {
    const known = links.get(link);
    if (!known) return;
    // What is queued is sent first.
    abandon(known.socket);
    links.delete(link);
    queueMicrotask(() => session && run(session.linkDown(link, performance.now())));
    if (reason) say({ type: 'refused', reason });
  },

  payload({ payload, offset }) {
    payloads.set(payload, receivedBytes.subarray(offset));
  },

  keep({ payload, block }) {
    cache.set(block, payloads.get(payload));
  },

  evict({ block }) {
    cache.delete(block);
  },

  release({ payload }) {
    const bytes = results.get(payload);
    if (bytes) pool.giveBack(bytes.buffer);
    results.delete(payload);
    payloads.delete(payload);
  },

  compute({ slot, kind, ...slab }) {
    pool.compute(slot, slab, (block) => cache.get(block));
  },

  abort({ slot }) {
    pool.abort(slot);
  },

  job({ kind, ...job }) {
    say({ type: 'job', job });
  },

  devices() {
    say({ type: 'devices', devices: session.devices() });
  },
};

function joined(header, bytes) {
  const frame = new Uint8Array(header.length + bytes.length);
  frame.set(header);
  frame.set(bytes, header.length);
  return frame;
}

/** A frame; its bytes stay reachable while its actions are carried out. */
function received(number, data) {
  if (!links.has(number)) return;
  receivedBytes = new Uint8Array(data);
  let actions;
  try {
    actions = session.frame(number, receivedBytes, performance.now());
  } catch (error) {
    say({ type: 'refused', reason: String(error?.message ?? error) });
    gone(number);
    return;
  }
  run(actions);
  receivedBytes = null;
}

/** A link is gone or was never there. */
function gone(number) {
  const link = links.get(number);
  if (!link) return;
  links.delete(number);
  abandon(link.socket);
  const now = performance.now();
  run(link.opened ? session.linkDown(number, now) : session.dialFailed(link.address, now));
}

function slabDone(slot, kernelMs, result) {
  if (!session) return;
  const now = performance.now();
  if (!result) {
    run(session.slabDone(slot, kernelMs, now));
    return;
  }
  const number = session.tileDone(slot, kernelMs, result.length, now);
  payloads.set(number, result);
  results.set(number, result);
  run(session.actions());
}

// What the page is told.

function say(message) {
  postMessage(message);
}

/** Connection and contribution, soon: not with every frame. */
function tellState() {
  tellTimer ??= setTimeout(() => {
    tellTimer = null;
    if (!session) return;
    const retry = session.retry();
    const contribution = { ...total(), retryAt: retry === undefined ? null : Math.round(performance.timeOrigin + retry) };
    const text = JSON.stringify(contribution);
    if (text === told) return;
    told = text;
    say({ type: 'state', contribution });
  }, TELL_MS);
}

/** What this session computed and what earlier ones did. */
function total() {
  const now = session.contribution();
  const sum = { ...now, last: now.last ?? earlier.last };
  for (const name of ['tiles', 'rows', 'operations', 'computed', 'kernel_ms', 'busy_ms']) sum[name] += earlier[name];
  sum.mflops = sum.busy_ms > 0 ? sum.computed / sum.busy_ms / 1e3 : 0;
  return sum;
}
