//! Checked copies of parts of blocks, from little-endian bytes into a slab.

use crate::integer::all_fit;
use crate::matrix::{KernelError, product, within};

/// Where a part of a block goes. The block is row-major, and rows × cols of it are copied from
/// (src_row, src_col) to (dst_row, dst_col) of the slab of A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Placement {
    /// Elements in one row of the source block.
    pub src_row_len: usize,
    /// The first row to take from the block.
    pub src_row: usize,
    /// The first column to take from the block.
    pub src_col: usize,
    /// Rows to take.
    pub rows: usize,
    /// Columns to take.
    pub cols: usize,
    /// Where the first row goes: for A relative to the tile's rows, for B relative to the slab's k.
    pub dst_row: usize,
    /// Where the first column goes: for A relative to the slab's k, for B relative to the tile's
    /// columns.
    pub dst_col: usize,
}

impl Placement {
    /// All of a `rows × cols` block, placed at (dst_row, dst_col).
    pub fn whole(rows: usize, cols: usize, dst_row: usize, dst_col: usize) -> Self {
        Self {
            src_row_len: cols,
            src_row: 0,
            src_col: 0,
            rows,
            cols,
            dst_row,
            dst_col,
        }
    }

    /// Calls `row` for each row of the part with its destination (row, column) and its bytes.
    pub(crate) fn for_each_row(
        &self,
        block: &[u8],
        element_bytes: usize,
        (dst_rows, dst_cols): (usize, usize),
        mut row: impl FnMut(usize, usize, &[u8]) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let overflow = KernelError::Overflow {
            what: "part of a block",
        };
        let sum = |x: usize, y: usize| x.checked_add(y).ok_or(overflow);
        within(
            "last row of the part (limit: the slab's)",
            dst_rows,
            sum(self.dst_row, self.rows)?,
        )?;
        within(
            "last column of the part (limit: the slab's)",
            dst_cols,
            sum(self.dst_col, self.cols)?,
        )?;
        within(
            "last column of the part (limit: the block's)",
            self.src_row_len,
            sum(self.src_col, self.cols)?,
        )?;
        if self.rows == 0 || self.cols == 0 {
            return Ok(());
        }
        let row_bytes = product("row of a block", &[self.src_row_len, element_bytes])?;
        // The last byte that is read, so that a block may end with the part's last row.
        let last_row = product(
            "part of a block",
            &[sum(self.src_row, self.rows - 1)?, row_bytes],
        )?;
        let end = sum(last_row, (self.src_col + self.cols) * element_bytes)?;
        within("bytes of the part (limit: the block's)", block.len(), end)?;
        for i in 0..self.rows {
            let start = (self.src_row + i) * row_bytes + self.src_col * element_bytes;
            row(
                self.dst_row + i,
                self.dst_col,
                &block[start..start + self.cols * element_bytes],
            )?;
        }
        Ok(())
    }
}

/// Copies floats.
pub(super) fn copy<T: Store>(
    slab: &mut [T],
    block: &[u8],
    placement: Placement,
    extent: (usize, usize),
) -> Result<(), KernelError> {
    placement.for_each_row(block, T::BYTES, extent, |row, col, bytes| {
        let to = &mut slab[row * extent.1 + col..][..placement.cols];
        for (element, bytes) in to.iter_mut().zip(bytes.chunks_exact(T::BYTES)) {
            *element = T::read(bytes);
        }
        Ok(())
    })
}

const TOO_LARGE: KernelError = KernelError::Range {
    what: "an integer (more bits than the job says)",
};

/// Copies integers below 2^53 as floats.
pub(super) fn copy_small(
    slab: &mut [f64],
    block: &[u8],
    placement: Placement,
    extent: (usize, usize),
    limbs: usize,
    bits: u32,
) -> Result<(), KernelError> {
    placement.for_each_row(block, 8 * limbs, extent, |row, col, bytes| {
        let to = &mut slab[row * extent.1 + col..][..placement.cols];
        for (element, bytes) in to.iter_mut().zip(bytes.chunks_exact(8 * limbs)) {
            let low = u64::read(&bytes[..8]) as i64;
            let sign = if low < 0 { 0xff } else { 0 };
            if low.unsigned_abs() >> bits != 0 || bytes[8..].iter().any(|&byte| byte != sign) {
                return Err(TOO_LARGE);
            }
            *element = low as f64;
        }
        Ok(())
    })
}

/// Copies integers limb by limb.
pub(super) fn copy_limbs(
    slab: &mut [u64],
    block: &[u8],
    placement: Placement,
    extent: (usize, usize),
    limbs: usize,
    bits: u32,
) -> Result<(), KernelError> {
    placement.for_each_row(block, 8 * limbs, extent, |row, col, bytes| {
        let to = &mut slab[(row * extent.1 + col) * limbs..][..placement.cols * limbs];
        for (limb, bytes) in to.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = u64::read(bytes);
        }
        if all_fit(to, limbs, bits) {
            Ok(())
        } else {
            Err(TOO_LARGE)
        }
    })
}

/// A limb or a float: what slabs are made of.
pub(super) trait Store: Copy + Default {
    const BYTES: usize;
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! store {
    ($($scalar:ty),*) => {$(
        impl Store for $scalar {
            const BYTES: usize = size_of::<$scalar>();
            #[inline(always)]
            fn read(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$scalar>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }
        }
    )*};
}
store!(f64, f32, u64);
