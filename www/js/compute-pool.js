// The compute workers of this page, by slot.

export class ComputePool {
  #module;
  #glueUrl;
  #listener;
  /** By slot: { worker, sequence, ready }. A sequence number is raised to forget what is computed. */
  #slots = [];

  /** `listener.done(slot, kernelMs, result?)` and `listener.failed(slot, why)` are told. */
  constructor(module, glueUrl, listener) {
    this.#module = module;
    this.#glueUrl = glueUrl;
    this.#listener = listener;
  }

  /** Starts or ends workers until there are `count`; resolves when all are ready. */
  async resize(count) {
    while (this.#slots.length > count) this.#slots.pop().worker.terminate();
    while (this.#slots.length < count) this.#slots.push(this.#create(this.#slots.length));
    await Promise.all(this.#slots.map((slot) => slot.ready));
  }

  /** Measures all workers at the same time: mean speed of one of them, the limit of one, fusing. */
  async probe({ edge, ms }) {
    const answers = await Promise.all(
      this.#slots.map(
        ({ worker }) =>
          new Promise((resolve, reject) => {
            const listen = ({ data }) => {
              if (data.type !== 'probed') return;
              worker.removeEventListener('message', listen);
              resolve(data);
            };
            worker.addEventListener('message', listen);
            worker.addEventListener('error', (event) => reject(new Error(event.message)), { once: true });
            worker.postMessage({ type: 'probe', edge, ms });
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

  /** Computes a slab; blocks are copied to the worker, because they stay in the cache too. */
  compute(slot, slab) {
    const { worker, sequence } = this.#slots[slot];
    worker.postMessage({ ...slab, type: 'slab', sequence });
  }

  /** Forgets what a slot computes: its answer will not be told. */
  abort(slot) {
    if (this.#slots[slot]) this.#slots[slot].sequence += 1;
  }

  /** Forgets what every slot computes. */
  abortAll() {
    this.#slots.forEach((_, slot) => this.abort(slot));
  }

  #create(slot) {
    const worker = new Worker(new URL('./compute-worker.js', import.meta.url), { type: 'module', name: `gemmesh ${slot}` });
    const ready = new Promise((resolve, reject) => {
      worker.addEventListener('message', ({ data }) => {
        if (data.type === 'ready') resolve();
        else if (data.type === 'broken') reject(new Error(data.message));
        else if (data.type === 'slabDone' || data.type === 'slabFailed') this.#answer(slot, worker, data);
      });
      worker.addEventListener('error', (event) => {
        reject(new Error(event.message));
        this.#answer(slot, worker, { type: 'slabFailed', sequence: this.#slots[slot]?.sequence, message: event.message });
      });
    });
    worker.postMessage({ type: 'init', module: this.#module, glueUrl: this.#glueUrl });
    return { worker, ready, sequence: 0 };
  }

  #answer(slot, worker, data) {
    const known = this.#slots[slot];
    if (known?.worker !== worker) return;
    const current = data.sequence === known.sequence;
    if (data.type === 'slabDone') {
      if (current) this.#listener.done(slot, data.kernelMs, data.result);
      return;
    }
    // After a trap or for want of memory the instance is not to be used again.
    worker.terminate();
    this.#slots[slot] = { ...this.#create(slot), sequence: known.sequence + 1 };
    if (current) this.#listener.failed(slot, data.message);
  }
}
