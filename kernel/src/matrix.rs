//! Views of matrices in slices, with any strides, and the error type of the crate.

use core::fmt;

use crate::gemm::Class;

/// What a call of this crate can refuse. Nothing here panics on bad sizes or bad bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// Two sizes that must agree do not, or a part reaches outside its matrix.
    Shape {
        /// Which size, in words.
        what: &'static str,
        /// The size (or the limit) that was needed.
        expected: usize,
        /// The size that was given.
        found: usize,
    },
    /// A size computed from the given shapes does not fit the address space (or 64 bits).
    Overflow {
        /// Which size, in words.
        what: &'static str,
    },
    /// The allocator refused this many bytes.
    OutOfMemory {
        /// The size of the refused buffer.
        bytes: usize,
    },
    /// No instance that runs here computes this class.
    Unsupported {
        /// The class that was asked for.
        class: Class,
    },
    /// An integer operand is larger than the spec says (`a_bits`, `b_bits`), or a modulus is no
    /// prime that the exact product can use.
    Range {
        /// Which value, in words.
        what: &'static str,
    },
    /// A slab, a product or a check was used before all of its parts were given.
    Incomplete {
        /// Which part, in words.
        what: &'static str,
    },
    /// The source of random numbers gave none.
    Entropy,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape {
                what,
                expected,
                found,
            } => {
                write!(f, "{what}: expected {expected}, found {found}")
            }
            Self::Overflow { what } => write!(f, "{what} is too large for this device"),
            Self::OutOfMemory { bytes } => write!(f, "no memory for {bytes} bytes"),
            Self::Unsupported { class } => {
                write!(f, "class {class:?} has no kernel on this device")
            }
            Self::Range { what } => write!(f, "{what} is out of range"),
            Self::Incomplete { what } => write!(f, "{what} is incomplete"),
            Self::Entropy => write!(f, "no random numbers from this device"),
        }
    }
}

impl core::error::Error for KernelError {}

/// `Err(Shape)` unless `found == expected`.
pub(crate) fn same(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found {
        Ok(())
    } else {
        Err(KernelError::Shape {
            what,
            expected,
            found,
        })
    }
}

/// `Err(Shape)` unless `found <= limit`.
pub(crate) fn within(what: &'static str, limit: usize, found: usize) -> Result<(), KernelError> {
    if found <= limit {
        Ok(())
    } else {
        Err(KernelError::Shape {
            what,
            expected: limit,
            found,
        })
    }
}

/// The product of sizes, or `Err(Overflow)`.
pub(crate) fn product(what: &'static str, factors: &[usize]) -> Result<usize, KernelError> {
    factors
        .iter()
        .try_fold(1usize, |product, &factor| product.checked_mul(factor))
        .ok_or(KernelError::Overflow { what })
}

/// Sets the length of `buffer` to `len`. Its elements are then `fill` or what was there before.
/// A buffer that is too small is given back first, so that two are never held. The allocator's
/// refusal is an error.
pub(crate) fn resize<T: Clone>(
    buffer: &mut alloc::vec::Vec<T>,
    len: usize,
    fill: T,
) -> Result<(), KernelError> {
    reserve(buffer, len)?;
    buffer.resize(len, fill);
    Ok(())
}

/// Makes room for `len` elements. A buffer that is too small is given back first, with what it holds.
/// The allocator's refusal is an error.
pub(crate) fn reserve<T>(buffer: &mut alloc::vec::Vec<T>, len: usize) -> Result<(), KernelError> {
    if len > buffer.capacity() {
        *buffer = alloc::vec::Vec::new();
        buffer
            .try_reserve_exact(len)
            .map_err(|_| KernelError::OutOfMemory {
                bytes: len.saturating_mul(size_of::<T>()),
            })?;
    }
    Ok(())
}

/// Appends to `buffer`; the allocator's refusal is an error.
pub(crate) fn push<T>(buffer: &mut alloc::vec::Vec<T>, value: T) -> Result<(), KernelError> {
    buffer
        .try_reserve(1)
        .map_err(|_| KernelError::OutOfMemory {
            bytes: (buffer.len() + 1).saturating_mul(size_of::<T>()),
        })?;
    buffer.push(value);
    Ok(())
}

/// The index of the last element of a `rows × cols` view, or an error if it is not in `len`.
fn check_extent(
    len: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
) -> Result<(), KernelError> {
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let needed = (rows - 1)
        .checked_mul(row_stride)
        .zip((cols - 1).checked_mul(col_stride))
        .and_then(|(down, across)| down.checked_add(across)?.checked_add(1))
        .ok_or(KernelError::Overflow {
            what: "extent of the view",
        })?;
    within("elements of the view (limit: the slice)", len, needed)
}

/// A read-only `rows × cols` view: element (i, j) is `data[i·row_stride + j·col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> MatRef<'a, T> {
    /// A view with strides in elements.
    ///
    /// # Errors
    /// `Shape` or `Overflow` if an element would lie outside `data`.
    pub fn new(
        data: &'a [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, KernelError> {
        check_extent(data.len(), rows, cols, row_stride, col_stride)?;
        Ok(Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        })
    }

    /// A view of rows that follow each other without gaps.
    ///
    /// # Errors
    /// `Shape` or `Overflow` if `data` is shorter than `rows·cols`.
    pub fn row_major(data: &'a [T], rows: usize, cols: usize) -> Result<Self, KernelError> {
        Self::new(data, rows, cols, cols, 1)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The distance in elements from a row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The distance in elements from a column to the next.
    pub fn col_stride(&self) -> usize {
        self.col_stride
    }

    /// The same elements with rows and columns exchanged; copies nothing.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// The `rows × cols` part that starts at (`row`, `col`).
    ///
    /// # Errors
    /// `Shape` if it reaches outside this view.
    pub fn part(
        self,
        row: usize,
        col: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Self, KernelError> {
        within("last row of the part", self.rows, row.saturating_add(rows))?;
        within(
            "last column of the part",
            self.cols,
            col.saturating_add(cols),
        )?;
        if rows == 0 || cols == 0 {
            return Ok(Self {
                data: &[],
                rows,
                cols,
                ..self
            });
        }
        let start = row * self.row_stride + col * self.col_stride;
        Ok(Self {
            data: &self.data[start..],
            rows,
            cols,
            ..self
        })
    }

    /// Row i where its elements are contiguous (or fewer than two).
    pub(crate) fn row(&self, i: usize) -> Option<&'a [T]> {
        if self.col_stride != 1 && self.cols > 1 || i >= self.rows {
            return None;
        }
        let start = if self.cols == 0 {
            0
        } else {
            i * self.row_stride
        };
        Some(&self.data[start..start + self.cols])
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }

    /// What the strides count in.
    pub(crate) fn data(&self) -> &'a [T] {
        self.data
    }
}

impl<T: Copy> MatRef<'_, T> {
    /// Element (i, j).
    ///
    /// # Panics
    /// If it lies outside the view.
    pub fn at(&self, i: usize, j: usize) -> T {
        assert!(
            i < self.rows && j < self.cols,
            "({i}, {j}) is outside the view"
        );
        self.data[i * self.row_stride + j * self.col_stride]
    }
}

/// A writable `rows × cols` view in which every element has a place of its own.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// A view with strides in elements.
    ///
    /// # Errors
    /// `Shape` or `Overflow` if an element would lie outside `data`, or if two elements would share
    /// a place.
    pub fn new(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self, KernelError> {
        check_extent(data.len(), rows, cols, row_stride, col_stride)?;
        if rows > 0 && cols > 0 {
            // The extent is checked, so these products do not overflow.
            let row_span = (cols - 1) * col_stride + 1;
            let col_span = (rows - 1) * row_stride + 1;
            let rows_apart = rows == 1 || row_stride >= row_span;
            let cols_apart = cols == 1 || col_stride >= col_span;
            let distinct = (rows_apart && (cols == 1 || col_stride > 0))
                || (cols_apart && (rows == 1 || row_stride > 0));
            if !distinct {
                return Err(KernelError::Shape {
                    what: "stride between rows that do not overlap",
                    expected: row_span,
                    found: row_stride,
                });
            }
        }
        Ok(Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        })
    }

    /// A view of rows that follow each other without gaps.
    ///
    /// # Errors
    /// `Shape` or `Overflow` if `data` is shorter than `rows·cols`.
    pub fn row_major(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self, KernelError> {
        Self::new(data, rows, cols, cols, 1)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The distance in elements from a row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The distance in elements from a column to the next.
    pub fn col_stride(&self) -> usize {
        self.col_stride
    }

    /// The same elements with rows and columns exchanged; copies nothing.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// The same view for a shorter time, so that it can be passed on and used again.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: self.col_stride,
        }
    }

    /// The same elements, read-only.
    pub fn as_ref(&self) -> MatRef<'_, T> {
        MatRef {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: self.col_stride,
        }
    }

    /// Calls `change` with every element, row by row.
    pub fn for_each(&mut self, mut change: impl FnMut(&mut T)) {
        for i in 0..self.rows {
            let start = i * self.row_stride;
            if self.cols == 0 {
                return;
            }
            // A single column may have any stride, also 0.
            if self.col_stride == 1 || self.cols == 1 {
                self.data[start..start + self.cols]
                    .iter_mut()
                    .for_each(&mut change);
            } else {
                self.data[start..]
                    .iter_mut()
                    .step_by(self.col_stride)
                    .take(self.cols)
                    .for_each(&mut change);
            }
        }
    }

    /// Calls `row` with each row where rows are contiguous, else `element` with each element.
    pub(crate) fn for_each_row(
        &mut self,
        mut row: impl FnMut(&mut [T]),
        element: impl FnMut(&mut T),
    ) {
        if self.col_stride != 1 && self.cols > 1 {
            return self.for_each(element);
        }
        for i in 0..if self.cols == 0 { 0 } else { self.rows } {
            row(&mut self.data[i * self.row_stride..][..self.cols]);
        }
    }

    /// Row i where its elements are contiguous (or fewer than two).
    pub(crate) fn row_mut(&mut self, i: usize) -> Option<&mut [T]> {
        if self.col_stride != 1 && self.cols > 1 || i >= self.rows {
            return None;
        }
        let start = if self.cols == 0 {
            0
        } else {
            i * self.row_stride
        };
        Some(&mut self.data[start..start + self.cols])
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }
}

impl<T: Copy> MatMut<'_, T> {
    /// Element (i, j).
    ///
    /// # Panics
    /// If it lies outside the view.
    pub fn at(&self, i: usize, j: usize) -> T {
        self.as_ref().at(i, j)
    }

    /// Writes element (i, j).
    ///
    /// # Panics
    /// If it lies outside the view.
    pub fn set(&mut self, i: usize, j: usize, value: T) {
        assert!(
            i < self.rows && j < self.cols,
            "({i}, {j}) is outside the view"
        );
        self.data[i * self.row_stride + j * self.col_stride] = value;
    }
}
