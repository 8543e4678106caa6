//! The probe of multiply-adds whose rounding nobody promises: relaxed SIMD leaves it to the engine.

use crate::gemm::Class;

/// `Fused` if both multiply-adds, `a·b + c`, round once, else `Any`: then no class but `Any` is claimed
/// for them, and the device offers `separate` and `exact` with its other kernels.
///
/// The operands make the difference visible: (1+ε)² − (1+2ε) is ε² when rounded once and 0 when the
/// product is rounded first (ε² is below half a unit in the last place).
pub(super) fn class(
    double: impl FnOnce(f64, f64, f64) -> f64,
    single: impl FnOnce(f32, f32, f32) -> f32,
) -> Class {
    let e = f64::from_bits(0x3e40_0000_0000_0000); // 2^-27
    let a = 1.0 + e;
    let double = double(a, a, -(1.0 + 2.0 * e)) == e * e;
    let e = f32::from_bits(0x3980_0000); // 2^-12
    let a = 1.0 + e;
    let single = single(a, a, -(1.0 + 2.0 * e)) == e * e;
    if double && single {
        Class::Fused
    } else {
        Class::Any
    }
}

#[cfg(test)]
mod tests {
    use super::class;
    use crate::gemm::{Class, Scalar};

    #[test]
    fn one_rounding_is_fused_and_two_are_not() {
        assert_eq!(class(f64::fused, f32::fused), Class::Fused);
        assert_eq!(class(f64::separate, f32::separate), Class::Any);
    }

    #[test]
    fn an_engine_that_fuses_only_one_type_does_not_fuse() {
        assert_eq!(class(f64::fused, f32::separate), Class::Any);
        assert_eq!(class(f64::separate, f32::fused), Class::Any);
    }
}
