//! The pair product: 16-bit numbers, two to a 32-bit lane, multiplied and summed in 32 bits. Twice to four
//! times as many multiplications for each instruction as in `f64`, and exact by nature.
//!
//! Here is everything that needs an instruction of its own: the micro-kernel, and the two conversions of
//! [`crate::pairs`], which are sums of such products too. The rest of that module is safe code.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// A register of 32-bit lanes, each one number or two numbers of 16 bits: (low, high).
///
/// # Safety
/// Of every method: the CPU has the instructions of the type, and memory is readable or writable where it
/// is read or written.
pub(super) trait Lanes: Copy {
    /// Sums that [`Lanes::sum`] turns into a register.
    type Sums: Copy;
    const LANES: usize;

    unsafe fn splat(x: u32) -> Self;
    unsafe fn load(from: *const u32) -> Self;
    unsafe fn store(self, to: *mut u32);
    unsafe fn zero() -> Self::Sums;
    /// `sums + low(a)·low(b) + high(a)·high(b)` in every lane, modulo 2^32.
    unsafe fn dot(sums: Self::Sums, a: Self, b: Self) -> Self::Sums;
    unsafe fn sum(sums: Self::Sums) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// `self - round(self·inverse)·p`, `inverse` a register of `f32`, the product and the quotient rounded
    /// to nearest; quotients are below 2^22.
    unsafe fn reduce(self, p: Self, inverse: Self) -> Self;
    /// The low half of every lane of `low` below the low half of the lane of `high`.
    unsafe fn pair(low: Self, high: Self) -> Self;
    /// The low number, with its sign.
    unsafe fn low(self) -> Self;
    /// The high number, with its sign.
    unsafe fn high(self) -> Self;
}

/// A modulus p for [`Lanes::reduce`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduction {
    pub(crate) p: i32,
    /// 1/p.
    pub(crate) inverse: f32,
}

/// What becomes of the sums of a tile, and where in the 32 bits of an element.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Out {
    /// They are stored as they are.
    Whole,
    /// Their residues are stored in the low half.
    Low(Reduction),
    /// Their residues are stored in the high half.
    High(Reduction),
}

/// `(depth, a, b, c, row stride of c)`; see [`PairKernel::tile`].
type Run = unsafe fn(usize, *const u32, *const u32, *mut u32, usize, bool, Out);
/// See [`PairKernel::residues`].
type Residues = unsafe fn(&[u32], usize, &[u32], i32, Reduction, &mut [u32]);
/// See [`PairKernel::sums`].
type Sums = unsafe fn(&[u32], usize, &[u32], usize, &mut [i32], usize);

/// The most vectors across a micro-tile.
const MAX_VECTORS: usize = 4;

/// The most columns of a micro-tile.
pub(crate) const MAX_WIDTH: usize = 64;

/// The most elements of a micro-tile.
const MAX_TILE: usize = 512;

/// 16-bit digits that [`PairKernel::residues`] sums up between two reductions, in pairs.
pub(crate) const TERMS: usize = 4;

/// An instance: what it is called, the sizes of its tiles, its functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairKernel {
    #[cfg_attr(not(test), expect(dead_code, reason = "tests say where they fail"))]
    name: &'static str,
    /// Rows of a micro-tile.
    pub(crate) mr: usize,
    /// Columns of a micro-tile.
    pub(crate) nr: usize,
    pub(crate) lanes: usize,
    /// Pair products per multiplication of the `f64` kernel on the same device, measured: the limit of the
    /// one over the limit of the other.
    pub(crate) speed: f64,
    run: [Run; MAX_VECTORS],
    residues: Residues,
    sums: Sums,
}

/// The kernels of a device.
pub(crate) type PairKernels = [Option<PairKernel>; 5];

/// The kernels that this device runs, the fastest first.
pub(crate) fn kernels() -> PairKernels {
    let mut list = [None; 5];
    let mut len = 0;
    let mut push = |kernel| {
        list[len] = Some(kernel);
        len += 1;
    };
    #[cfg(target_arch = "x86_64")]
    x86_64::push(&mut push);
    #[cfg(target_arch = "aarch64")]
    push(aarch64::KERNEL);
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    push(wasm32::KERNEL);
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    push(portable::KERNEL);
    list
}

impl PairKernel {
    /// The instance's name.
    #[cfg(test)]
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What so many products of this size cost, in products in `f64`. A C that is much smaller than a tile
    /// wastes most of it; products in `f64` have other tiles, and none if C has one column.
    pub(crate) fn cost(&self, products: usize, rows: usize, cols: usize) -> f64 {
        const FLOATS: usize = 8;
        let used = |len: usize, unit: usize| len as f64 / (len.div_ceil(unit) as f64 * unit as f64);
        let floats = if cols == 1 { 1.0 } else { used(cols, FLOATS) };
        let pairs = used(rows, self.mr) * used(cols, self.lanes);
        products as f64 / self.speed * (floats / pairs)
    }

    /// One micro-tile, MR × NR or as many whole vectors of its columns as hold `cols`:
    ///
    /// ```text
    /// sum[i][j] = Σ_p low(a[p·MR + i])·low(b[p·NR + j]) + high(..)·high(..)        p < depth
    /// c[i·row_stride + j] = sum, or its residue, plus what was there if `load`     see `Out`
    /// ```
    ///
    /// Sums are modulo 2^32. Residues of old and of sum together are taken as signed, so they have to stay
    /// within 31 bits, and are then at most 0.6·p in magnitude. [`Out::Low`] without `load` clears the high
    /// half; otherwise the other half stays.
    ///
    /// # Panics
    /// If a slice is too short.
    #[expect(clippy::too_many_arguments, reason = "the sizes of three blocks")]
    pub(crate) fn tile(
        &self,
        depth: usize,
        a: &[u32],
        b: &[u32],
        c: &mut [u32],
        row_stride: usize,
        cols: usize,
        load: bool,
        out: Out,
    ) {
        let vectors = cols.div_ceil(self.lanes).clamp(1, self.nr / self.lanes);
        assert!(a.len() >= depth * self.mr && b.len() >= depth * self.nr);
        assert!(c.len() >= (self.mr - 1) * row_stride + vectors * self.lanes);
        // SAFETY: the CPU was asked before this kernel was listed. The function reads MR and NR elements
        // a step, and touches `vectors` vectors of each of MR rows of c: all checked above.
        unsafe {
            self.run[vectors - 1](
                depth,
                a.as_ptr(),
                b.as_ptr(),
                c.as_mut_ptr(),
                row_stride,
                load,
                out,
            )
        }
    }

    /// The residues of numbers that are given as 16-bit digits:
    ///
    /// ```text
    /// r_e[i] = start + Σ_t dot(digits[(e·terms + t)·stride + i], weights[t])     reduced, e = 0, 1
    /// to[i]  = (r_0[i], r_1[i])                                                  i < to.len()
    /// ```
    ///
    /// with `stride` = `to.len()`, a multiple of the lanes, `terms` = `weights.len()`, and weights and start
    /// at most p/2 in magnitude. Residues are then at most p/2 + 94 in magnitude.
    ///
    /// # Panics
    /// If the sizes do not agree.
    pub(crate) fn residues(
        &self,
        digits: &[u32],
        weights: &[u32],
        start: i32,
        field: Reduction,
        to: &mut [u32],
    ) {
        assert!(to.len().is_multiple_of(self.lanes));
        assert!(digits.len() >= 2 * weights.len() * to.len());
        // SAFETY: the CPU was asked before this kernel was listed; the sizes are checked.
        unsafe { (self.residues)(digits, weights.len(), weights, start, field, to) }
    }

    /// Linear combinations of planes of pairs:
    ///
    /// ```text
    /// to[d·len + i] = Σ_q dot(planes[q·stride + i], weights[d·pairs + q])     q < pairs, i < len, d < columns
    /// ```
    ///
    /// modulo 2^32. `len` is a multiple of the lanes, and the number of columns that of `to` over `len`.
    ///
    /// # Panics
    /// If the sizes do not agree.
    pub(crate) fn sums(
        &self,
        planes: &[u32],
        stride: usize,
        weights: &[u32],
        pairs: usize,
        to: &mut [i32],
        len: usize,
    ) {
        assert!(pairs > 0 && len > 0 && len.is_multiple_of(self.lanes));
        assert!(to.len().is_multiple_of(len) && weights.len() >= to.len() / len * pairs);
        assert!(planes.len() >= (pairs - 1) * stride + len);
        // SAFETY: the CPU was asked before this kernel was listed; the sizes are checked.
        unsafe { (self.sums)(planes, stride, weights, pairs, to, len) }
    }
}

/// [`PairKernel::tile`].
///
/// # Safety
/// The CPU has the instructions of `V`; `MR·depth` elements of `a` and `row·depth` of `b` are readable, and
/// NV vectors of each of MR rows of `c` are readable and writable.
#[inline(always)]
unsafe fn run<V: Lanes, const MR: usize, const NV: usize>(
    depth: usize,
    row: usize,
    (a, b): (*const u32, *const u32),
    c: *mut u32,
    row_stride: usize,
    load: bool,
    out: Out,
) {
    // SAFETY: the caller's guarantees cover each access; pointers past the last step are only made.
    unsafe {
        let mut sums = [[V::zero(); NV]; MR];
        let (mut from, mut across) = (a, b);
        for _ in 0..depth / UNROLL {
            for at in 0..UNROLL {
                step::<V, MR, NV>(&mut sums, from.add(at * MR), across.add(at * row));
            }
            from = from.wrapping_add(UNROLL * MR);
            across = across.wrapping_add(UNROLL * row);
        }
        for _ in 0..depth % UNROLL {
            step::<V, MR, NV>(&mut sums, from, across);
            from = from.wrapping_add(MR);
            across = across.wrapping_add(row);
        }
        // By way of memory, so that what follows is a loop and not a copy for each register.
        let mut tile = [core::mem::MaybeUninit::<u32>::uninit(); MAX_TILE];
        let tile: *mut u32 = tile.as_mut_ptr().cast();
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                V::sum(sum).store(tile.add((i * NV + j) * V::LANES));
            }
        }
        for i in 0..MR {
            for j in 0..NV {
                let to = c.add(i * row_stride + j * V::LANES);
                let sum = V::load(tile.add((i * NV + j) * V::LANES));
                let old = if load || matches!(out, Out::High(_)) {
                    V::load(to)
                } else {
                    V::splat(0)
                };
                let result = match out {
                    Out::Whole => sum.add(old),
                    Out::Low(field) => V::pair(reduced(sum.add(old.low()), field), old.high()),
                    Out::High(field) if load => V::pair(old, reduced(sum.add(old.high()), field)),
                    Out::High(field) => V::pair(old, reduced(sum, field)),
                };
                result.store(to);
            }
        }
    }
}

/// Steps of k that the micro-kernel takes between two tests for the end. A page loads as little as can be.
const UNROLL: usize = if cfg!(target_arch = "wasm32") { 2 } else { 4 };

/// One step of k: `sums[i][j] += from[i]·across[j]`, j counting vectors.
///
/// # Safety
/// The CPU has the instructions of `V`, and MR elements and NV vectors are readable.
#[inline(always)]
unsafe fn step<V: Lanes, const MR: usize, const NV: usize>(
    sums: &mut [[V::Sums; NV]; MR],
    from: *const u32,
    across: *const u32,
) {
    // SAFETY: the caller's guarantee.
    unsafe {
        let mut row_of_b = [V::load(across); NV];
        for (j, vector) in row_of_b.iter_mut().enumerate() {
            *vector = V::load(across.add(j * V::LANES));
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let element = V::splat(*from.add(i));
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = V::dot(*sum, element, row_of_b[j]);
            }
        }
    }
}

/// [`Lanes::reduce`].
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn reduced<V: Lanes>(sum: V, field: Reduction) -> V {
    // SAFETY: the caller's guarantee.
    unsafe { sum.reduce(V::splat(field.p as u32), V::splat(field.inverse.to_bits())) }
}

/// [`PairKernel::residues`].
///
/// # Safety
/// The CPU has the instructions of `V`, and the sizes are as there.
#[inline(always)]
unsafe fn residues<V: Lanes>(
    digits: &[u32],
    terms: usize,
    weights: &[u32],
    start: i32,
    field: Reduction,
    to: &mut [u32],
) {
    let len = to.len();
    // SAFETY: i + LANES <= len, a multiple of LANES, and digits hold 2·terms times as many.
    unsafe {
        let (p, inverse) = (V::splat(field.p as u32), V::splat(field.inverse.to_bits()));
        let digits = digits.as_ptr();
        for i in (0..len).step_by(V::LANES) {
            let mut both = [V::splat(start as u32); 2];
            for (e, residue) in both.iter_mut().enumerate() {
                let from = digits.add(e * terms * len + i);
                for first in (0..terms).step_by(TERMS) {
                    let mut sum = V::zero();
                    for t in first..terms.min(first + TERMS) {
                        let weight = V::splat(*weights.as_ptr().add(t));
                        sum = V::dot(sum, V::load(from.add(t * len)), weight);
                    }
                    *residue = residue.add(V::sum(sum)).reduce(p, inverse);
                }
            }
            V::pair(both[0], both[1]).store(to.as_mut_ptr().add(i));
        }
    }
}

/// [`PairKernel::sums`].
///
/// # Safety
/// The CPU has the instructions of `V`, and the sizes are as there.
#[inline(always)]
unsafe fn sums<V: Lanes>(
    planes: &[u32],
    stride: usize,
    weights: &[u32],
    pairs: usize,
    to: &mut [i32],
    len: usize,
) {
    /// # Safety
    /// As [`sums`], for the `D` columns and the vector of elements that start there.
    #[inline(always)]
    unsafe fn columns<V: Lanes, const D: usize>(
        planes: *const u32,
        stride: usize,
        weights: *const u32,
        pairs: usize,
        to: *mut u32,
        len: usize,
    ) {
        // SAFETY: the caller's guarantee.
        unsafe {
            let mut sums = [V::zero(); D];
            for q in 0..pairs {
                let plane = V::load(planes.add(q * stride));
                for (d, sum) in sums.iter_mut().enumerate() {
                    *sum = V::dot(*sum, plane, V::splat(*weights.add(d * pairs + q)));
                }
            }
            for (d, &sum) in sums.iter().enumerate() {
                V::sum(sum).store(to.add(d * len));
            }
        }
    }
    let count = to.len() / len;
    // SAFETY: i + LANES <= len, a multiple of LANES; each call stays among the columns and planes.
    unsafe {
        for i in (0..len).step_by(V::LANES) {
            let planes = planes.as_ptr().add(i);
            let mut d = 0;
            while d < count {
                let weights = weights.as_ptr().add(d * pairs);
                let to = to.as_mut_ptr().cast::<u32>().add(d * len + i);
                if d + 5 <= count {
                    columns::<V, 5>(planes, stride, weights, pairs, to, len);
                    d += 5;
                } else {
                    columns::<V, 1>(planes, stride, weights, pairs, to, len);
                    d += 1;
                }
            }
        }
    }
}

/// Defines `KERNEL` in a module of its own: the functions above for one vector type, compiled with the
/// features that it needs.
macro_rules! instance {
    ($module:ident, $name:expr, $lanes:ty, mr = $mr:expr, nv = $nv:expr, speed = $speed:expr, $(#[$attribute:meta])*) => {
        mod $module {
            use super::*;
            use $crate::arch::pairs::{self, Lanes, Out, PairKernel, Reduction};

            const MR: usize = $mr;
            const LANES: usize = <$lanes as Lanes>::LANES;
            const NR: usize = $nv * LANES;
            const _: () = assert!(MR * NR <= pairs::MAX_TILE && $nv <= pairs::MAX_VECTORS && NR <= pairs::MAX_WIDTH);

            /// # Safety
            /// As [`pairs::run`].
            $(#[$attribute])*
            unsafe fn run<const V: usize>(
                depth: usize, a: *const u32, b: *const u32, c: *mut u32, row_stride: usize, load: bool, out: Out,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { pairs::run::<$lanes, MR, V>(depth, NR, (a, b), c, row_stride, load, out) }
            }

            /// # Safety
            /// As [`pairs::residues`].
            $(#[$attribute])*
            unsafe fn residues(
                digits: &[u32], terms: usize, weights: &[u32], start: i32, field: Reduction, to: &mut [u32],
            ) {
                // SAFETY: the caller keeps the contract. One and two terms are told apart because their
                // weights stay in registers; not in a page, which loads as little as can be.
                unsafe {
                    match terms {
                        _ if cfg!(target_arch = "wasm32") => pairs::residues::<$lanes>(digits, terms, weights, start, field, to),
                        1 => pairs::residues::<$lanes>(digits, 1, weights, start, field, to),
                        2 => pairs::residues::<$lanes>(digits, 2, weights, start, field, to),
                        _ => pairs::residues::<$lanes>(digits, terms, weights, start, field, to),
                    }
                }
            }

            /// # Safety
            /// As [`pairs::sums`].
            $(#[$attribute])*
            unsafe fn sums(
                planes: &[u32], stride: usize, weights: &[u32], count: usize, to: &mut [i32], len: usize,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { pairs::sums::<$lanes>(planes, stride, weights, count, to, len) }
            }

            const fn least(v: usize) -> usize {
                if v < $nv { v } else { $nv }
            }

            pub(super) const KERNEL: PairKernel = PairKernel {
                name: $name,
                mr: MR,
                nr: NR,
                lanes: LANES,
                speed: $speed,
                run: [run::<{ least(1) }>, run::<{ least(2) }>, run::<{ least(3) }>, run::<{ least(4) }>],
                residues,
                sums,
            };
        }
    };
}
use instance;
