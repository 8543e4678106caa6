//! The element types of the floating products, how a multiply-add rounds, and the choice of an instance.

use core::fmt::Debug;

use crate::arch::{self, Kernels};
use crate::matrix::KernelError;
use crate::microkernel::Kernel;

/// How a multiply-add rounds. Part of a job's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The device's fastest; the last bits may differ between devices.
    Any,
    /// `round(a·b + c)`: one rounding.
    Fused,
    /// `round(round(a·b) + c)`: two roundings. Every device can do it at full width.
    Separate,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for f32 {}
}

/// An element type of the floating products: `f64` or `f32`.
pub trait Scalar:
    sealed::Sealed + Copy + Default + PartialEq + PartialOrd + Debug + Send + Sync + 'static
{
    /// Zero.
    const ZERO: Self;

    /// The quiet NaN that [`crate::tile::TileProduct`] writes for every NaN.
    const CANONICAL_NAN: Self;

    /// Every kernel that this device runs, the fastest first.
    fn kernels() -> impl Iterator<Item = &'static Kernel<Self>>;

    /// `a·b + c` with one rounding, on any device. Slow where the CPU has no such instruction.
    fn fused(a: Self, b: Self, c: Self) -> Self;

    /// `a·b + c` with two roundings.
    fn separate(a: Self, b: Self, c: Self) -> Self;
}

impl Scalar for f64 {
    const ZERO: Self = 0.0;
    const CANONICAL_NAN: Self = Self::from_bits(0x7ff8_0000_0000_0000);

    fn kernels() -> impl Iterator<Item = &'static Kernel<Self>> {
        let kernels: Kernels<Self> = arch::kernels_f64();
        kernels.into_iter().flatten()
    }

    #[inline]
    fn fused(a: Self, b: Self, c: Self) -> Self {
        libm::fma(a, b, c)
    }

    #[inline]
    fn separate(a: Self, b: Self, c: Self) -> Self {
        a * b + c
    }
}

impl Scalar for f32 {
    const ZERO: Self = 0.0;
    const CANONICAL_NAN: Self = Self::from_bits(0x7fc0_0000);

    fn kernels() -> impl Iterator<Item = &'static Kernel<Self>> {
        let kernels: Kernels<Self> = arch::kernels_f32();
        kernels.into_iter().flatten()
    }

    #[inline]
    fn fused(a: Self, b: Self, c: Self) -> Self {
        libm::fmaf(a, b, c)
    }

    #[inline]
    fn separate(a: Self, b: Self, c: Self) -> Self {
        a * b + c
    }
}

/// Whether this device computes `class` with vector instructions. [`matmul`](crate::gemm::matmul) computes every class
/// everywhere, but `Fused` without a fused instruction is done in software, some hundred times slower.
///
/// Under WebAssembly with relaxed SIMD the engine may or may not fuse; a probe decides.
pub fn supports(class: Class) -> bool {
    match class {
        Class::Any | Class::Separate => true,
        Class::Fused => f64::kernels()
            .any(|kernel| kernel.class == Class::Fused && kernel.name != arch::PORTABLE),
    }
}

/// The fastest kernel of this device for a class.
///
/// # Errors
/// `Unsupported` if there is none; the portable instance covers every class, so this does not happen.
pub fn kernel<T: Scalar>(class: Class) -> Result<&'static Kernel<T>, KernelError> {
    T::kernels()
        .find(|kernel| class == Class::Any || kernel.class == class)
        .ok_or(KernelError::Unsupported { class })
}
