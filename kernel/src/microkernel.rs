//! The micro-kernel, written once over a small vector trait; each instance in [`crate::arch`] names
//! its vector, its MR × NR and its block sizes.

use crate::scalar::{Class, Scalar};
use crate::thin::{Column, Outer, gathered};

/// A vector register of one instance, with the multiply-add of one class.
///
/// # Safety
/// The methods may use instructions that only some CPUs have. Whoever calls one must know that this
/// CPU has them; here only [`Kernel`] values call them, and those are made after detection.
pub(crate) trait Vector<T>: Copy {
    /// Elements in a register.
    const LANES: usize;

    /// Steps of k in one round of the micro-kernel's loop. Where the multiply-adds are so wide that a
    /// step takes few cycles, counting it takes a part of them.
    const UNROLL: usize = 1;

    /// All lanes `value`.
    ///
    /// # Safety
    /// The CPU has the instance's instructions.
    unsafe fn splat(value: T) -> Self;

    /// `LANES` elements from `from`, with any alignment.
    ///
    /// # Safety
    /// As [`Self::splat`]; `from` is readable for `LANES` elements.
    unsafe fn load(from: *const T) -> Self;

    /// `LANES` elements to `to`, with any alignment.
    ///
    /// # Safety
    /// As [`Self::splat`]; `to` is writable for `LANES` elements.
    unsafe fn store(self, to: *mut T);

    /// Asks for the cache line at `at`, which will be read soon, into the second-level cache. A hint: any
    /// address does.
    #[inline(always)]
    fn prefetch(_at: *const T) {}

    /// Whether [`Self::square`] is faster than a lane for each column, where there is one.
    const SQUARES: bool = false;

    /// `self[i] += a[i·stride + p] · b[p·step]` for p < LANES in turn: lane i is a row of A, a square of
    /// which is read by rows and turned in registers.
    ///
    /// # Safety
    /// As [`Self::splat`]; those elements are readable.
    #[inline(always)]
    unsafe fn square(self, a: *const T, stride: usize, b: *const T, step: usize) -> Self
    where
        T: Copy + Default,
    {
        // SAFETY: the caller's guarantee.
        unsafe { gathered(self, Self::LANES, Self::LANES, a, stride, b, step) }
    }

    /// `a·b + c` in each lane, rounded once or twice.
    ///
    /// # Safety
    /// As [`Self::splat`].
    unsafe fn multiply_add(a: Self, b: Self, c: Self) -> Self;
}

/// Block sizes of the five loops (see [`crate::gemm`]). They change speed, never bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// Rows of the packed block of A, which should stay in the second-level cache. Rounded up to a
    /// multiple of MR.
    pub mc: usize,
    /// Depth (part of k) of both packed blocks; a KC × NR panel of B should stay in the first-level
    /// cache.
    pub kc: usize,
    /// Columns of the packed block of B, which should stay in the last-level cache. Rounded up to a
    /// multiple of NR.
    pub nc: usize,
}

/// `C[0..MR, 0..NR] (+)= A·B` on packed panels; see [`run`].
pub(crate) type Run<T> =
    unsafe fn(depth: usize, a: *const T, b: *const T, c: *mut T, row_stride: usize, load: bool);

/// [`run`] wherever A and B lie: panels are only one way.
pub(crate) type Direct<T> = unsafe fn(
    depth: usize,
    a: Strided<T>,
    b: Strided<T>,
    c: *mut T,
    row_stride: usize,
    load: bool,
    ahead: *const T,
);

/// Where a micro-panel lies: the element of lane l (a row of A, a column of B) and step p is at
/// `start[l·lane + p·step]`. B's lanes are contiguous: `lane` is 1.
#[derive(Clone, Copy)]
pub(crate) struct Strided<T> {
    pub(crate) start: *const T,
    pub(crate) lane: usize,
    pub(crate) step: usize,
}

/// [`Direct`] for some number of rows, by the number of vectors across as in [`Kernel::run`].
pub(crate) type Rows<T> = (usize, [Direct<T>; MAX_VECTORS]);

/// See [`pack`](crate::pack::pack).
pub(crate) type Pack<T> = unsafe fn(*const T, usize, usize, usize, usize, *mut T);

/// One instance of the micro-kernel, for one class. Having the value proves that this CPU can run
/// it: the only way to get one is [`Scalar::kernels`], which asks the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<T: 'static> {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) mr: usize,
    pub(crate) nr: usize,
    pub(crate) blocking: Blocking,
    /// By the number of vectors across: `run[v - 1]` computes the first `v` of the panel's NV.
    pub(crate) run: [Run<T>; MAX_VECTORS],
    /// For panels that are not packed, and for fewer rows: the most rows first, down to one. More rows
    /// than `mr` are for one vector across.
    pub(crate) direct: &'static [Rows<T>],
    pub(crate) lanes: usize,
    pub(crate) pack_a: Pack<T>,
    pub(crate) pack_b: Pack<T>,
    /// Packs columns of B into panels of one vector.
    pub(crate) pack_vector: Pack<T>,
    /// For a C of one column, if that is faster.
    pub(crate) column: Option<Column<T>>,
    /// For one step of k.
    pub(crate) outer: Outer<T>,
    pub(crate) peak: fn(u64) -> u64,
}

/// What an instance is made of; see the fields of [`Kernel`].
pub(crate) struct Functions<T: 'static> {
    pub(crate) lanes: usize,
    pub(crate) run: [Run<T>; MAX_VECTORS],
    pub(crate) direct: &'static [Rows<T>],
    /// For A, for B, and for columns of B that fill one vector.
    pub(crate) pack: [Pack<T>; 3],
    pub(crate) column: Option<Column<T>>,
    /// For one step of k.
    pub(crate) outer: Outer<T>,
    pub(crate) peak: fn(u64) -> u64,
}

impl<T: Scalar> Kernel<T> {
    /// The constructor for instances.
    ///
    /// # Safety
    /// This CPU can execute all of the functions; the packing is [`pack`](crate::pack::pack) for MR, NR
    /// and `lanes` lanes; `direct` keeps the contract of [`run`] for its rows, the last of which is 1;
    /// `run[v - 1]` keeps the contract of [`run`] for MR rows and `v` vectors of `lanes` elements out of
    /// panels of NR columns; and `column` and `outer` keep those of [`column`](crate::thin::column())
    /// and [`outer`](crate::thin::outer()).
    pub(crate) const unsafe fn new<const MR: usize, const NR: usize>(
        name: &'static str,
        class: Class,
        blocking: Blocking,
        functions: Functions<T>,
    ) -> Self {
        let Functions {
            lanes,
            run,
            direct,
            pack: [pack_a, pack_b, pack_vector],
            column,
            outer,
            peak,
        } = functions;
        assert!(
            MR > 0 && NR > 0 && MR * NR <= MAX_TILE,
            "the edge buffer holds a micro-tile"
        );
        assert!(
            direct[0].0 * lanes <= MAX_TILE && direct[direct.len() - 1].0 == 1,
            "every number of rows is a sum of these"
        );
        assert!(
            blocking.kc > 0 && blocking.mc >= MR && blocking.nc >= NR,
            "a block holds a micro-panel"
        );
        assert!(
            blocking.mc.is_multiple_of(MR) && blocking.nc.is_multiple_of(NR),
            "blocks are whole micro-panels"
        );
        Self {
            name,
            class,
            mr: MR,
            nr: NR,
            blocking,
            run,
            direct,
            lanes,
            pack_a,
            pack_b,
            pack_vector,
            column,
            outer,
            peak,
        }
    }
}

impl<T: 'static> Kernel<T> {
    /// The instance's name, as in [`crate::peak::instance`].
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The class it computes; `Any` where the device does not say how often it rounds.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Its usual block sizes.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }
}

/// The most lanes of a vector of any instance.
pub(crate) const MAX_LANES: usize = 16;

/// The most vectors across a micro-tile (NV) of any instance.
pub(crate) const MAX_VECTORS: usize = 4;

/// The most elements of a micro-tile (MR·NR) of any instance.
pub(crate) const MAX_TILE: usize = 512;

/// The micro-kernel: an `MR × NR` tile of C, `NR = NV·LANES`, kept in registers for all of `depth`.
///
/// ```text
/// c[i·row_stride + j] = chain over p < depth of  a[i·a.lane + p·a.step] · b[j + p·b.step]
/// ```
///
/// starting from 0, or from the stored c if `load`. Meanwhile the `depth` elements at `ahead` are asked for: one
/// line now and then, which a multiply-add never waits for. A hint: any address does.
///
/// ```text
///               b: depth × NR, one row per step, NV vectors
///               ┌────────┬────────┐
///               └────────┴────────┘
///   a: depth ×  ┌────────┬────────┐
///   MR, one    ┐│ acc    │ acc    │  MR·NV accumulators: enough to hide the latency of a
///   element    ││ [i][0] │ [i][1] │  multiply-add, few enough to stay in registers together
///   splat per  ┘│        │        │  with NV vectors of b
///   row         └────────┴────────┘
/// ```
///
/// # Safety
/// The CPU has the instructions of `V`; the `MR·depth` and `NR·depth` elements of `a` and `b` are
/// readable, and `b.lane` is 1; the `MR × NR` elements of `c` are writable, and initialised if `load`.
#[inline(always)]
pub(crate) unsafe fn run<T: Copy + Default, V: Vector<T>, const MR: usize, const NV: usize>(
    depth: usize,
    a: Strided<T>,
    b: Strided<T>,
    c: *mut T,
    row_stride: usize,
    load: bool,
    ahead: *const T,
) {
    // SAFETY: the caller's guarantees cover each access: step p reads MR elements of a and NR of b, and
    // c is touched at i·row_stride + j only. Pointers past the last step are made with wrapping_add.
    unsafe {
        let mut acc = [[V::splat(T::default()); NV]; MR];
        if load {
            for (i, row) in acc.iter_mut().enumerate() {
                for (j, lane) in row.iter_mut().enumerate() {
                    *lane = V::load(c.add(i * row_stride + j * V::LANES));
                }
            }
        }
        let (mut from, mut across, mut ahead) = (a.start, b.start, ahead);
        for _ in 0..depth / V::UNROLL {
            V::prefetch(ahead);
            ahead = ahead.wrapping_add(V::UNROLL);
            for at in 0..V::UNROLL {
                step(
                    &mut acc,
                    from.add(at * a.step),
                    a.lane,
                    across.add(at * b.step),
                );
            }
            from = from.wrapping_add(V::UNROLL * a.step);
            across = across.wrapping_add(V::UNROLL * b.step);
        }
        for _ in 0..depth % V::UNROLL {
            step(&mut acc, from, a.lane, across);
            from = from.wrapping_add(a.step);
            across = across.wrapping_add(b.step);
        }
        for (i, row) in acc.iter().enumerate() {
            for (j, lane) in row.iter().enumerate() {
                lane.store(c.add(i * row_stride + j * V::LANES));
            }
        }
    }
}

/// One step of k: `acc[i][j] += from[i·lane] · across[j]`, j counting vectors. A function that is always
/// inlined, and no closure: a closure is compiled without the features of the function around it.
///
/// # Safety
/// As [`run`], for one step.
#[inline(always)]
unsafe fn step<T: Copy, V: Vector<T>, const MR: usize, const NV: usize>(
    acc: &mut [[V; NV]; MR],
    from: *const T,
    lane: usize,
    across: *const T,
) {
    // SAFETY: MR elements at `from` and NV vectors at `across` are readable, says the caller.
    unsafe {
        let row_of_b: [V; NV] = load(across);
        for (i, row) in acc.iter_mut().enumerate() {
            let element = V::splat(*from.add(i * lane));
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = V::multiply_add(element, row_of_b[j], *sum);
            }
        }
    }
}

/// NV vectors side by side.
///
/// # Safety
/// They are readable, and the CPU has the instructions of `V`.
#[inline(always)]
unsafe fn load<T: Copy, V: Vector<T>, const NV: usize>(from: *const T) -> [V; NV] {
    // SAFETY: the caller's guarantee, also for the first vector, which all places start with.
    unsafe {
        let mut vectors = [V::load(from); NV];
        for (j, vector) in vectors.iter_mut().enumerate() {
            *vector = V::load(from.add(j * V::LANES));
        }
        vectors
    }
}

/// `iterations` rounds of `CHAINS` independent multiply-adds in registers; returns the floating
/// point operations done (two per lane and multiply-add).
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
pub(crate) unsafe fn peak<T: Copy, V: Vector<T>, const CHAINS: usize>(
    iterations: u64,
    factor: T,
    addend: T,
) -> u64 {
    use core::hint::black_box;
    // SAFETY: the caller knows the CPU; nothing here touches memory but the local lanes.
    unsafe {
        let factor = V::splat(black_box(factor));
        let addend = V::splat(black_box(addend));
        let mut chains = [addend; CHAINS];
        for _ in 0..iterations {
            for chain in &mut chains {
                *chain = V::multiply_add(*chain, factor, addend);
            }
        }
        black_box(chains);
        2 * iterations * (CHAINS * V::LANES) as u64
    }
}
