//! The floating-point side of [`crate::verify`].

use alloc::vec::Vec;

use super::Verdict;
use crate::arch::{prefetch, widest};
use crate::matrix::{KernelError, resize};
use crate::random::ChaCha;
use crate::tile::Placement;

/// Unit roundoff of the check's own arithmetic.
const UNIT: f64 = f64::EPSILON / 2.0;

/// Additions that a term passes through beyond one per element: the lanes are added up at the end of
/// a part, and parts are added to each other.
const EXTRA_TERMS: f64 = 16.0;

/// The smallest normal number of `f64`.
const TINY: f64 = f64::MIN_POSITIVE;

/// What the elements of a row of A or a column of B have: nothing special, an infinity, a NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Finite,
    Infinite,
    NotANumber,
}

impl Mark {
    fn of(x: f64) -> Self {
        if x.is_nan() {
            Self::NotANumber
        } else if x.is_infinite() {
            Self::Infinite
        } else {
            Self::Finite
        }
    }
}

#[derive(Debug)]
pub(super) struct Probe {
    /// The secret vector.
    x: Vec<f64>,
    /// y = B·x.
    y: Vec<f64>,
    /// |B||x|, and a little for underflow.
    z: Vec<f64>,
    /// Columns of B with a non-finite element.
    columns: Vec<Mark>,
    /// Whether such columns are in x.
    spoiled: bool,
}

impl Probe {
    pub(super) fn new(inner: usize, cols: usize, mut random: ChaCha) -> Result<Self, KernelError> {
        let mut probe = Self {
            x: Vec::new(),
            y: Vec::new(),
            z: Vec::new(),
            columns: Vec::new(),
            spoiled: false,
        };
        resize(&mut probe.x, cols, 0.0)?;
        resize(&mut probe.columns, cols, Mark::Finite)?;
        resize(&mut probe.y, inner, 0.0)?;
        resize(&mut probe.z, inner, 0.0)?;
        for x in &mut probe.x {
            let number = random.next();
            // 52 bits of fraction, one of sign.
            let magnitude = 0.5 + (number >> 12) as f64 * (1.0 / 4_503_599_627_370_496.0);
            *x = if number & 1 == 0 {
                magnitude
            } else {
                -magnitude
            };
        }
        probe.clear();
        Ok(probe)
    }

    fn clear(&mut self) {
        self.y.fill(0.0);
        // A product below the normal range is off by at most 2^-1074 = UNIT·TINY·2: with this in z,
        // the relative bound on y covers it.
        self.z
            .fill(2.0 * TINY * (self.x.len() as f64 + EXTRA_TERMS));
    }

    pub(super) fn exclude_columns(&mut self) -> bool {
        if !self.spoiled {
            return false;
        }
        for (x, &mark) in self.x.iter_mut().zip(&self.columns) {
            if mark != Mark::Finite {
                *x = 0.0;
            }
        }
        self.spoiled = false;
        self.clear();
        true
    }

    pub(super) fn project_b(
        &mut self,
        block: &[u8],
        placement: &Placement,
        extent: (usize, usize),
        element_bytes: usize,
    ) -> Result<(), KernelError> {
        let Self {
            x,
            y,
            z,
            columns,
            spoiled,
        } = self;
        placement.for_each_row(block, element_bytes, extent, |row, col, bytes| {
            let x = &x[col..col + placement.cols];
            let (sum, magnitude) = dot(bytes, element_bytes, x, None);
            if magnitude.is_finite() {
                y[row] += sum;
                z[row] += magnitude;
                return Ok(());
            }
            // A non-finite element, or finite ones that overflow: mark the first kind and leave them
            // out; the second kind leaves an infinite z, which makes rows undecided.
            for (j, element) in elements(bytes, element_bytes).enumerate() {
                let mark = Mark::of(element);
                if mark == Mark::Finite {
                    y[row] += element * x[j];
                    z[row] += element.abs() * x[j].abs();
                } else {
                    columns[col + j] = columns[col + j].max(mark);
                    *spoiled |= x[j] != 0.0;
                }
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
pub(super) struct Rows {
    /// v = A·y.
    v: Vec<f64>,
    /// |A||B||x|.
    w: Vec<f64>,
    marks: Vec<Mark>,
}

impl Rows {
    pub(super) fn new(rows: usize) -> Result<Self, KernelError> {
        let mut made = Self {
            v: Vec::new(),
            w: Vec::new(),
            marks: Vec::new(),
        };
        resize(&mut made.v, rows, 0.0)?;
        resize(&mut made.w, rows, 0.0)?;
        resize(&mut made.marks, rows, Mark::Finite)?;
        Ok(made)
    }

    pub(super) fn project_a(
        &mut self,
        probe: &Probe,
        block: &[u8],
        placement: &Placement,
        extent: (usize, usize),
        element_bytes: usize,
    ) -> Result<(), KernelError> {
        placement.for_each_row(block, element_bytes, extent, |row, col, bytes| {
            let y = &probe.y[col..col + placement.cols];
            let z = &probe.z[col..col + placement.cols];
            let (sum, magnitude) = dot(bytes, element_bytes, y, Some(z));
            self.v[row] += sum;
            self.w[row] += magnitude;
            if !magnitude.is_finite() {
                for element in elements(bytes, element_bytes) {
                    self.marks[row] = self.marks[row].max(Mark::of(element));
                }
            }
            Ok(())
        })
    }

    pub(super) fn verdict(
        &self,
        probe: &Probe,
        c_bytes: &[u8],
        row_bytes: usize,
        element_bytes: usize,
        inner: usize,
    ) -> Verdict {
        let bound = Bound::new(element_bytes, inner, probe.x.len());
        let columns_finite = probe.columns.iter().all(|&mark| mark == Mark::Finite);
        let mut verdict = Verdict::Accepted;
        for (i, bytes) in c_bytes.chunks_exact(row_bytes.max(1)).enumerate() {
            match self.row_verdict(i, probe, columns_finite, bytes, element_bytes, &bound) {
                Verdict::Accepted => {}
                Verdict::Undecided => verdict = Verdict::Undecided,
                Verdict::Rejected => return Verdict::Rejected,
            }
        }
        verdict
    }

    fn row_verdict(
        &self,
        i: usize,
        probe: &Probe,
        columns_finite: bool,
        bytes: &[u8],
        element_bytes: usize,
        bound: &Bound,
    ) -> Verdict {
        let (mark, w) = (self.marks[i], self.w[i]);
        let (sum, magnitude) = dot(bytes, element_bytes, &probe.x, None);
        if mark == Mark::Finite && !probe.spoiled && magnitude.is_finite() && w.is_finite() {
            // The usual row: everything is finite. (A column taken out by a second pass is not: it
            // has to have a non-finite C.) Written so that a NaN is a rejection.
            let limit = bound.of(magnitude, w);
            if !limit.is_finite() {
                return Verdict::Undecided;
            }
            return if columns_finite && (sum - self.v[i]).abs() <= limit {
                Verdict::Accepted
            } else {
                Verdict::Rejected
            };
        }
        // |x| >= 1/2, so no partial sum of any element exceeds this (and if it is in range, none
        // overflows). Written so that a NaN counts as possible.
        let most = w * (2.1 + 4.0 * bound.of_product) + bound.absolute;
        let no_overflow = most < bound.largest;
        let (mut sum, mut magnitude, mut complete) = (0.0, 0.0, true);
        for (j, c) in elements(bytes, element_bytes).enumerate() {
            let found = Mark::of(c);
            match mark.max(probe.columns[j]) {
                Mark::NotANumber if found == Mark::NotANumber => {}
                Mark::Infinite if found != Mark::Finite => complete = false,
                Mark::NotANumber | Mark::Infinite => return Verdict::Rejected,
                Mark::Finite if no_overflow && (c.is_nan() || c.abs() > most) => {
                    return Verdict::Rejected;
                }
                Mark::Finite if found == Mark::Finite => {
                    sum += c * probe.x[j];
                    magnitude += c.abs() * probe.x[j].abs();
                }
                Mark::Finite => return Verdict::Undecided,
            }
        }
        let limit = bound.of(magnitude, w);
        if mark == Mark::Finite && !probe.spoiled && limit.is_finite() {
            if (sum - self.v[i]).abs() <= limit {
                return if complete {
                    Verdict::Accepted
                } else {
                    Verdict::Undecided
                };
            }
            return Verdict::Rejected;
        }
        // With a NaN in the row of A every element was checked; else the finite ones were not.
        if mark == Mark::NotANumber {
            Verdict::Accepted
        } else {
            Verdict::Undecided
        }
    }
}

/// The bound of the module's documentation, without what depends on the row.
struct Bound {
    /// Factor of |C||x|.
    of_c: f64,
    /// Factor of |A||B||x|.
    of_product: f64,
    /// For underflow: of C's chains and of the check's own products.
    absolute: f64,
    /// The largest finite element.
    largest: f64,
}

impl Bound {
    fn new(element_bytes: usize, inner: usize, cols: usize) -> Self {
        let single = element_bytes == 4;
        let unit = if single {
            f64::from(f32::EPSILON) / 2.0
        } else {
            UNIT
        };
        let (inner, cols) = (inner as f64, cols as f64);
        let slack = 1.02;
        let smallest = if single {
            f64::from(f32::from_bits(1))
        } else {
            f64::from_bits(1)
        };
        let largest = if single {
            f64::from(f32::MAX)
        } else {
            f64::MAX
        };
        Self {
            of_c: slack * gamma(cols + EXTRA_TERMS, UNIT),
            of_product: slack
                * (gamma(inner + 1.0, unit)
                    + gamma(cols + EXTRA_TERMS, UNIT)
                    + gamma(inner + EXTRA_TERMS, UNIT)),
            // Each of `inner` steps of each of `cols` chains may lose `smallest`, times |x| <= 1.5.
            absolute: 2.0 * inner * cols * smallest
                + 16.0 * (inner + cols + 64.0) * f64::from_bits(1),
            largest,
        }
    }

    fn of(&self, magnitude_of_c: f64, magnitude_of_product: f64) -> f64 {
        self.of_c * magnitude_of_c + self.of_product * magnitude_of_product + self.absolute
    }
}

/// γ(n) = n·u/(1 − n·u); infinite where it says nothing.
fn gamma(n: f64, unit: f64) -> f64 {
    let share = n * unit;
    if share < 0.5 {
        share / (1.0 - share)
    } else {
        f64::INFINITY
    }
}

/// The elements of a part of a row, as `f64`.
fn elements(bytes: &[u8], element_bytes: usize) -> impl Iterator<Item = f64> {
    bytes.chunks_exact(element_bytes).map(move |bytes| {
        if element_bytes == 4 {
            bytes.as_chunks::<4>().0[0].wide()
        } else {
            bytes.as_chunks::<8>().0[0].wide()
        }
    })
}

/// The bytes of an element.
trait Bytes: Copy {
    /// The element, as `f64`.
    fn wide(self) -> f64;
}

impl Bytes for [u8; 4] {
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(f32::from_le_bytes(self))
    }
}

impl Bytes for [u8; 8] {
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from_le_bytes(self)
    }
}

/// (Σ e·x, Σ |e|·z) over the elements of a part; z is |x| if absent.
fn dot(bytes: &[u8], element_bytes: usize, x: &[f64], z: Option<&[f64]>) -> (f64, f64) {
    match (element_bytes, z) {
        (4, Some(z)) => dot_32_weighted(bytes.as_chunks().0, x, z),
        (4, None) => dot_32(bytes.as_chunks().0, x),
        (_, Some(z)) => dot_64_weighted(bytes.as_chunks().0, x, z),
        (_, None) => dot_64(bytes.as_chunks().0, x),
    }
}

widest! {
    fn dot_32(elements: &[[u8; 4]], x: &[f64]) -> (f64, f64) {
        lanes::<_, false>(elements, x, x)
    }
}
widest! {
    fn dot_32_weighted(elements: &[[u8; 4]], x: &[f64], z: &[f64]) -> (f64, f64) {
        lanes::<_, true>(elements, x, z)
    }
}
widest! {
    fn dot_64(elements: &[[u8; 8]], x: &[f64]) -> (f64, f64) {
        lanes::<_, false>(elements, x, x)
    }
}
widest! {
    fn dot_64_weighted(elements: &[[u8; 8]], x: &[f64], z: &[f64]) -> (f64, f64) {
        lanes::<_, true>(elements, x, z)
    }
}

/// Elements whose sums are kept apart: additions do not wait for each other. An element passes through
/// n / 32 additions and 6 more, which is at most n + [`EXTRA_TERMS`].
const LANES: usize = 32;

/// Bytes by which memory is asked for before it is read: the next row, which is another page.
const AHEAD: usize = 4096;

/// [`dot`]; the weight is |x| unless `WEIGHTED`.
#[inline(always)]
fn lanes<B: Bytes, const WEIGHTED: bool>(elements: &[B], x: &[f64], z: &[f64]) -> (f64, f64) {
    let (mut sums, mut magnitudes) = ([0.0; LANES], [0.0; LANES]);
    let (elements, elements_rest) = elements.as_chunks::<LANES>();
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (z, z_rest) = z.as_chunks::<LANES>();
    for ((elements, x), z) in elements.iter().zip(x).zip(z) {
        let ahead = elements.as_ptr().wrapping_byte_add(AHEAD);
        for at in (0..size_of_val(elements)).step_by(64) {
            prefetch(ahead.wrapping_byte_add(at));
        }
        // A loop that only converts, over one plain array: of that, compilers make vectors.
        let mut doubles = [0.0; LANES];
        for lane in 0..LANES {
            doubles[lane] = elements[lane].wide();
        }
        for lane in 0..LANES {
            let (product, magnitude) = terms::<WEIGHTED>(doubles[lane], x[lane], z[lane]);
            sums[lane] += product;
            magnitudes[lane] += magnitude;
        }
    }
    let rest = elements_rest.iter().zip(x_rest).zip(z_rest);
    for (lane, ((element, &x), &z)) in rest.enumerate() {
        let (product, magnitude) = terms::<WEIGHTED>(element.wide(), x, z);
        sums[lane] += product;
        magnitudes[lane] += magnitude;
    }
    (total(sums), total(magnitudes))
}

/// What an element adds to the two sums. |e·x|, rounded, is |e|·|x|, rounded.
#[inline(always)]
fn terms<const WEIGHTED: bool>(element: f64, x: f64, z: f64) -> (f64, f64) {
    let product = element * x;
    let magnitude = if WEIGHTED {
        element.abs() * z
    } else {
        product.abs()
    };
    (product, magnitude)
}

/// The sum of all lanes, as a tree: five additions deep.
#[inline(always)]
fn total(mut sums: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}
