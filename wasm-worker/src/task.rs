//! One tile for one compute worker: messages of the page in, bytes of C out. Pure, so that it is
//! tested on the host too.

use gemmesh_kernel::{Class, Element, KernelError, Placement, TileProduct, TileSpec};
use gemmesh_protocol::io::TileShape;
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::matrix::{Dtype, ElementType, Part};
use serde::Serialize;

/// The most bytes that one compute worker's tile may hold: leaves room for the module itself below
/// the 64 MiB that a worker may have.
pub const TASK_BYTES_MAX: usize = 56 << 20;

/// Form, size and class of a tile, as it travels from the session to a compute worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TaskSpec {
    /// How elements are computed.
    pub class: KernelClass,
    /// Rows of the tile.
    pub rows: u64,
    /// Columns of the tile.
    pub cols: u64,
    /// Length of the inner dimension.
    pub inner: u64,
    /// An element of A.
    pub a: ElementType,
    /// Bit length of the largest magnitude in A (`int`).
    pub a_bits: u32,
    /// An element of B.
    pub b: ElementType,
    /// Bit length of the largest magnitude in B (`int`).
    pub b_bits: u32,
    /// An element of C.
    pub c: ElementType,
}

/// Why a tile can not be computed here. Its lease goes back; another device may succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskError {
    /// What was asked for makes no sense.
    Nonsense(String),
    /// It needs more memory than a worker may have.
    TooLarge {
        /// What it needs.
        bytes: usize,
    },
    /// The kernel refused.
    Kernel(KernelError),
}

impl std::fmt::Display for TaskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nonsense(what) => write!(f, "{what}"),
            Self::TooLarge { bytes } => {
                write!(
                    f,
                    "a tile of {bytes} bytes does not fit into {TASK_BYTES_MAX}"
                )
            }
            Self::Kernel(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for TaskError {}

impl From<KernelError> for TaskError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl TaskSpec {
    /// From the protocol's form.
    pub fn new(class: KernelClass, shape: &TileShape) -> Self {
        Self {
            class,
            rows: shape.rows,
            cols: shape.cols,
            inner: shape.inner,
            a: shape.a,
            a_bits: shape.a_bits,
            b: shape.b,
            b_bits: shape.b_bits,
            c: shape.c,
        }
    }

    /// The kernel's form.
    ///
    /// # Errors
    /// `Nonsense` for element types that do not belong together or sizes that no memory holds.
    pub fn kernel(&self) -> Result<TileSpec, TaskError> {
        if self.a.dtype != self.b.dtype || self.a.dtype != self.c.dtype {
            return Err(TaskError::Nonsense(
                "a tile of several element types".to_owned(),
            ));
        }
        let size = |what: &str, value: u64| {
            usize::try_from(value).map_err(|_| TaskError::Nonsense(format!("{what}: {value}")))
        };
        let class = match self.class {
            KernelClass::Any | KernelClass::Exact => Class::Any,
            KernelClass::Fused => Class::Fused,
            KernelClass::Separate => Class::Separate,
        };
        let element = match self.a.dtype {
            Dtype::F64 => Element::F64,
            Dtype::F32 => Element::F32,
            Dtype::Int => Element::Int {
                a_limbs: self.a.limbs,
                b_limbs: self.b.limbs,
                c_limbs: self.c.limbs,
                a_bits: self.a_bits,
                b_bits: self.b_bits,
            },
        };
        Ok(TileSpec {
            element,
            class,
            rows: size("rows", self.rows)?,
            cols: size("columns", self.cols)?,
            inner: size("inner dimension", self.inner)?,
        })
    }
}

/// Where a part of a block goes, in the kernel's words.
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

/// The tile of one compute worker, used again for one tile after the other.
#[derive(Debug, Default)]
pub struct Task {
    product: Option<TileProduct>,
}

impl Task {
    /// Starts a tile with C at zero; what was computed before is dropped, its buffers are reused.
    ///
    /// # Errors
    /// See [`TaskError`].
    pub fn begin(&mut self, spec: &TaskSpec) -> Result<(), TaskError> {
        let spec = spec.kernel()?;
        match &mut self.product {
            Some(product) => product.reset(spec)?,
            None => self.product = Some(TileProduct::new(spec)?),
        }
        Ok(())
    }

    /// Begins a slab of `depth` inner indices.
    ///
    /// # Errors
    /// `TooLarge` if it would need more than [`TASK_BYTES_MAX`]; the kernel's.
    pub fn begin_slab(&mut self, depth: usize) -> Result<(), TaskError> {
        let product = self.product()?;
        let bytes = product.spec().memory_bytes(depth);
        if bytes > TASK_BYTES_MAX {
            return Err(TaskError::TooLarge { bytes });
        }
        Ok(product.begin_slab(depth)?)
    }

    /// Puts a part of a block of A.
    ///
    /// # Errors
    /// The kernel's.
    pub fn put_a(&mut self, block: &[u8], placement: Placement) -> Result<(), TaskError> {
        Ok(self.product()?.put_a(block, placement)?)
    }

    /// Puts a part of a block of B.
    ///
    /// # Errors
    /// The kernel's.
    pub fn put_b(&mut self, block: &[u8], placement: Placement) -> Result<(), TaskError> {
        Ok(self.product()?.put_b(block, placement)?)
    }

    /// C += A·B over the slab: the call that is timed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn accumulate(&mut self) -> Result<(), TaskError> {
        Ok(self.product()?.accumulate()?)
    }

    /// The bytes of C.
    ///
    /// # Errors
    /// The kernel's.
    pub fn finish(&mut self) -> Result<Vec<u8>, TaskError> {
        Ok(self.product()?.finish()?)
    }

    fn product(&mut self) -> Result<&mut TileProduct, TaskError> {
        self.product
            .as_mut()
            .ok_or_else(|| TaskError::Nonsense("a slab before its tile".to_owned()))
    }
}
