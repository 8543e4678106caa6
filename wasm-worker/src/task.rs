//! One tile for one compute worker: messages of the page in, bytes of C out. Pure, so that it is
//! tested on the host too.

use gemmesh_kernel::{Class, Element, KernelError, Placement, Stack, TileProduct, TileSpec};
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
    /// Rows of each product of a stack; 0 when the tile is of one product.
    pub each: u64,
    /// Rows of the stack's first product above the tile.
    pub skip: u64,
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
            each: shape.stack.map_or(0, |span| span.each),
            skip: shape.stack.map_or(0, |span| span.skip),
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
            Dtype::Residues => Element::Residues {
                primes: self.c.limbs,
            },
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

/// Bytes of a block, perhaps in memory that is not this module's.
pub trait Block {
    /// Their number.
    fn bytes(&self) -> usize;

    /// Copies those from `from` on; `to` does not reach past the last.
    fn read(&self, from: usize, to: &mut [u8]);
}

impl Block for [u8] {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn read(&self, from: usize, to: &mut [u8]) {
        to.copy_from_slice(&self[from..from + to.len()]);
    }
}

/// Bytes of a block that are read at a time, if an element is not larger.
const PIECE: usize = 64 << 10;

/// A or B.
type Put = fn(&mut TileProduct, &[u8], Placement) -> Result<(), KernelError>;

/// The tile of one compute worker, used again for one tile after the other.
#[derive(Debug, Default)]
pub struct Task {
    product: Option<TileProduct>,
    piece: Vec<u8>,
}

impl Task {
    /// Starts a tile with C at zero; what was computed before is dropped, its buffers are reused.
    ///
    /// # Errors
    /// See [`TaskError`].
    pub fn begin(&mut self, spec: &TaskSpec) -> Result<(), TaskError> {
        let stack = (spec.each > 0).then_some(Stack {
            each: spec.each as usize,
            skip: spec.skip as usize,
        });
        let product = self.product.get_or_insert_default();
        Ok(product.start(spec.kernel()?, stack)?)
    }

    /// Begins a slab of `depth` inner indices.
    ///
    /// # Errors
    /// `TooLarge` if it would need more than [`TASK_BYTES_MAX`]; the kernel's.
    pub fn begin_slab(&mut self, depth: usize) -> Result<(), TaskError> {
        let product = self.product()?;
        let bytes = product.memory_bytes(depth);
        if bytes > TASK_BYTES_MAX {
            return Err(TaskError::TooLarge { bytes });
        }
        Ok(product.begin_slab(depth)?)
    }

    /// Puts a part of a block of A.
    ///
    /// # Errors
    /// The kernel's.
    pub fn put_a<B: Block + ?Sized>(
        &mut self,
        block: &B,
        placement: Placement,
    ) -> Result<(), TaskError> {
        let [width, _, _] = self.product()?.spec().element.bytes();
        self.put(block, placement, width, TileProduct::put_a)
    }

    /// Puts a part of a block of B.
    ///
    /// # Errors
    /// The kernel's.
    pub fn put_b<B: Block + ?Sized>(
        &mut self,
        block: &B,
        placement: Placement,
    ) -> Result<(), TaskError> {
        let [_, width, _] = self.product()?.spec().element.bytes();
        self.put(block, placement, width, TileProduct::put_b)
    }

    /// Reads the part in pieces: as many rows of the block as a piece holds, or of a long row as many
    /// elements. Sums saturate: what is that large lies outside of the block, and the kernel says so.
    fn put<B: Block + ?Sized>(
        &mut self,
        block: &B,
        part: Placement,
        width: usize,
        put: Put,
    ) -> Result<(), TaskError> {
        let product = self.product.as_mut().ok_or_else(no_tile)?;
        let room = PIECE.max(width);
        if self.piece.len() < room {
            let missing = room - self.piece.len();
            let reserved = self.piece.try_reserve_exact(missing);
            reserved.map_err(|_| KernelError::OutOfMemory { bytes: room })?;
            self.piece.resize(room, 0);
        }
        let row_bytes = part.src_row_len.saturating_mul(width);
        let (rows, cols) = match room / row_bytes.max(1) {
            0 => (1, room / width),
            rows => (rows, part.cols.max(1)),
        };
        for row in (0..part.rows).step_by(rows) {
            for col in (0..part.cols).step_by(cols) {
                let rows = rows.min(part.rows - row);
                let cols = cols.min(part.cols - col);
                let src_row = part.src_row.saturating_add(row);
                let src_col = part.src_col.saturating_add(col);
                if src_col.saturating_add(cols) > part.src_row_len {
                    return Err(TaskError::Nonsense(
                        "a part wider than its block".to_owned(),
                    ));
                }
                let from = src_row
                    .saturating_mul(row_bytes)
                    .saturating_add(src_col.saturating_mul(width));
                let to = from.saturating_add((rows - 1) * row_bytes + cols * width);
                if to > block.bytes() {
                    return Err(TaskError::Nonsense(
                        "a part longer than its block".to_owned(),
                    ));
                }
                let piece = &mut self.piece[..to - from];
                block.read(from, piece);
                let placement = Placement {
                    src_row_len: if rows == 1 { cols } else { part.src_row_len },
                    src_row: 0,
                    src_col: 0,
                    rows,
                    cols,
                    dst_row: part.dst_row.saturating_add(row),
                    dst_col: part.dst_col.saturating_add(col),
                };
                put(product, piece, placement)?;
            }
        }
        Ok(())
    }

    /// C += A·B over the slab: the call that is timed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn accumulate(&mut self) -> Result<(), TaskError> {
        Ok(self.product()?.accumulate()?)
    }

    /// How many bytes C has.
    ///
    /// # Errors
    /// `Nonsense` before the first tile.
    pub fn result_bytes(&mut self) -> Result<usize, TaskError> {
        Ok(self.product()?.spec().result_bytes())
    }

    /// The bytes of C.
    ///
    /// # Errors
    /// The kernel's.
    pub fn finish(&mut self) -> Result<Vec<u8>, TaskError> {
        Ok(self.product()?.finish()?)
    }

    /// The bytes of C, one piece after the other.
    ///
    /// # Errors
    /// The kernel's.
    pub fn finish_into(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<(), TaskError> {
        Ok(self.product()?.finish_into(take)?)
    }

    fn product(&mut self) -> Result<&mut TileProduct, TaskError> {
        self.product.as_mut().ok_or_else(no_tile)
    }
}

fn no_tile() -> TaskError {
    TaskError::Nonsense("a slab before its tile".to_owned())
}
