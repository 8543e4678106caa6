// The page when no node answers: its own files, as the node had them that was reached last. They come from
// the node whenever it answers. Nothing else passes through here, the API least of all, so no answer is old.
//
// The program puts a line before this text: `self.shell`, the page's files and what their contents hash to.
// When a file changes so does this script, and the browser replaces this worker and what it keeps by itself.

/** @type {{version: string, files: string[]}} */
const { version, files } = /** @type {any} */ (self).shell;
const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));
const PREFIX = 'gemmesh-';
const CACHE = PREFIX + version;
/** How long a node may take to answer before the page is shown without it. */
const PATIENCE_MS = 2_000;
/** For how long it is not waited for again; a page is made of many files. */
const SILENCE_MS = 10_000;

/** A browser needs one of the two wasm builds; which one, the page says when it registers this worker. */
const build = new URLSearchParams(worker.location.search).get('build');
const kept = files.filter((file) => !file.startsWith('/wasm/') || file.startsWith(`/wasm/${build}/`));
let silentUntil = 0;

worker.addEventListener('install', (event) => {
  const fresh = kept.map((file) => new Request(file, { cache: 'no-cache' }));
  // The next page uses it: what is kept matters only where there is no node.
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(fresh)).then(() => worker.skipWaiting()));
});

worker.addEventListener('activate', (event) => {
  event.waitUntil(
    caches.keys().then((names) => Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)))),
  );
});

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  const file = pathname === '/' ? '/index.html' : pathname;
  if (request.method === 'GET' && origin === worker.location.origin && kept.includes(file)) event.respondWith(answer(request, file));
});

/** What the node answers; if it does not, or not soon, what is kept. */
async function answer(request, file) {
  const fresh = fetch(request);
  const patience = request.mode === 'navigate' || Date.now() >= silentUntil ? PATIENCE_MS : 0;
  const late = new Promise((resolve) => setTimeout(resolve, patience, null));
  const response = await Promise.race([fresh.catch(() => null), late]);
  if (response) return response;
  silentUntil = Date.now() + SILENCE_MS;
  const cache = await caches.open(CACHE);
  return (await cache.match(file)) ?? fresh;
}
