//! WebAssembly, chosen at compile time: `simd128` has no multiply-add, so it computes `Separate`;
//! `relaxed-simd` adds one whose rounding is the engine's choice, so it is probed.

use core::arch::wasm32::*;

use super::{List, instance};
use crate::gemm::Class;
use crate::microkernel::{Blocking, Kernel, Vector};

/// Rows to columns.
#[inline(always)]
fn turn_f64([x, y]: [v128; 2]) -> [v128; 2] {
    [i64x2_shuffle::<0, 2>(x, y), i64x2_shuffle::<1, 3>(x, y)]
}

/// Rows to columns.
#[inline(always)]
fn turn_f32([x, y, z, w]: [v128; 4]) -> [v128; 4] {
    let left = |x, y| i32x4_shuffle::<0, 4, 1, 5>(x, y);
    let right = |x, y| i32x4_shuffle::<2, 6, 3, 7>(x, y);
    let [first, second] = turn_f64([left(x, y), left(z, w)]);
    let [third, fourth] = turn_f64([right(x, y), right(z, w)]);
    [first, second, third, fourth]
}

/// Implements [`Vector`] for one lane type: `RELAXED` or `Separate`.
macro_rules! vector {
    ($name:ident, $scalar:ty, $lanes:expr, $splat:ident, $mul:ident, $add:ident, $madd:ident, $turn:ident) => {
        #[derive(Clone, Copy)]
        struct $name<const RELAXED: bool>(v128);

        impl<const RELAXED: bool> Vector<$scalar> for $name<RELAXED> {
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(value: $scalar) -> Self {
                Self($splat(value))
            }

            #[inline(always)]
            unsafe fn load(from: *const $scalar) -> Self {
                // SAFETY: 16 readable bytes, says the caller; v128.load takes any alignment.
                Self(unsafe { v128_load(from.cast()) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $scalar) {
                // SAFETY: 16 writable bytes, says the caller; v128.store takes any alignment.
                unsafe { v128_store(to.cast(), self.0) }
            }

            // Chromium 156, a column of 1,000 × 1,000: singles 1.6 to 1.9 times as fast. Doubles are at most 1.2
            // times as fast, some sizes slower, and the code would be more to download.
            const SQUARES: bool = $lanes == 4;

            #[inline(always)]
            unsafe fn square(
                mut self,
                a: *const $scalar,
                stride: usize,
                b: *const $scalar,
                step: usize,
            ) -> Self {
                // SAFETY: those elements are readable, says the caller.
                unsafe {
                    let rows = core::array::from_fn(|i| v128_load(a.add(i * stride).cast()));
                    for (p, column) in $turn(rows).into_iter().enumerate() {
                        let b = Self::splat(*b.add(p * step));
                        self = Self::multiply_add(Self(column), b, self);
                    }
                    self
                }
            }

            #[inline(always)]
            unsafe fn multiply_add(a: Self, b: Self, c: Self) -> Self {
                #[cfg(target_feature = "relaxed-simd")]
                if RELAXED {
                    return Self($madd(a.0, b.0, c.0));
                }
                Self($add($mul(a.0, b.0), c.0))
            }
        }
    };
}

vector!(
    F64x2,
    f64,
    2,
    f64x2_splat,
    f64x2_mul,
    f64x2_add,
    f64x2_relaxed_madd,
    turn_f64
);
vector!(
    F32x4,
    f32,
    4,
    f32x4_splat,
    f32x4_mul,
    f32x4_add,
    f32x4_relaxed_madd,
    turn_f32
);

// V8 allots 15 registers. `Separate` takes one for the product, and a chain is as long as an addition,
// which 8 accumulators hide.
instance!(
    separate_f64,
    f64,
    F64x2<false>,
    mr = 4,
    nv = 2,
    rows = [4, 2, 1],
    chains = 12,
);
instance!(
    separate_f32,
    f32,
    F32x4<false>,
    mr = 4,
    nv = 2,
    rows = [4, 2, 1],
    chains = 12,
);

/// The packed A is 240 KiB, the packed B 2 MiB: a worker's memory is small, and so are the caches of
/// phones. Deep, because each micro-tile costs a call through a table.
const F64: Blocking = Blocking {
    mc: 60,
    kc: 512,
    nc: 516,
};
const F32: Blocking = Blocking {
    mc: 60,
    kc: 1024,
    nc: 504,
};

/// The name of the instance with relaxed multiply-adds.
#[cfg(target_feature = "relaxed-simd")]
const RELAXED: &str = "wasm simd128+relaxed";

macro_rules! kernel {
    ($module:ident, $name:expr, $class:expr, $blocking:expr) => {
        const {
            // SAFETY: a module with instructions that the engine lacks is not instantiated at all; `run`
            // is the generic micro-kernel.
            &unsafe {
                Kernel::new::<{ $module::MR }, { $module::NR }>(
                    $name,
                    $class,
                    $blocking,
                    $module::FUNCTIONS,
                )
            }
        }
    };
}

pub(super) fn push_f64(list: &mut List<f64>) {
    #[cfg(target_feature = "relaxed-simd")]
    list.push(match relaxed_class() {
        Class::Fused => kernel!(relaxed_f64, RELAXED, Class::Fused, F64),
        _ => kernel!(relaxed_f64, RELAXED, Class::Any, F64),
    });
    list.push(kernel!(separate_f64, "wasm simd128", Class::Separate, F64));
}

pub(super) fn push_f32(list: &mut List<f32>) {
    #[cfg(target_feature = "relaxed-simd")]
    list.push(match relaxed_class() {
        Class::Fused => kernel!(relaxed_f32, RELAXED, Class::Fused, F32),
        _ => kernel!(relaxed_f32, RELAXED, Class::Any, F32),
    });
    list.push(kernel!(separate_f32, "wasm simd128", Class::Separate, F32));
}

// V8 allots 15 registers: 12 accumulators, as 6 × 2 vectors, two vectors of B and an element of A fill
// them. Fewer are slower (Chromium 156, singles at n = 512, share of the limit: 6 × 2 100 %, 5 × 2 95 %,
// 3 × 3 92 %, 4 × 2 88 %), more are spilled (3 × 4 70 %), and so they are where addresses are computed
// for each load: see build.sh of the page's module.
#[cfg(target_feature = "relaxed-simd")]
instance!(
    relaxed_f64,
    f64,
    F64x2<true>,
    mr = 6,
    nv = 2,
    rows = [6, 4, 2, 1],
    chains = 12,
);
#[cfg(target_feature = "relaxed-simd")]
instance!(
    relaxed_f32,
    f32,
    F32x4<true>,
    mr = 6,
    nv = 2,
    rows = [6, 4, 2, 1],
    chains = 12,
);

/// `Fused` if this engine's relaxed multiply-add rounds once, else `Any`. The engine must not compute it
/// in advance, perhaps in another way.
#[cfg(target_feature = "relaxed-simd")]
fn relaxed_class() -> Class {
    use core::hint::black_box;
    super::fuses::class(
        |a, b, c| {
            let [a, b, c] = [a, b, c].map(|x| black_box(f64x2_splat(x)));
            f64x2_extract_lane::<0>(black_box(f64x2_relaxed_madd(a, b, c)))
        },
        |a, b, c| {
            let [a, b, c] = [a, b, c].map(|x| black_box(f32x4_splat(x)));
            f32x4_extract_lane::<0>(black_box(f32x4_relaxed_madd(a, b, c)))
        },
    )
}
