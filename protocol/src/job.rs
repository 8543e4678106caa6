//! What a job is, as its workers need to know it.

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::matrix::{ElementType, Manifest};
use crate::tile::Tiling;

/// How elements are computed; part of a job's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelClass {
    /// Each device its fastest; the last bits may differ between devices.
    Any,
    /// One rounding per multiply-add.
    Fused,
    /// Two roundings per multiply-add; what `--reproducible` asks for.
    Separate,
    /// Integers, no rounding.
    Exact,
}

/// Which factor of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operand {
    /// The left factor, rows × inner.
    A,
    /// The right factor, inner × cols.
    B,
}

/// One product C = A·B: everything a worker needs besides the blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHeader {
    /// The job.
    pub job: JobId,
    /// A name for people; may be empty.
    pub name: String,
    /// How elements are computed.
    pub class: KernelClass,
    /// The left factor.
    pub a: Manifest,
    /// The right factor; it has as many rows as `a` has columns and the same dtype.
    pub b: Manifest,
    /// The form of an element of C.
    pub element: ElementType,
    /// How C is cut.
    pub tiling: Tiling,
}

impl JobHeader {
    /// The factor `operand`.
    pub fn manifest(&self, operand: Operand) -> &Manifest {
        match operand {
            Operand::A => &self.a,
            Operand::B => &self.b,
        }
    }

    /// 2·rows·inner·cols.
    pub fn operations(&self) -> u128 {
        2 * u128::from(self.a.rows) * u128::from(self.a.cols) * u128::from(self.b.cols)
    }
}
