//! Matrices of the tests and the oracle that products are compared with. Written without the program's
//! own code.

use std::io::Cursor;

use npyz::WriterBuilder as _;
use num_bigint::BigInt;

/// A dense f64 matrix, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// The elements.
    pub data: Vec<f64>,
}

impl Matrix {
    /// A matrix of these rows.
    pub fn of<const N: usize>(rows: &[[f64; N]]) -> Self {
        Self {
            rows: rows.len(),
            cols: N,
            data: rows.concat(),
        }
    }

    /// Elements uniform in [-1, 1).
    pub fn random(rows: usize, cols: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let data = (0..rows * cols).map(|_| random.unit()).collect();
        Self { rows, cols, data }
    }

    /// Reads an `.npy` file of `f64`.
    ///
    /// # Panics
    /// When it is something else.
    pub fn from_npy(bytes: &[u8]) -> Self {
        let file = npyz::NpyFile::new(bytes).expect("an .npy file");
        let shape: Vec<usize> = file.shape().iter().map(|&n| n as usize).collect();
        let [rows, cols] = shape[..] else {
            panic!("two dimensions, not {shape:?}");
        };
        assert_eq!(file.order(), npyz::Order::C, "row-major");
        let data = file.into_vec().expect("elements of f64");
        Self { rows, cols, data }
    }

    /// As an `.npy` file.
    pub fn npy(&self) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let shape = [self.rows as u64, self.cols as u64];
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&shape)
            .writer(&mut bytes)
            .begin_nd()
            .expect("memory takes any bytes");
        writer.extend(&self.data).expect("memory takes any bytes");
        writer.finish().expect("memory takes any bytes");
        bytes.into_inner()
    }

    /// Element (i, j).
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.cols + j]
    }

    /// Sets element (i, j).
    pub fn set(&mut self, i: usize, j: usize, value: f64) {
        self.data[i * self.cols + j] = value;
    }

    /// Checks that this is `a`·`b`; see [`Matrix::product_fault`].
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_is_product(&self, a: &Matrix, b: &Matrix) {
        if let Some(fault) = self.product_fault(a, b) {
            panic!("{fault}");
        }
    }

    /// Why this is not `a`·`b`, if it is not: sampled rows element by element, and the whole by
    /// Freivalds' test with a real random vector (x_j in ±[0.5, 1.5]): |C·x − A·(B·x)| of each row
    /// must be within 4·(inner + cols)·2⁻⁵³·|A|·(|B|·|x|), far above what rounding can do and far
    /// below any wrong element. Cost: three products with a vector and eight rows.
    ///
    /// # Panics
    /// When the factors do not fit.
    pub fn product_fault(&self, a: &Matrix, b: &Matrix) -> Option<String> {
        assert_eq!(a.cols, b.rows, "the factors fit");
        if (self.rows, self.cols) != (a.rows, b.cols) {
            return Some(format!("it is {} × {}", self.rows, self.cols));
        }
        let mut random = Random(0x5eed ^ (self.data.len() as u64));
        let bound = 4.0 * (a.cols + b.cols) as f64 * f64::EPSILON / 2.0;

        let x: Vec<f64> = (0..b.cols)
            .map(|_| (1.0 + random.unit() / 2.0).copysign(random.unit()))
            .collect();
        let (bx, bx_abs) = b.times_vector(&x);
        let (abx, _) = a.times_vector(&bx);
        let (_, scale) = a.times_vector(&bx_abs);
        let (cx, _) = self.times_vector(&x);
        for i in 0..self.rows {
            let difference = (cx[i] - abx[i]).abs();
            // A NaN is not within anything.
            let within = difference <= bound * scale[i];
            if !within {
                return Some(format!(
                    "row {i} of the product is wrong: off by {difference:e}"
                ));
            }
        }

        for i in self.sampled_rows() {
            let (row, row_scale) = a.row_times(i, b);
            for j in 0..self.cols {
                let (got, wanted) = (self.at(i, j), row[j]);
                let within = (got - wanted).abs() <= bound * row_scale[j];
                if !within {
                    return Some(format!("element ({i}, {j}) is {got}, not {wanted}"));
                }
            }
        }
        None
    }

    /// Why sampled rows have not the very bits of `a`·`b` when each element is one chain over ascending
    /// k with two roundings for each product, if so.
    pub fn separate_fault(&self, a: &Matrix, b: &Matrix) -> Option<String> {
        for i in self.sampled_rows() {
            let (row, _) = a.row_times(i, b);
            for (j, wanted) in row.iter().enumerate() {
                let got = self.at(i, j);
                if got.to_bits() != wanted.to_bits() {
                    return Some(format!(
                        "element ({i}, {j}) is {got}, not bit for bit {wanted}"
                    ));
                }
            }
        }
        None
    }

    fn sampled_rows(&self) -> impl Iterator<Item = usize> {
        let (rows, samples) = (self.rows, self.rows.min(8));
        (0..samples)
            .map(move |sample| sample * (rows - 1) / samples.max(2).saturating_sub(1).max(1))
    }

    /// M·x, and |M|·|x|.
    fn times_vector(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let rows = self.data.chunks_exact(self.cols);
        rows.map(|row| {
            let products = row.iter().zip(x).map(|(a, b)| a * b);
            products.fold((0.0, 0.0), |(sum, scale), p| (sum + p, scale + p.abs()))
        })
        .unzip()
    }

    /// Row i of M·B, and of |M|·|B|.
    fn row_times(&self, i: usize, b: &Matrix) -> (Vec<f64>, Vec<f64>) {
        let (mut row, mut scale) = (vec![0.0; b.cols], vec![0.0; b.cols]);
        for k in 0..self.cols {
            let factor = self.at(i, k);
            for j in 0..b.cols {
                let product = factor * b.at(k, j);
                row[j] += product;
                scale[j] += product.abs();
            }
        }
        (row, scale)
    }
}

/// A product of integers of any size, by its definition.
pub fn integer_product(a: &[Vec<BigInt>], b: &[Vec<BigInt>]) -> Vec<Vec<BigInt>> {
    let cols = b[0].len();
    a.iter()
        .map(|row| {
            (0..cols)
                .map(|j| row.iter().zip(b).map(|(x, column)| x * &column[j]).sum())
                .collect()
        })
        .collect()
}

/// Integers as CSV.
pub fn integer_csv(rows: &[Vec<BigInt>]) -> String {
    let lines = rows.iter().map(|row| {
        let cells: Vec<String> = row.iter().map(BigInt::to_string).collect();
        cells.join(",") + "\n"
    });
    lines.collect()
}

/// CSV as integers.
///
/// # Panics
/// When it is something else.
pub fn integers_of_csv(text: &str) -> Vec<Vec<BigInt>> {
    let cell = |cell: &str| {
        cell.trim()
            .parse()
            .unwrap_or_else(|_| panic!("{cell:?} in {text}"))
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| line.split(',').map(cell).collect())
        .collect()
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// An integer of up to `bits` bits and a sign.
    pub fn integer(&mut self, bits: u32) -> BigInt {
        let mut value = BigInt::from(0);
        for _ in 0..bits.div_ceil(64) {
            value = (value << 64) + self.bits();
        }
        value >>= bits.div_ceil(64) * 64 - bits;
        if self.bits() & 1 == 1 { -value } else { value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_accepts_a_product_and_nothing_else() {
        let (a, b) = (Matrix::random(40, 30, 1), Matrix::random(30, 50, 2));
        let mut c = Matrix {
            rows: 40,
            cols: 50,
            data: (0..40).flat_map(|i| a.row_times(i, &b).0).collect(),
        };
        c.assert_is_product(&a, &b);
        for wrong in [1e-9, f64::NAN] {
            let place = 17 * 50 + 23;
            let right = c.data[place];
            c.data[place] += wrong;
            let found = std::panic::catch_unwind(|| c.assert_is_product(&a, &b));
            assert!(found.is_err(), "an error of {wrong} is found");
            c.data[place] = right;
        }
    }

    #[test]
    fn an_npy_file_reads_back() {
        let matrix = Matrix::random(3, 5, 3);
        assert_eq!(Matrix::from_npy(&matrix.npy()), matrix);
    }

    #[test]
    fn integers_read_back_from_csv() {
        let mut random = Random(4);
        let rows: Vec<Vec<BigInt>> = (0..3)
            .map(|_| (0..2).map(|_| random.integer(200)).collect())
            .collect();
        assert_eq!(integers_of_csv(&integer_csv(&rows)), rows);
    }
}
