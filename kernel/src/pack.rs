//! Packing: copies a block into the order in which the micro-kernel reads it.

use crate::microkernel::Vector;

/// Packs a block of `lanes × depth` elements into panels of `R` lanes.
///
/// For A the lanes are its rows (`R` = MR); for B they are its columns (`R` = NR).
/// Element (lane, p) of the block is `src[lane·lane_stride + p·depth_stride]`. Panel `q` holds lanes
/// `q·R .. q·R + R`:
///
/// ```text
/// dst[q·R·depth + p·R + l] = block(q·R + l, p)      l < R, p < depth; 0 beyond the last lane
/// ```
///
/// The zeros of an edge keep the micro-kernel free of cases; what it computes there is never stored.
///
/// # Safety
/// Every element of the block must be readable at `src` as above, and `dst` must have room for
/// `ceil(lanes / R)·R·depth` elements and not overlap the block.
#[inline(always)]
pub(crate) unsafe fn pack<T: Copy + Default, V: Vector<T>, const R: usize>(
    src: *const T,
    lane_stride: usize,
    depth_stride: usize,
    lanes: usize,
    depth: usize,
    dst: *mut T,
) {
    // SAFETY: every read is of an element of the block, and every write below
    // `ceil(lanes / R)·R·depth`; the caller guarantees both.
    unsafe {
        // Rows of the block that are contiguous are read from end to end, however many panels they
        // are cut into.
        let whole = if lane_stride == 1 { lanes / R * R } else { 0 };
        if whole > 0 {
            for p in 0..depth {
                let row = src.add(p * depth_stride);
                let ahead = row.wrapping_add(ROWS_AHEAD * depth_stride);
                for first in (0..whole).step_by(R) {
                    for lane in (0..R).step_by(LINE / size_of::<T>()) {
                        V::prefetch(ahead.wrapping_add(first + lane));
                    }
                    let from = row.add(first).cast::<[T; R]>();
                    let to = dst.add(first * depth + p * R).cast::<[T; R]>();
                    to.write_unaligned(from.read_unaligned());
                }
            }
        }
        for first in (whole..lanes).step_by(R) {
            let panel = dst.add(first * depth);
            let src = src.add(first * lane_stride);
            let count = R.min(lanes - first);
            let mut done = 0;
            if depth_stride == 1 && lane_stride != 1 {
                // Squares of SQUARE × SQUARE, so that both sides are read and written as vectors.
                done = count / SQUARE * SQUARE;
                for lane in (0..done).step_by(SQUARE) {
                    let (src, panel) = (src.add(lane * lane_stride), panel.add(lane));
                    let squares = depth / SQUARE * SQUARE;
                    for p in (0..squares).step_by(SQUARE) {
                        transpose::<T, R>(src.add(p), lane_stride, panel.add(p * R));
                    }
                    for p in squares..depth {
                        for l in 0..SQUARE {
                            *panel.add(p * R + l) = *src.add(l * lane_stride + p);
                        }
                    }
                }
            }
            if done == R {
                continue;
            }
            for p in 0..depth {
                for lane in done..count {
                    *panel.add(p * R + lane) = *src.add(lane * lane_stride + p * depth_stride);
                }
                for lane in count..R {
                    *panel.add(p * R + lane) = T::default();
                }
            }
        }
    }
}

/// A row is short and the next one far away, so that no hardware foresees it: this many rows further
/// down are asked for.
const ROWS_AHEAD: usize = 4;

/// Bytes of a cache line, as far as asking for one goes.
const LINE: usize = 64;

/// The edge of the squares that are transposed in registers.
const SQUARE: usize = 4;

/// `to[p·R + l] = src[l·stride + p]` for l, p < [`SQUARE`].
///
/// # Safety
/// Those elements are readable and writable.
#[inline(always)]
unsafe fn transpose<T: Copy, const R: usize>(src: *const T, stride: usize, to: *mut T) {
    // SAFETY: the caller's guarantee.
    unsafe {
        let rows: [[T; SQUARE]; SQUARE] =
            core::array::from_fn(|l| src.add(l * stride).cast::<[T; SQUARE]>().read_unaligned());
        let columns: [[T; SQUARE]; SQUARE] =
            core::array::from_fn(|p| core::array::from_fn(|l| rows[l][p]));
        for (p, column) in columns.into_iter().enumerate() {
            to.add(p * R).cast::<[T; SQUARE]>().write_unaligned(column);
        }
    }
}
