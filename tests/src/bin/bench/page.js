// The views of a job and of the mesh, fed with a job of `tiles` tiles by `devices` devices, `step` tiles a frame.
// Runs on a page of the node that has the style sheet and nothing else; the arguments come from page.rs.
const [devices, tiles, step] = arguments;
const [{ initialState, reduce }, { mountJob, mountJobs }, { mountDevices }, { mountContribution }, { h }] = await Promise.all(
  ['state', 'view-jobs', 'view-devices', 'view-contribution', 'dom'].map((name) => import(`/js/${name}.js`)),
);
document.body.replaceChildren();
const column = () => document.body.appendChild(h('div', {}));
const nothing = new Proxy({}, { get: () => () => {} });
const job = mountJob(column(), nothing);
const views = { job: job.update, contribution: mountContribution(column(), nothing), jobs: mountJobs(column(), nothing), devices: mountDevices(column()) };

const name = (i) => `device-${i}`;
const entry = (i) => ({ device: name(i), name: name(i), kind: i % 2 ? 'browser' : 'native', slots: 1, state: 'busy', mflops: 1000, address: '', since: '' });
const list = Array.from({ length: devices }, (_, i) => entry(i));
const edge = Math.sqrt(tiles);
const status = (done) => ({
  job: 'j', name: 'a large one', state: 'running', epoch: 1, rows: 512 * edge, inner: 1000, cols: 512 * edge, dtype: 'f64',
  tiles_total: tiles, tiles_done: done, tiles_safe: done, tiles_recomputed: 0, coordinator: name(0), safe_copies: 0, submitted: '2026-01-01',
  seconds: done / 100, predicted_seconds: tiles / 100, bytes_sent: done, bytes_replicated: 0, result: null, error: null, timeline: [], plan: [], backups: [],
  contributions: list.map(({ device, kind }) => ({ device, name: device, kind, slots: 1, tiles: done, rows: done, operations: done, compute_ms: done, transfer_ms: 1, mflops: 1, user_agent: '' })),
});

let state = initialState({ name: 'me', threads: 1, threadsMax: 1, handheld: false, build: 'simd', awakeWay: null });
const on = (event) => { state = reduce(state, event); };
on({ type: 'me', change: { device: name(1) } });
on({ type: 'devices', devices: list });
on({ type: 'job', job: status(0) });
on({ type: 'open', job: 'j' });
const frames = [];
/** Milliseconds of each frame by what takes them. @type {Record<string, number[]>} */
const parts = { state: [], job: [], contribution: [], jobs: [], devices: [], page: [] };
let before = await new Promise(requestAnimationFrame);
for (let done = 0; done < tiles; done += step) {
  const begin = performance.now();
  const some = Array.from({ length: Math.min(step, tiles - done) }, (_, i) => [done + i, (done + i) % devices, 10 * (done + i), 9_000, 500]);
  on({ type: 'mosaic', answer: { job: 'j', node: name(0), rows: 512 * edge, cols: 512 * edge, tile_rows: 512, tile_cols: 512, devices: list, tiles: some, next: done + some.length } });
  on({ type: 'job', job: status(done + some.length) });
  let last = performance.now();
  parts.state.push(last - begin);
  for (const [name, view] of Object.entries(views)) {
    view({ ...state, now: Date.now() });
    const now = performance.now();
    parts[name].push(now - last);
    last = now;
  }
  parts.page.push(last - begin);
  const now = await new Promise(requestAnimationFrame);
  frames.push(now - before);
  before = now;
}
return { frames, parts, drawn: Number(document.querySelector('#map').dataset.tiles) };
