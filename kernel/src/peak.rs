//! The device's limit: multiply-adds in registers, no memory. A caller with a clock divides.

use crate::gemm::{Class, Scalar, kernel};

/// Runs `iterations` rounds of independent multiply-adds in the registers of this device's fastest
/// instance and returns the floating-point operations done (two per multiply-add and lane).
///
/// Time it and divide: that is the limit which [`crate::gemm::matmul`] can not exceed on one thread.
pub fn multiply_adds<T: Scalar>(iterations: u64) -> u64 {
    class_multiply_adds::<T>(Class::Any, iterations)
}

/// [`multiply_adds`] for the kernel of a class.
pub fn class_multiply_adds<T: Scalar>(class: Class, iterations: u64) -> u64 {
    kernel::<T>(class).map_or(0, |kernel| (kernel.peak)(iterations))
}

/// The name of the fastest instance here: `avx512`, `avx2+fma`, `neon`, `wasm simd128+relaxed`,
/// `wasm simd128` or `portable`.
pub fn instance() -> &'static str {
    kernel::<f64>(Class::Any).map_or("none", |kernel| kernel.name())
}
