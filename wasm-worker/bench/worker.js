// The worker in which all products run, ours and the peers', on one thread. A classic worker, because
// one of the peers comes as scripts; our own modules are imported as the page's compute workers do it.

importScripts('peers/tfjs-core/dist/tf-core.min.js', 'peers/tfjs-backend-wasm/dist/tf-backend-wasm.min.js', 'peers/onnxruntime-web/dist/ort.wasm.min.js', 'onnx.js');

/** A turn lasts at least this long: without isolation the clock steps by 0.1 ms. */
const TURN_MS = 80;
/** Inner indices in a slab of integers, as in examples/exact.rs; divides every size. */
const INT_DEPTH = 256;
/** Rows and columns of a tile of integers at most, as in examples/exact.rs: those of a job have no larger results. */
const INT_EDGE = 512;
const BUILDS = ['relaxed', 'simd'];
const BYTES = { f64: 8, f32: 4, int: 8 };

main().catch((error) => postMessage({ type: 'failed', message: String(error?.stack ?? error) }));

async function main() {
  const options = JSON.parse(new URLSearchParams(location.search).get('options'));
  const builds = {};
  for (const build of BUILDS) builds[build] = await load(build);
  ort.env.wasm.wasmPaths = new URL('peers/onnxruntime-web/dist/', location.href).href;
  ort.env.wasm.numThreads = 1;
  tf.wasm.setWasmPaths(new URL('peers/tfjs-backend-wasm/dist/', location.href).href);
  tf.wasm.setThreadsCount(1);
  await tf.setBackend('wasm');
  await tf.ready();
  postMessage({ type: 'about', isolated: self.crossOriginIsolated, ort: ort.env.versions.web ?? ort.env.versions.common, tfjs: tf.version_core, agent: navigator.userAgent });

  for (const dtype of options.dtypes) {
    for (const n of options.sizes) {
      const runners = { ...ours(builds, dtype, n, 0), ...limits(builds, dtype) };
      if (dtype !== 'int') {
        const [a, b] = [operand(dtype, n), operand(dtype, n)];
        runners.onnxruntime = await onnxruntime(dtype, n, a, b);
        if (dtype === 'f32') runners.tfjs = tfjs(n, a, b);
        postMessage({ type: 'row', dtype, n, figures: await race(runners, options.seconds) });
        continue;
      }
      for (const bits of options.bits) {
        const exact = { ...ours(builds, dtype, n, bits), ...limits(builds, 'f64') };
        postMessage({ type: 'row', dtype, n, bits, figures: await race(exact, options.seconds) });
      }
    }
  }
  postMessage({ type: 'done' });
}

async function load(build) {
  const base = new URL(`wasm/${build}/`, location.href);
  const glue = await import(new URL('gemmesh_wasm_worker.js', base));
  await glue.default({ module_or_path: new URL('gemmesh_wasm_worker_bg.wasm', base) });
  return glue;
}

/** Random digits, the same in every run. */
function operand(dtype, n, bits) {
  const array = { f64: Float64Array, f32: Float32Array, int: BigInt64Array }[dtype];
  let seed = 1;
  const next = () => (seed = (seed * 48_271) % 2_147_483_647);
  const element = dtype === 'int' ? () => BigInt.asIntN(64, ((BigInt(next()) << 32n) ^ BigInt(next() * 2)) & ((1n << BigInt(bits)) - 1n)) : () => next() / 2_147_483_647 - 0.5;
  return array.from({ length: n * n }, element);
}

/** Our product as a compute worker runs it: `NAME` is the call that is timed there, `NAME whole` with all bytes in and out. */
function ours(builds, dtype, n, bits) {
  const runners = {};
  const blocks = [operand(dtype, n, bits), operand(dtype, n, bits)].map((array) => new Uint8Array(array.buffer));
  const bytes = BYTES[dtype];
  const limbs = dtype === 'int' && 2 * bits + Math.ceil(Math.log2(n)) + 1 > 64 ? Math.ceil((2 * bits + Math.ceil(Math.log2(n)) + 1) / 64) : 1;
  const edge = dtype === 'int' ? Math.min(n, INT_EDGE) : n;
  const element = (count) => ({ dtype, limbs: count });
  const spec = { class: dtype === 'int' ? 'exact' : 'any', rows: edge, cols: edge, inner: n, a: element(1), a_bits: bits, b: element(1), b_bits: bits, c: element(limbs) };
  // Integers come in slabs as a job's do: their residues would not fit into a worker's memory at once.
  const depth = dtype === 'int' ? Math.min(n, INT_DEPTH) : n;
  const part = (row, col, rows, cols) => ({ index: 0, block_cols: n, src_row: row, src_col: col, dst_row: 0, dst_col: 0, rows, cols });
  if (blocks[0].length !== n * n * bytes) throw new Error('operand');
  for (const [build, glue] of Object.entries(builds)) {
    const task = new glue.ComputeTask();
    /** Milliseconds of the calls that are timed. */
    const multiply = () => {
      let time = 0;
      task.begin(spec);
      for (let at = 0; at < n; at += depth) {
        task.beginSlab(depth);
        task.putA(blocks[0], part(0, at, edge, depth));
        task.putB(blocks[1], part(at, 0, depth, edge));
        const start = performance.now();
        task.accumulate();
        time += performance.now() - start;
      }
      return time;
    };
    const c = new Uint8Array(edge * edge * bytes * limbs);
    runners[build] = {
      // An exact product is whole only when its digits are put together.
      turn(times) {
        let time = 0;
        for (let i = 0; i < times; i += 1) {
          time += multiply();
          const start = performance.now();
          if (dtype === 'int') task.finish(c);
          time += performance.now() - start;
        }
        return time / times;
      },
      operations: 2 * edge ** 2 * n,
      end: () => task.free(),
    };
    runners[`${build} whole`] = {
      turn(times) {
        const start = performance.now();
        for (let i = 0; i < times; i += 1) {
          multiply();
          task.finish(c);
        }
        return (performance.now() - start) / times;
      },
      operations: 2 * edge ** 2 * n,
    };
  }
  return runners;
}

/** Multiply-adds in registers. */
function limits(builds, dtype) {
  const runners = {};
  for (const [build, glue] of Object.entries(builds)) {
    const iterations = 200_000;
    const operations = glue.limit(iterations, dtype === 'f32');
    runners[`${build} limit`] = {
      turn(times) {
        const start = performance.now();
        for (let i = 0; i < times; i += 1) glue.limit(iterations, dtype === 'f32');
        return (performance.now() - start) / times;
      },
      operations,
    };
  }
  return runners;
}

async function onnxruntime(dtype, n, a, b) {
  const session = await ort.InferenceSession.create(onnxMatMul(dtype, n), { executionProviders: ['wasm'] });
  const type = { f64: 'float64', f32: 'float32' }[dtype];
  const feeds = { a: new ort.Tensor(type, a, [n, n]), b: new ort.Tensor(type, b, [n, n]) };
  return {
    async turn(times) {
      const start = performance.now();
      for (let i = 0; i < times; i += 1) await session.run(feeds);
      return (performance.now() - start) / times;
    },
    operations: 2 * n ** 3,
    end: () => session.release(),
  };
}

/** The operands are in its memory already and the result stays there. */
function tfjs(n, a, b) {
  const operands = [tf.tensor2d(a, [n, n]), tf.tensor2d(b, [n, n])];
  return {
    turn(times) {
      const start = performance.now();
      for (let i = 0; i < times; i += 1) tf.matMul(...operands).dispose();
      return (performance.now() - start) / times;
    },
    operations: 2 * n ** 3,
    end: () => operands.forEach((tensor) => tensor.dispose()),
  };
}

/** All take turns, at least five and for `seconds` each; the best turn of each counts. GFLOP/s by name. */
async function race(runners, seconds) {
  const known = Object.entries(runners);
  const times = {};
  for (const [name, runner] of known) {
    // The first turns also bring code to its last tier and memory into the process.
    for (let i = 0; i < 3; i += 1) await runner.turn(1);
    const once = await runner.turn(2);
    times[name] = Math.max(1, Math.ceil(TURN_MS / Math.max(once, 0.01)));
  }
  const best = {};
  const end = performance.now() + seconds * 1e3 * known.length;
  for (let round = 0; round < 5 || performance.now() < end; round += 1) {
    for (const [name, runner] of known) best[name] = Math.min(best[name] ?? Infinity, await runner.turn(times[name]));
  }
  for (const [, runner] of known) await runner.end?.();
  return Object.fromEntries(known.map(([name, runner]) => [name, runner.operations / best[name] / 1e6]));
}
