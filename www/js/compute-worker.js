// One hardware thread: one wasm instance that computes tiles slab by slab. C stays in this worker's
// memory until the last slab; its bytes are then written into a buffer that came with the slab.

let glue;
let task;

onmessage = async ({ data }) => {
  const handler = { init, probe, slab }[data.type];
  await handler(data);
};

async function init({ module, glueUrl }) {
  try {
    glue = await import(glueUrl);
    await glue.default({ module_or_path: module });
    task = new glue.ComputeTask();
    postMessage({ type: 'ready' });
  } catch (error) {
    postMessage({ type: 'broken', message: String(error?.message ?? error) });
  }
}

/** Measures the kernel and its limit, for at least `ms` milliseconds each. */
function probe(what) {
  try {
    postMessage({ type: 'probed', ...measure(what), fuses: glue.fuses(), instance: glue.instance() });
  } catch (error) {
    postMessage({ type: 'probeFailed', message: String(error?.message ?? error) });
  }
}

function measure({ edge, ms, single }) {
  const product = new glue.SpeedProbe(edge, single);
  let operations = 0;
  let time = 0;
  while (time < ms) {
    product.fill();
    const start = performance.now();
    operations += product.run();
    time += performance.now() - start;
  }
  product.free();
  const mflops = operations / time / 1e3;

  for (let iterations = 1 << 12; ; iterations *= 2) {
    const start = performance.now();
    const done = glue.limit(iterations, single);
    const elapsed = performance.now() - start;
    if (elapsed >= ms / 2) return { mflops, limit: Math.max(done / elapsed / 1e3, mflops) };
  }
}

function slab({ sequence, spec, first, last, depth, a, b, buffer, into }) {
  try {
    if (first) task.begin(spec);
    task.beginSlab(depth);
    const bytes = ({ offset, length }) => new Uint8Array(buffer, offset, length);
    for (const place of a) task.putA(bytes(place), place.part);
    for (const place of b) task.putB(bytes(place), place.part);
    const start = performance.now();
    task.accumulate();
    const kernelMs = performance.now() - start;
    const result = last ? new Uint8Array(into, 0, task.resultBytes()) : undefined;
    if (last) task.finish(result);
    // The buffer goes back for the next slab.
    postMessage({ type: 'slabDone', sequence, kernelMs, result, buffer }, { transfer: last ? [buffer, into] : [buffer] });
  } catch (error) {
    // A trap leaves the instance unusable, so the pool makes a new one.
    postMessage({ type: 'slabFailed', message: String(error?.message ?? error) });
  }
}
