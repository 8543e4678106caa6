//! Products in which a micro-tile would be mostly empty: a C of one column, and one step of k.

use crate::microkernel::{MAX_LANES, Vector};

/// [`Vector::square`] for `depth` steps of the first `rows` lanes, element by element.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn gathered<T: Copy + Default, V: Vector<T>>(
    mut sums: V,
    rows: usize,
    depth: usize,
    a: *const T,
    stride: usize,
    b: *const T,
    step: usize,
) -> V {
    const { assert!(V::LANES <= MAX_LANES) }
    let mut lanes = [T::default(); MAX_LANES];
    // SAFETY: the caller's guarantee; `lanes` holds a vector.
    unsafe {
        for p in 0..depth {
            for (i, lane) in lanes[..rows].iter_mut().enumerate() {
                *lane = *a.add(i * stride + p);
            }
            let column = V::load(lanes.as_ptr());
            sums = V::multiply_add(column, V::splat(*b.add(p * step)), sums);
        }
    }
    sums
}

/// `C (+)= A·B` for one column: `rows` × `depth` of A, whose rows are contiguous and `a_row` apart, into
/// elements of C that are `c_row` apart. Each element is the chain of
/// [`run`](crate::microkernel::run); lanes are rows of A.
///
/// # Safety
/// Those elements are readable and C's writable; the CPU has the instructions of `V`.
#[inline(always)]
pub(crate) unsafe fn column<T: Copy + Default, V: Vector<T>>(
    (rows, depth): (usize, usize),
    (a, a_row): (*const T, usize),
    (b, b_row): (*const T, usize),
    (c, c_row): (*mut T, usize),
    load: bool,
) {
    /// Vectors of rows at a time: their chains do not wait for each other.
    const SIDE: usize = 2;
    // A square whose rows each start a cache line reads each line once.
    let before = a.align_offset(V::LANES * size_of::<T>()).min(depth);
    let squares = (depth - before) / V::LANES;
    let after = before + squares * V::LANES;
    // SAFETY: every access is to row below `rows` and a step below `depth`; `lanes` holds a vector.
    unsafe {
        for first in (0..rows).step_by(SIDE * V::LANES) {
            let mut lanes = [[T::default(); MAX_LANES]; SIDE];
            let start: [usize; SIDE] = core::array::from_fn(|at| rows.min(first + at * V::LANES));
            let count: [usize; SIDE] = core::array::from_fn(|at| V::LANES.min(rows - start[at]));
            for at in 0..SIDE {
                for (i, lane) in lanes[at][..count[at]].iter_mut().enumerate() {
                    if load {
                        *lane = *c.add((start[at] + i) * c_row);
                    }
                }
            }
            let mut sums = [V::load(lanes[0].as_ptr()), V::load(lanes[1].as_ptr())];
            if count == [V::LANES; SIDE] {
                for at in 0..SIDE {
                    let a = a.add(start[at] * a_row);
                    sums[at] = gathered(sums[at], V::LANES, before, a, a_row, b, b_row);
                }
                let (left, right) = (a.add(start[0] * a_row), a.add(start[1] * a_row));
                for p in (before..after).step_by(V::LANES) {
                    let b = b.add(p * b_row);
                    sums[0] = sums[0].square(left.add(p), a_row, b, b_row);
                    sums[1] = sums[1].square(right.add(p), a_row, b, b_row);
                }
                let (rest, b) = (depth - after, b.wrapping_add(after * b_row));
                for at in 0..SIDE {
                    let a = a.wrapping_add(start[at] * a_row + after);
                    sums[at] = gathered(sums[at], V::LANES, rest, a, a_row, b, b_row);
                }
            } else {
                for at in 0..SIDE {
                    let a = a.wrapping_add(start[at] * a_row);
                    let mut done = 0;
                    if count[at] == V::LANES {
                        while depth - done >= V::LANES {
                            let b = b.add(done * b_row);
                            sums[at] = sums[at].square(a.add(done), a_row, b, b_row);
                            done += V::LANES;
                        }
                    }
                    let (a, b) = (a.wrapping_add(done), b.wrapping_add(done * b_row));
                    sums[at] = gathered(sums[at], count[at], depth - done, a, a_row, b, b_row);
                }
            }
            for at in 0..SIDE {
                sums[at].store(lanes[at].as_mut_ptr());
                for (i, lane) in lanes[at][..count[at]].iter().enumerate() {
                    *c.add((start[at] + i) * c_row) = *lane;
                }
            }
        }
    }
}

/// See [`column()`].
pub(crate) type Column<T> =
    unsafe fn((usize, usize), (*const T, usize), (*const T, usize), (*mut T, usize), bool);

/// `C (+)= a·b` for one step of k: `rows` elements of A, `a_row` apart, by `cols` contiguous ones of B into a C
/// whose rows are contiguous and `c_row` apart. Each element is the chain of
/// [`run`](crate::microkernel::run).
///
/// C is most of the memory that this touches, and is written a row at a time from end to end: tiles leave
/// and come back to a row before it has left the processor.
///
/// # Safety
/// Those elements are readable and C's writable; the CPU has the instructions of `V`.
#[inline(always)]
pub(crate) unsafe fn outer<T: Copy + Default, V: Vector<T>>(
    (rows, cols): (usize, usize),
    (a, a_row): (*const T, usize),
    b: *const T,
    (c, c_row): (*mut T, usize),
    load: bool,
) {
    const { assert!(V::LANES <= MAX_LANES) }
    let whole = cols / V::LANES * V::LANES;
    let rest = cols - whole;
    // SAFETY: every access is to a row below `rows` and a column below `cols`; the columns that fill no vector
    // go through `last` and `lanes`, which hold one.
    unsafe {
        let zero = V::splat(T::default());
        let mut last = [T::default(); MAX_LANES];
        for (j, lane) in last[..rest].iter_mut().enumerate() {
            *lane = *b.add(whole + j);
        }
        for i in 0..rows {
            let element = V::splat(*a.add(i * a_row));
            let row = c.add(i * c_row);
            for j in (0..whole).step_by(V::LANES) {
                let sum = if load { V::load(row.add(j)) } else { zero };
                V::multiply_add(element, V::load(b.add(j)), sum).store(row.add(j));
            }
            let mut lanes = [T::default(); MAX_LANES];
            for (j, lane) in lanes[..rest].iter_mut().enumerate() {
                if load {
                    *lane = *row.add(whole + j);
                }
            }
            let sum = V::load(lanes.as_ptr());
            V::multiply_add(element, V::load(last.as_ptr()), sum).store(lanes.as_mut_ptr());
            for (j, lane) in lanes[..rest].iter().enumerate() {
                *row.add(whole + j) = *lane;
            }
        }
    }
}

/// See [`outer()`].
pub(crate) type Outer<T> =
    unsafe fn((usize, usize), (*const T, usize), *const T, (*mut T, usize), bool);
