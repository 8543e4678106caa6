//! The oracle: the definition of the product, written as three loops. For tests.

use crate::gemm::{Class, Scalar};
use crate::matrix::{KernelError, MatMut, MatRef, same};

/// `C = A·B`, or `C += A·B` if `accumulate`, element by element; `Any` is computed as `Separate`.
///
/// # Errors
/// `Shape` if the sizes do not agree.
pub fn matmul<T: Scalar>(
    class: Class,
    accumulate: bool,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    mut c: MatMut<'_, T>,
) -> Result<(), KernelError> {
    same("rows of B (expected: columns of A)", a.cols(), b.rows())?;
    same("rows of C (expected: rows of A)", a.rows(), c.rows())?;
    same("columns of C (expected: columns of B)", b.cols(), c.cols())?;
    let step = if class == Class::Fused {
        T::fused
    } else {
        T::separate
    };
    for i in 0..a.rows() {
        for j in 0..b.cols() {
            let mut chain = if accumulate { c.at(i, j) } else { T::ZERO };
            for p in 0..a.cols() {
                chain = step(a.at(i, p), b.at(p, j), chain);
            }
            c.set(i, j, chain);
        }
    }
    Ok(())
}
