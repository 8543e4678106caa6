//! The slots of this node's worker: one thread each, one tile at a time.
//!
//! A slot waits before the last slab of its tile until there is room for the result: a disk or a network that
//! is slower than the kernel slows it down, and nothing piles up.

use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use gemmesh_kernel::KernelError;
use gemmesh_kernel::gemm::Class;
use gemmesh_kernel::tile::{Element, Placement, Stack, TileProduct, TileSpec};
use gemmesh_protocol::io::{SlabTask, TileShape};
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::matrix::{Dtype, Part};
use gemmesh_protocol::time::Span;

use crate::memory::{Share, Shares};
use crate::os;

/// A slab with the bytes of its blocks.
pub struct SlabWork {
    /// What to compute.
    pub task: SlabTask,
    /// Tells answers of an aborted task from those of the present one.
    pub generation: u64,
    /// Blocks of A's slab, in the order of `task.a`.
    pub a: Vec<Bytes>,
    /// Blocks of B's slab, in the order of `task.b`.
    pub b: Vec<Bytes>,
}

/// What became of a slab.
pub struct SlabOutcome {
    /// The slot.
    pub slot: u32,
    /// From [`SlabWork::generation`].
    pub generation: u64,
    /// Kernel time, and C after the last slab; `Err` when the slot could not compute.
    pub outcome: Result<(Span, Option<Bytes>), String>,
}

/// The threads. Dropping it lets each end after its present slab.
pub struct Slots {
    senders: Vec<mpsc::Sender<SlabWork>>,
}

impl Slots {
    /// Starts `count` threads that answer on `outcomes`, and take what their results need of `results`.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(
        count: u32,
        shares: &Shares,
        results: &Share,
        outcomes: tokio::sync::mpsc::UnboundedSender<SlabOutcome>,
    ) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let senders = (0..count)
            .map(|slot| {
                // The engine gives a slot one slab at a time, so the queue stays short.
                let (sender, receiver) = mpsc::channel();
                let slot_thread = Slot {
                    memory: shares.slot,
                    results: results.clone(),
                    runtime: runtime.clone(),
                    tile: None,
                };
                let outcomes = outcomes.clone();
                std::thread::Builder::new()
                    .name(format!("slot-{slot}"))
                    .spawn(move || slot_thread.run(&receiver, &outcomes))
                    .expect("the system can start a thread");
                sender
            })
            .collect();
        Self { senders }
    }

    /// Gives a slot its next slab.
    pub fn compute(&self, work: SlabWork) {
        let slot = work.task.slot as usize;
        self.senders[slot]
            .send(work)
            .expect("slots live as long as their sender");
    }
}

/// What a slot's thread has.
struct Slot {
    /// The most bytes that a tile may take while it is computed.
    memory: u64,
    results: Share,
    runtime: tokio::runtime::Handle,
    tile: Option<TileProduct>,
}

impl Slot {
    /// One slot's life.
    fn run(
        mut self,
        receiver: &mpsc::Receiver<SlabWork>,
        outcomes: &tokio::sync::mpsc::UnboundedSender<SlabOutcome>,
    ) {
        os::yield_to_others();
        while let Ok(work) = receiver.recv() {
            let outcome = self.slab(&work);
            if outcome.is_err() {
                self.tile = None;
            }
            let outcome = SlabOutcome {
                slot: work.task.slot,
                generation: work.generation,
                outcome,
            };
            if outcomes.send(outcome).is_err() {
                return;
            }
        }
    }

    /// C += A·B for one slab. The clock runs around the kernel alone.
    fn slab(&mut self, work: &SlabWork) -> Result<(Span, Option<Bytes>), String> {
        let failed = |error: KernelError| error.to_string();
        let (task, depth) = (&work.task, (work.task.to - work.task.from) as usize);
        let spec = spec(&task.shape, task.class);
        if task.first {
            let needed = spec.memory_bytes(depth) as u64;
            // Tiles of stacks have bounds of their own.
            if needed > self.memory && task.shape.stack.is_none() {
                let most = self.memory;
                return Err(format!(
                    "the tile takes {needed} bytes of memory, a slot has {most}"
                ));
            }
            let stack = task.shape.stack.map(stack);
            let tile = self.tile.get_or_insert_default();
            tile.start(spec, stack).map_err(failed)?;
        }
        let tile = self
            .tile
            .as_mut()
            .expect("the first slab of a tile comes first");
        tile.begin_slab(depth).map_err(failed)?;
        for ((_, part), bytes) in task.a.iter().zip(&work.a) {
            tile.put_a(bytes, placement(part)).map_err(failed)?;
        }
        for ((_, part), bytes) in task.b.iter().zip(&work.b) {
            tile.put_b(bytes, placement(part)).map_err(failed)?;
        }
        let room = task.last.then(|| {
            let bytes = spec.result_bytes() as u64;
            self.runtime.block_on(self.results.take(bytes))
        });
        let start = Instant::now();
        tile.accumulate().map_err(failed)?;
        let result = match room {
            Some(room) => Some((tile.finish().map_err(failed)?, room)),
            None => None,
        };
        // Rounded up: even the smallest product takes some time.
        let elapsed = (start.elapsed().as_nanos() as u64).div_ceil(1_000).max(1);
        let result = result.map(|(bytes, room)| Share::counted(Bytes::from(bytes), room));
        Ok((Span(elapsed), result))
    }
}

/// The kernel's view of a tile.
pub fn spec(shape: &TileShape, class: KernelClass) -> TileSpec {
    let element = match shape.c.dtype {
        Dtype::F64 => Element::F64,
        Dtype::F32 => Element::F32,
        Dtype::Residues => Element::Residues {
            primes: shape.c.limbs,
        },
        Dtype::Int => Element::Int {
            a_limbs: shape.a.limbs,
            b_limbs: shape.b.limbs,
            c_limbs: shape.c.limbs,
            a_bits: shape.a_bits,
            b_bits: shape.b_bits,
        },
    };
    TileSpec {
        element,
        class: kernel_class(class),
        rows: shape.rows as usize,
        cols: shape.cols as usize,
        inner: shape.inner as usize,
    }
}

/// The kernel's view of a tile of a stack.
pub fn stack(span: gemmesh_protocol::stack::Span) -> Stack {
    Stack {
        each: span.each as usize,
        skip: span.skip as usize,
    }
}

/// The kernel's name of a class; exact products have one way only.
pub fn kernel_class(class: KernelClass) -> Class {
    match class {
        KernelClass::Any | KernelClass::Exact => Class::Any,
        KernelClass::Fused => Class::Fused,
        KernelClass::Separate => Class::Separate,
    }
}

/// The kernel's view of a part.
pub fn placement(part: &Part) -> Placement {
    Placement {
        src_row_len: part.block_cols as usize,
        src_row: part.src_row as usize,
        src_col: part.src_col as usize,
        rows: part.rows as usize,
        cols: part.cols as usize,
        dst_row: part.dst_row as usize,
        dst_col: part.dst_col as usize,
    }
}

/// Kernel speed of this device in MFLOPS, all `threads` together: f64 products of edge 192 in
/// each thread for about 20 ms, the clock around the kernel alone.
pub fn measure(threads: u32) -> f64 {
    std::thread::scope(|scope| {
        let probes: Vec<_> = (0..threads).map(|_| scope.spawn(measure_thread)).collect();
        // A thread that could not allocate adds nothing.
        probes
            .into_iter()
            .filter_map(|probe| probe.join().ok()?.ok())
            .sum()
    })
}

fn measure_thread() -> Result<f64, KernelError> {
    const EDGE: usize = 192;
    let spec = TileSpec {
        element: Element::F64,
        class: Class::Any,
        rows: EDGE,
        cols: EDGE,
        inner: EDGE,
    };
    let ones: Vec<u8> = 1f64.to_le_bytes().repeat(EDGE * EDGE);
    let whole = Placement::whole(EDGE, EDGE, 0, 0);
    let (start, mut kernel, mut products) = (Instant::now(), std::time::Duration::ZERO, 0u32);
    let mut tile = TileProduct::new(spec)?;
    while start.elapsed().as_millis() < 20 {
        tile.reset(spec)?;
        tile.begin_slab(EDGE)?;
        tile.put_a(&ones, whole)?;
        tile.put_b(&ones, whole)?;
        let began = Instant::now();
        tile.accumulate()?;
        // The first product warms caches and is not counted.
        if products > 0 {
            kernel += began.elapsed();
        }
        products += 1;
    }
    let operations = 2.0 * (EDGE as f64).powi(3) * f64::from(products.saturating_sub(1));
    Ok(if kernel.is_zero() {
        0.0
    } else {
        operations / kernel.as_secs_f64() / 1e6
    })
}
