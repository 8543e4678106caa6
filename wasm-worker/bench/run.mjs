// `make bench-browser [ARGS="--seconds 1 f64 f32 int"]`: the page's kernel in headless Chromium, one
// worker, next to onnxruntime-web and tfjs-backend-wasm on the same page. Prints a table.
//
// All who are compared take turns, so that other work on the machine slows all of them, and the best
// turn of each counts. A peer that is more than 10 % below the figure that it is known to reach makes
// the run void, and the last lines say so. The page is served plainly, without cross-origin isolation.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const HERE = join(ROOT, 'wasm-worker/bench');
const PEERS = join(ROOT, 'target/bench-browser');
const PACKAGES = { 'onnxruntime-web': '1.30.0', '@tensorflow/tfjs-core': '4.22.0', '@tensorflow/tfjs-backend-wasm': '4.22.0' };
/** GFLOP/s that the peers are known to reach on the machine that the targets are stated for. */
const STATED = { 'f64 onnxruntime': 12, 'f32 onnxruntime': 28, 'f32 tfjs': 30.5 };
const SILENCE_MS_MAX = 300_000;
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm' };

const options = { dtypes: [], sizes: [256, 512, 1024], bits: [16, 63], seconds: 0.6 };
for (const [i, argument] of process.argv.slice(2).entries()) {
  const before = process.argv[i + 1];
  if (argument === '--seconds' || argument === '--only') continue;
  if (before === '--seconds' && Number(argument) > 0) options.seconds = Number(argument);
  else if (before === '--only' && Number(argument) > 0) options.sizes = [Number(argument)];
  else if (['f64', 'f32', 'int'].includes(argument)) options.dtypes.push(argument);
  else fail(2, 'usage: bench-browser [--seconds S] [--only N] [f64|f32|int]...');
}
if (!options.dtypes.length) options.dtypes = ['f64', 'f32', 'int'];

const voids = [];
let heading = '';
let heard = Date.now();
fetchPeers();
const browser = findBrowser();
const native = options.dtypes.includes('int') ? nativeExact() : {};
await main();

async function main() {
  let ended;
  const end = new Promise((resolve) => (ended = resolve));
  const server = createServer((request, response) => serve(request, response, ended));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const profile = join(PEERS, 'profile');
  rmSync(profile, { recursive: true, force: true, maxRetries: 20 });
  const address = `http://127.0.0.1:${server.address().port}/page.html?options=${encodeURIComponent(JSON.stringify(options))}`;
  const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-background-timer-throttling'];
  const child = spawn(browser, [...flags, `--user-data-dir=${profile}`, address], { stdio: 'ignore' });
  const left = new Promise((resolve) => child.on('exit', resolve));
  left.then((code) => ended(`the browser ended with ${code}`));
  watch(ended);
  const problem = await end;
  child.kill();
  await left;
  server.close();
  server.closeAllConnections();
  if (problem) fail(1, problem);
  verdict();
  process.exit(0);
}

// What the page asks for and says.

function serve(request, response, ended) {
  const path = normalize(new URL(request.url, 'http://localhost').pathname);
  if (request.method === 'POST' && path === '/report') {
    let text = '';
    request.on('data', (data) => (text += data));
    request.on('end', () => {
      response.end();
      report(JSON.parse(text), ended);
    });
    return;
  }
  const file = fileOf(path);
  if (!file || !existsSync(file)) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' }).end(readFileSync(file));
}

function fileOf(path) {
  if (path.startsWith('/wasm/')) return join(ROOT, 'www', path);
  const [, , name, ...rest] = path.split('/');
  if (!path.startsWith('/peers/')) return join(HERE, path);
  const packageName = Object.keys(PACKAGES).find((known) => known.endsWith(`/${name}`) || known === name);
  return packageName && join(PEERS, 'node_modules', packageName, ...rest);
}

function watch(ended) {
  setInterval(() => {
    if (Date.now() - heard > SILENCE_MS_MAX) ended(`the page said nothing for ${SILENCE_MS_MAX / 1e3} s`);
  }, 1_000).unref();
}

function report(message, ended) {
  heard = Date.now();
  if (message.type === 'done') ended();
  else if (message.type === 'failed') ended(`the page failed: ${message.message}`);
  else if (message.type === 'about') about(message);
  else row(message);
}

// What is printed.

function about({ isolated, ort, tfjs, agent }) {
  console.log(`${agent.match(/(Headless)?Chrome\/[\d.]+/)?.[0] ?? agent}, one worker, ${isolated ? '' : 'not '}cross-origin isolated`);
  console.log(`peers: onnxruntime-web ${ort} · tfjs-backend-wasm ${tfjs}; one thread each`);
  console.log('GFLOP/s, best of turns. "all" is with the bytes of A and B in and those of C out, as onnxruntime has');
  console.log('them (into memory that is used again, as the page does); tfjs has its operands in its memory. Ratios');
  console.log('are like with like. Integers: the first 512 rows and columns of C, in slabs of 256, as a job has them.');
}

function row({ dtype, n, bits, figures }) {
  for (const [name, figure] of Object.entries(figures)) {
    const stated = STATED[`${dtype} ${name}`];
    if (figure < 0.9 * stated) voids.push(`${dtype} n = ${n}: ${name} ${fixed(figure)}, stated ${stated}`);
  }
  for (const build of ['relaxed', 'simd']) {
    const [ours, all, limit] = [figures[build], figures[`${build} whole`], figures[`${build} limit`]];
    if (dtype === 'int') {
      const known = native[`${bits} ${n}`];
      line(['', 'n', 'build', 'entries', 'ours', 'f64 limit', 'share', 'native', 'ratio'], ['int', n, build, `${bits} bits`, fixed(ours), fixed(limit), percent(ours / limit), fixed(known), ratio(ours / known)]);
      continue;
    }
    const { onnxruntime, tfjs } = figures;
    line(
      ['', 'n', 'build', 'limit', 'ours', 'share', 'all', 'onnxrt', 'ratio', 'tfjs', 'ratio'],
      [dtype, n, build, fixed(limit), fixed(ours), percent(ours / limit), fixed(all), fixed(onnxruntime), ratio(all / onnxruntime), fixed(tfjs), ratio(ours / tfjs)],
    );
  }
}

function line(headings, cells) {
  const text = (texts) => texts.map((cell) => String(cell).padStart(9)).join('  ');
  if (heading !== text(headings)) {
    heading = text(headings);
    console.log(`\n${heading}`);
  }
  console.log(text(cells));
}

function verdict() {
  if (!voids.length) {
    console.log('\nEvery peer is within 10 % of its stated figure in every row: the run counts.');
    return;
  }
  console.log('\nVOID: in these rows a peer is more than 10 % below its stated figure, so the machine was busy (or is');
  console.log('another one than the figures are of). Run again.');
  for (const text of voids) console.log(`  ${text}`);
}

function fixed(figure) {
  return figure === undefined ? '-' : figure.toFixed(1);
}

function ratio(figure) {
  return Number.isFinite(figure) ? figure.toFixed(2) : '-';
}

function percent(share) {
  return `${(100 * share).toFixed(0)} %`;
}

// What has to be there.

function fetchPeers() {
  const there = Object.entries(PACKAGES).every(([name, version]) => {
    const file = join(PEERS, 'node_modules', name, 'package.json');
    return existsSync(file) && JSON.parse(readFileSync(file)).version === version;
  });
  if (there) return;
  console.error('setup: fetching the peers from the npm registry into target/bench-browser');
  mkdirSync(PEERS, { recursive: true });
  const wanted = Object.entries(PACKAGES).map(([name, version]) => `${name}@${version}`);
  const npm = spawnSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error', '--prefix', PEERS, ...wanted], { stdio: ['ignore', 'inherit', 'inherit'] });
  if (npm.error) fail(1, 'npm is missing: it fetches the libraries to compare with.', 'Install Node.js with npm (on Debian: apt-get install npm). Only this benchmark needs it.');
  if (npm.status !== 0) fail(1, 'the libraries to compare with could not be fetched.', 'Check the connection to the npm registry and try again.');
}

function findBrowser() {
  const names = [process.env.CHROME, 'chromium', 'chromium-browser', 'google-chrome'].filter(Boolean);
  const found = names.find((name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0);
  return found ?? fail(1, 'Chromium is missing.', 'Install it (on Debian: apt-get install chromium), or name one in the variable CHROME.');
}

/** The same exact products by the native kernel on this machine, by "BITS N". */
function nativeExact() {
  const build = ['run', '--release', '--quiet', '--locked', '-p', 'gemmesh-wasm-worker', '--example', 'exact', '--'];
  const cases = options.bits.flatMap((bits) => options.sizes.map((n) => `${bits}x${n}`));
  const run = spawnSync('cargo', [...build, String(options.seconds), ...cases], { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  if (run.status !== 0) fail(1, 'the native kernel could not be measured.', 'See the message of cargo above.');
  const lines = run.stdout.trim().split('\n').map((text) => text.split(' '));
  return Object.fromEntries(lines.map(([bits, n, speed]) => [`${bits} ${n}`, Number(speed)]));
}

function fail(code, message, hint) {
  console.error(`bench-browser: ${message}`);
  if (hint) console.error(`       ${hint}`);
  process.exit(code);
}
