// The compute workers of this page, by slot.

/** Buffers are multiples of this many bytes. */
const BUFFER_UNIT = 2 ** 20;

const ELEMENT_BYTES = { f64: 8, f32: 4, int: 8, residues: 2 };

export class ComputePool {
  #module;
  #glueUrl;
  #listener;
  /**
   * By slot: { worker, ready, sequence, pending, asked }. The sequence number is raised to forget what
   * is computed; `pending` is set while an answer is awaited, `asked` is who waits for a measurement.
   */
  #slots = [];
  /** Buffers in which slabs went to workers and results came back, for the next ones; two for each slot. */
  #buffers = [];

  /** `listener.done(slot, kernelMs, result?)` and `listener.failed(slot, why)` are told. */
  constructor(module, glueUrl, listener) {
    this.#module = module;
    this.#glueUrl = glueUrl;
    this.#listener = listener;
  }

  /** Starts or ends workers until there are `count`; resolves when all are ready. */
  async resize(count) {
    while (this.#slots.length > count) this.#end(this.#slots.pop(), 'the worker was not needed any more');
    while (this.#slots.length < count) this.#slots.push(this.#create(this.#slots.length));
    await Promise.all(this.#slots.map((slot) => slot.ready));
  }

  /**
   * Measures all workers at the same time, with products of doubles or, if `single`, of singles: mean
   * speed of one of them, the limit of one, fusing. One call at a time.
   */
  async probe({ edge, ms, single = false }) {
    const answers = await Promise.all(
      this.#slots.map(
        (slot) =>
          new Promise((resolve, reject) => {
            slot.asked = { resolve, reject };
            slot.worker.postMessage({ type: 'probe', edge, ms, single });
          }),
      ),
    );
    const mean = (name) => answers.reduce((sum, answer) => sum + answer[name], 0) / answers.length;
    return {
      mflops: mean('mflops'),
      limit: mean('limit'),
      fuses: answers.every((answer) => answer.fuses),
      instance: answers[0].instance,
    };
  }

  /** Computes a slab; `bytesOf(block)` are the bytes of a block, which are copied. What fails is told later. */
  compute(slot, slab, bytesOf) {
    let length = 0;
    const place = ({ block, part }) => {
      const bytes = bytesOf(block);
      const placed = { bytes, offset: length, length: bytes.length, part };
      length += bytes.length;
      return placed;
    };
    const a = slab.a.map(place);
    const b = slab.b.map(place);
    const known = this.#slots[slot];
    known.pending = true;
    let buffer;
    let into;
    try {
      buffer = this.#take(length);
      const { rows, cols, c } = slab.spec;
      if (slab.last) into = this.#take(rows * cols * ELEMENT_BYTES[c.dtype] * c.limbs);
    } catch (error) {
      // The browser refuses the memory.
      this.#refuse(slot, known.sequence, error.message);
      return;
    }
    const all = new Uint8Array(buffer);
    for (const { bytes, offset } of [...a, ...b]) all.set(bytes, offset);
    const without = ({ offset, length, part }) => ({ offset, length, part });
    const message = { ...slab, a: a.map(without), b: b.map(without), type: 'slab', sequence: known.sequence, buffer, into };
    known.worker.postMessage(message, into ? [buffer, into] : [buffer]);
  }

  /** Forgets what a slot computes: its answer will not be told. */
  abort(slot) {
    const known = this.#slots[slot];
    if (!known) return;
    known.sequence += 1;
    known.pending = false;
  }

  /** Forgets what every slot computes. */
  abortAll() {
    this.#slots.forEach((_, slot) => this.abort(slot));
  }

  /** Says that a slot failed, unless that is forgotten until then. */
  #refuse(slot, sequence, why) {
    queueMicrotask(() => {
      const known = this.#slots[slot];
      if (known?.sequence !== sequence || !known.pending) return;
      known.pending = false;
      this.#listener.failed(slot, why);
    });
  }

  /** A buffer of at least `length` bytes: one that came back, since new memory is slow to touch. */
  #take(length) {
    const found = this.#buffers.findIndex((buffer) => buffer.byteLength >= length);
    if (found >= 0) return this.#buffers.splice(found, 1)[0];
    return new ArrayBuffer(Math.ceil(length / BUFFER_UNIT) * BUFFER_UNIT);
  }

  /** Takes the buffer of a slab, or of a result that nobody needs any more. */
  giveBack(buffer) {
    this.#buffers.push(buffer);
    while (this.#buffers.length > 2 * this.#slots.length) this.#buffers.shift();
  }

  #create(number) {
    const worker = new Worker(new URL('./compute-worker.js', import.meta.url), { type: 'module', name: `gemmesh ${number}` });
    const slot = { worker, ready: null, sequence: 0, pending: false, asked: null };
    slot.ready = new Promise((resolve, reject) => {
      worker.addEventListener('message', ({ data }) => {
        if (data.type === 'ready') resolve();
        else if (data.type === 'broken') reject(new Error(data.message));
        else if (data.type === 'probed') slot.asked?.resolve(data);
        else if (data.type === 'probeFailed') slot.asked?.reject(new Error(data.message));
        else if (data.type === 'slabDone' || data.type === 'slabFailed') this.#answer(number, worker, data);
      });
      worker.addEventListener('error', (event) => {
        reject(new Error(event.message));
        slot.asked?.reject(new Error(event.message));
        this.#answer(number, worker, { type: 'slabFailed', message: event.message });
      });
    });
    worker.postMessage({ type: 'init', module: this.#module, glueUrl: this.#glueUrl });
    return slot;
  }

  #end(slot, why) {
    slot.worker.terminate();
    slot.asked?.reject(new Error(why));
  }

  #answer(slot, worker, data) {
    if (data.buffer) this.giveBack(data.buffer);
    const known = this.#slots[slot];
    if (known?.worker !== worker) return;
    if (data.type === 'slabDone') {
      if (data.sequence !== known.sequence) {
        if (data.result) this.giveBack(data.result.buffer);
        return;
      }
      known.pending = false;
      this.#listener.done(slot, data.kernelMs, data.result);
      return;
    }
    // After a trap or for want of memory the instance is not to be used again; whatever waits for
    // this worker will not be computed, even if it is newer than what failed.
    this.#end(known, data.message);
    this.#slots[slot] = this.#create(slot);
    this.#slots[slot].sequence = known.sequence + 1;
    if (known.pending) this.#listener.failed(slot, data.message);
  }
}
