//! Two files of 2,000 × 2,000 random numbers, multiplied by all nodes and checked independently.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::mesh::Mesh;
use crate::{Outcome, show};

/// Rows and columns.
const SIZE: usize = 2_000;
/// The files are the same in each run.
const SEED: u64 = 2_000;
/// Rows that are computed again with three loops.
const ROWS_CHECKED: usize = 25;

/// Multiplies and checks; the number of nodes that computed.
pub fn run(mesh: &Mesh, dir: &Path) -> Outcome<usize> {
    let [file_a, file_b, file_c] = ["a.npy", "b.npy", "c.npy"].map(|name| dir.join(name));
    let mut random = Random(SEED);
    let a = random.matrix(SIZE);
    let b = random.matrix(SIZE);
    write_npy(&file_a, &a)?;
    write_npy(&file_b, &b)?;

    let status = mesh.multiply(&file_a, &file_b, &file_c)?;
    show::contributions(&status);
    let seconds = status["seconds"].as_f64().unwrap_or(f64::NAN);
    let gflops = 2.0 * (SIZE as f64).powi(3) / seconds / 1e9;
    show::line(&format!(
        "  {seconds:.2} s from submission to result, {gflops:.1} GFLOP/s together"
    ));

    let c = read_npy(&file_c)?;
    // The check must not be foreseeable: its seed is the time.
    let begun = Instant::now();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut random = Random(since.map_or(1, |time| time.as_nanos() as u64));
    let largest = check_rows(&a, &b, &c, SIZE, &mut random)?;
    check_vector(&a, &b, &c, SIZE, &mut random)?;
    show::line(&format!(
        "  checked: {ROWS_CHECKED} rows against three plain loops (largest difference {largest:.1e}), \
         and C·x = A·(B·x) for a random x, in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));

    let computed = |part: &&Value| part["tiles"].as_u64().is_some_and(|tiles| tiles > 0);
    let devices = status["contributions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(computed)
        .count();
    let operations: f64 = status["contributions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p["operations"].as_f64())
        .sum();
    if operations != 2.0 * (SIZE as f64).powi(3) {
        return Err(format!(
            "the contributions add up to {operations} operations instead of 2·{SIZE}³"
        ));
    }
    if devices < 2 {
        return Err("one node computed everything; the others had no part".to_owned());
    }
    Ok(devices)
}

/// Rows chosen at random, each element within the error bound of a sum of `size` products:
/// |fl(Σ) - Σ| ≤ γ·Σ|a·b| with γ = n·u/(1 - n·u) for either of the two sums. The largest
/// difference.
fn check_rows(a: &[f64], b: &[f64], c: &[f64], size: usize, random: &mut Random) -> Outcome<f64> {
    let bound = 2.0 * gamma(size);
    let mut largest = 0.0_f64;
    for _ in 0..ROWS_CHECKED.min(size) {
        let i = random.below(size);
        let (mut sums, mut sizes) = (vec![0.0; size], vec![0.0; size]);
        for k in 0..size {
            for j in 0..size {
                let product = a[i * size + k] * b[k * size + j];
                sums[j] += product;
                sizes[j] += product.abs();
            }
        }
        for j in 0..size {
            let difference = (c[i * size + j] - sums[j]).abs();
            if difference.is_nan() || difference > bound * sizes[j] {
                return Err(format!(
                    "C[{i}, {j}] is {} instead of {}",
                    c[i * size + j],
                    sums[j]
                ));
            }
            largest = largest.max(difference);
        }
    }
    Ok(largest)
}

/// C·x against A·(B·x) for a vector x of +1 and -1 (Freivalds 1979): a wrong element shows in its
/// row with a probability of at least 1/2, whatever it is, unless it is as small as rounding.
fn check_vector(a: &[f64], b: &[f64], c: &[f64], size: usize, random: &mut Random) -> Outcome<()> {
    let x: Vec<f64> = (0..size)
        .map(|_| if random.next() & 1 == 0 { 1.0 } else { -1.0 })
        .collect();
    let times = |matrix: &[f64], vector: &[f64]| -> Vec<f64> {
        matrix
            .chunks_exact(size)
            .map(|row| row.iter().zip(vector).map(|(m, v)| m * v).sum())
            .collect()
    };
    let sizes = |matrix: &[f64], vector: &[f64]| -> Vec<f64> {
        matrix
            .chunks_exact(size)
            .map(|row| row.iter().zip(vector).map(|(m, v)| (m * v).abs()).sum())
            .collect()
    };
    let ones = vec![1.0; size];
    let (left, right) = (times(c, &x), times(a, &times(b, &x)));
    let scale = sizes(a, &sizes(b, &ones));
    // Three sums of `size` terms are rounded on each way; all are bounded by |A|·|B|·|x|.
    let bound = 6.0 * gamma(size);
    for i in 0..size {
        let difference = (left[i] - right[i]).abs();
        if difference.is_nan() || difference > bound * scale[i] {
            return Err(format!(
                "row {i} of C does not pass the check with a random vector"
            ));
        }
    }
    Ok(())
}

fn gamma(terms: usize) -> f64 {
    let nu = terms as f64 * f64::EPSILON / 2.0;
    nu / (1.0 - nu)
}

/// The header of version 1.0 of the format and the numbers, row by row.
fn write_npy(path: &Path, numbers: &[f64]) -> Outcome<()> {
    let cannot = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut header =
        format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({SIZE}, {SIZE}), }}");
    // Magic, version and length are 10 bytes; the numbers start at a multiple of 64.
    let padding = (64 - (10 + header.len() + 1) % 64) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("the header is short");
    let mut file = BufWriter::new(File::create(path).map_err(cannot)?);
    file.write_all(b"\x93NUMPY\x01\x00").map_err(cannot)?;
    file.write_all(&length.to_le_bytes()).map_err(cannot)?;
    file.write_all(header.as_bytes()).map_err(cannot)?;
    for number in numbers {
        file.write_all(&number.to_le_bytes()).map_err(cannot)?;
    }
    file.flush().map_err(cannot)
}

fn read_npy(path: &Path) -> Outcome<Vec<f64>> {
    let cannot = |error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = fs::read(path).map_err(cannot)?;
    let file = npyz::NpyFile::new(&bytes[..]).map_err(cannot)?;
    if file.shape() != [SIZE as u64, SIZE as u64] || file.order() != npyz::Order::C {
        return Err(format!(
            "{} has the shape {:?}",
            path.display(),
            file.shape()
        ));
    }
    file.into_vec().map_err(cannot)
}

/// Steele, Lea and Flood 2014: SplitMix64, whose state may start anywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Numbers in -1..1.
    fn matrix(&mut self, size: usize) -> Vec<f64> {
        let unit = (1_u64 << 53) as f64;
        (0..size * size)
            .map(|_| 2.0 * (self.next() >> 11) as f64 / unit - 1.0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_element_is_found_and_a_right_product_passes() {
        const SIZE: usize = 24;
        let mut random = Random(1);
        let (a, b) = (random.matrix(SIZE), random.matrix(SIZE));
        let mut c = vec![0.0; SIZE * SIZE];
        // Another order of summation than the checks use.
        for i in 0..SIZE {
            for j in 0..SIZE {
                c[i * SIZE + j] = (0..SIZE)
                    .rev()
                    .map(|k| a[i * SIZE + k] * b[k * SIZE + j])
                    .sum();
            }
        }
        assert!(check_rows(&a, &b, &c, SIZE, &mut random).is_ok());
        assert!(check_vector(&a, &b, &c, SIZE, &mut random).is_ok());
        for wrong in [c[77] + 1e-9, f64::NAN, 0.0] {
            let mut c = c.clone();
            c[77] = wrong;
            assert!(
                check_vector(&a, &b, &c, SIZE, &mut random).is_err(),
                "{wrong}"
            );
            let found = (0..40).any(|_| check_rows(&a, &b, &c, SIZE, &mut random).is_err());
            assert!(found, "{wrong}");
        }
    }

    #[test]
    fn files_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let numbers = Random(2).matrix(SIZE);
        write_npy(&path, &numbers).unwrap();
        assert_eq!(read_npy(&path).unwrap(), numbers);
    }
}
