//! What a job is, as its workers need to know it.

use serde::{Deserialize, Serialize};

use crate::batch::BatchPart;
use crate::id::JobId;
use crate::matrix::{BLOCKS_MAX, Dtype, ElementType, Grid, LIMBS_MAX, Manifest};
use crate::status::Mode;
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
    /// The right factor; it has as many rows as `a` has columns, for each product, and the same dtype.
    pub b: Manifest,
    /// The form of an element of C.
    pub element: ElementType,
    /// How C is cut.
    pub tiling: Tiling,
    /// How many products it is, one below the other in A, B and C; see [`crate::stack`].
    #[serde(default = "one")]
    pub stack: u32,
    /// Of which batch it is a part.
    #[serde(default)]
    pub batch: Option<Box<BatchPart>>,
    /// Set for a product that nobody but its coordinator may learn.
    #[serde(default)]
    pub guard: Option<Box<Guard>>,
    /// Set for a share of such a product, which is a job of one device.
    #[serde(default)]
    pub share: Option<ShareOf>,
}

/// How a product is computed by devices that must not learn it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Private or masked.
    pub mode: Mode,
    /// T: how many devices may put together what they see.
    pub colluders: u32,
    /// S: how many devices may fail without delay.
    pub spares: u32,
    /// Residues of an element of a share: enough primes for all of C.
    pub primes: u16,
    /// Bits that are kept of a float; 0 for integers, of which all are.
    pub bits_kept: u16,
}

/// Which share of a guarded product a job computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareOf {
    /// The product.
    pub product: JobId,
    /// The number of the share.
    pub number: u16,
}

fn one() -> u32 {
    1
}

impl JobHeader {
    /// The factor `operand`.
    pub fn manifest(&self, operand: Operand) -> &Manifest {
        match operand {
            Operand::A => &self.a,
            Operand::B => &self.b,
        }
    }

    /// How its operands travel.
    pub fn mode(&self) -> Mode {
        self.guard.as_ref().map_or(Mode::Plain, |guard| guard.mode)
    }

    /// Whether only devices that it is given to may have any of it.
    pub fn is_bound(&self) -> bool {
        self.guard.is_some() || self.share.is_some()
    }

    /// 2·rows·inner·cols.
    pub fn operations(&self) -> u128 {
        2 * u128::from(self.a.rows) * u128::from(self.a.cols) * u128::from(self.b.cols)
    }
}

/// The most bytes of a tile that a worker takes on.
const TILE_BYTES_MAX: u64 = 32 << 20;

/// Why a job's header was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the job is not of the stated form: {0}")]
pub struct HeaderError(pub &'static str);

impl JobHeader {
    /// Checks a header that came from elsewhere, so that nothing computed from it can overflow or
    /// be outside a matrix.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), HeaderError> {
        let manifests = self.a.check().and_then(|()| self.b.check());
        manifests.map_err(|error| HeaderError(error.0))?;
        if self.a.cols.checked_mul(u64::from(self.stack)) != Some(self.b.rows) {
            return Err(HeaderError("the factors do not fit"));
        }
        let dtype = self.element.dtype;
        if self.a.element.dtype != dtype || self.b.element.dtype != dtype {
            return Err(HeaderError("element types differ"));
        }
        let limbs = self.element.limbs;
        let floats = matches!(dtype, Dtype::F64 | Dtype::F32);
        if limbs == 0 || limbs > LIMBS_MAX || (floats && limbs != 1) {
            return Err(HeaderError("number of limbs"));
        }
        let same = self.a.element.limbs == limbs && self.b.element.limbs == limbs;
        if dtype == Dtype::Residues && !(same && self.stack == 1) {
            return Err(HeaderError("residues"));
        }
        if floats == (self.class == KernelClass::Exact) {
            return Err(HeaderError("the class does not fit the element type"));
        }
        let product = Grid::new(self.a.rows, self.b.cols, self.element);
        if product.len() > BLOCKS_MAX {
            return Err(HeaderError("the product has too many blocks"));
        }
        let tiling = &self.tiling;
        if tiling.rows != self.a.rows || tiling.cols != self.b.cols {
            return Err(HeaderError("the tiling is of another matrix"));
        }
        if tiling.tile_rows == 0 || tiling.tile_cols == 0 {
            return Err(HeaderError("empty tiles"));
        }
        let tiles = tiling.grid_rows().checked_mul(tiling.grid_cols());
        if tiles.is_none_or(|tiles| tiles > crate::plan::TILES_MAX) {
            return Err(HeaderError("too many tiles"));
        }
        let first = tiling.rect(0);
        let bytes = first
            .rows
            .checked_mul(first.cols)
            .and_then(|elements| elements.checked_mul(self.element.bytes()));
        if bytes.is_none_or(|bytes| bytes > TILE_BYTES_MAX) {
            return Err(HeaderError("tiles are too large"));
        }
        self.check_stack().map_err(HeaderError)?;
        let of_batch = |part: &BatchPart| part.is_sane() && part.len() == u64::from(self.stack);
        if !self.batch.as_deref().is_none_or(of_batch) {
            return Err(HeaderError("the products of a batch"));
        }
        Ok(())
    }

    /// Bytes of tile `tile`'s result.
    ///
    /// # Panics
    /// When there is no such tile.
    pub fn tile_bytes(&self, tile: u32) -> u64 {
        let rect = self.tiling.rect(u64::from(tile));
        rect.rows * rect.cols * self.element.bytes()
    }

    /// 2·rows·inner·cols of tile `tile`, at most `u64::MAX`.
    ///
    /// # Panics
    /// When there is no such tile.
    pub fn tile_operations(&self, tile: u32) -> u64 {
        let rect = self.tiling.rect(u64::from(tile));
        (2 * rect.rows * rect.cols).saturating_mul(self.a.cols)
    }
}
