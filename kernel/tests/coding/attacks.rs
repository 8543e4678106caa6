//! Attacks on the ± scheme as it is commonly written, with masks over the integers that are used again. Each
//! succeeds against that scheme and gains nothing against the shares of this crate.

use gemmesh_kernel::coding::{Code, Field, Scheme, Side, uniform};

use crate::{Draw, encode, field, parameters};

/// Entries of data are below this, masks below its square: they hide well, one at a time.
const DATA: u64 = 256;

/// Rows of secret data.
fn secret(draw: &mut Draw, rows: usize, cols: usize) -> Vec<Vec<i64>> {
    let row = |draw: &mut Draw| (0..cols).map(|_| draw.below(DATA) as i64).collect();
    (0..rows).map(|_| row(draw)).collect()
}

/// The naive scheme: row i becomes `row ± mask` over the integers, the mask one of a bank of `masks`.
struct Naive {
    plus: Vec<Vec<i64>>,
    minus: Vec<Vec<i64>>,
}

impl Naive {
    fn new(draw: &mut Draw, data: &[Vec<i64>], masks: usize) -> Self {
        let bank: Vec<Vec<i64>> = (0..masks)
            .map(|_| {
                data[0]
                    .iter()
                    .map(|_| draw.below(DATA.pow(2)) as i64)
                    .collect()
            })
            .collect();
        let (mut plus, mut minus) = (Vec::new(), Vec::new());
        for row in data {
            let mask = &bank[draw.below(masks as u64) as usize];
            plus.push(row.iter().zip(mask).map(|(x, m)| x + m).collect());
            minus.push(row.iter().zip(mask).map(|(x, m)| x - m).collect());
        }
        Self { plus, minus }
    }
}

/// What one device sees of rows that were shared here, each with fresh masks.
fn shared(modulus: Field, draw: &mut Draw, data: &[Vec<i64>], device: usize) -> Vec<Vec<i64>> {
    let code = Code::new(parameters(Scheme::InnerProduct { parts: 1 }, 1, 0), modulus).unwrap();
    let mut seen = Vec::new();
    for row in data {
        let row: Vec<i16> = row.iter().map(|&x| x as i16).collect();
        let mut mask = vec![0; row.len()];
        uniform::fill(&modulus, draw, &mut mask).unwrap();
        let shares = encode(&code, Side::Left, &[row], &[mask]);
        seen.push(shares[device].iter().map(|&x| i64::from(x)).collect());
    }
    seen
}

/// Pairs of rows whose shares differ so little in every place that their masks were the same.
fn same_mask(shares: &[Vec<i64>]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for i in 0..shares.len() {
        for j in 0..i {
            let differences = shares[i]
                .iter()
                .zip(&shares[j])
                .map(|(x, y)| (x - y).unsigned_abs());
            if differences.max() < Some(DATA) {
                pairs.push((i, j));
            }
        }
    }
    pairs
}

#[test]
fn who_gets_both_shares_of_the_naive_scheme_has_the_row() {
    let mut draw = Draw::new(20);
    let data = secret(&mut draw, 8, 16);
    let naive = Naive::new(&mut draw, &data, 8);
    for (row, (plus, minus)) in data.iter().zip(naive.plus.iter().zip(&naive.minus)) {
        let found: Vec<i64> = plus.iter().zip(minus).map(|(x, y)| (x + y) / 2).collect();
        assert_eq!(found, *row);
    }
    // Here the same formula, and every other one of two shares with small numbers, over all pairs that one device
    // sees of two products: right as often as a guess.
    let modulus = field(32_749);
    let (first, second) = (
        shared(modulus, &mut draw, &data, 0),
        shared(modulus, &mut draw, &data, 0),
    );
    let p = i64::from(modulus.prime());
    let mut hits = 0;
    let mut tries = 0;
    for (row, (x, y)) in data.iter().zip(first.iter().zip(&second)) {
        for u in -3..=3i64 {
            for v in -3..=3i64 {
                for (at, &entry) in row.iter().enumerate() {
                    hits += i32::from((u * x[at] + v * y[at] - entry).rem_euclid(p) == 0);
                    tries += 1;
                }
            }
        }
    }
    // Where u = v = 0 the guess is 0, which is right once in 256 times; otherwise once in 32,749.
    assert!(hits < 8 && tries > 6_000, "{hits} of {tries}");
}

#[test]
fn masks_that_are_used_again_give_differences_of_rows() {
    let mut draw = Draw::new(21);
    let data = secret(&mut draw, 2, 64);
    let naive = Naive::new(&mut draw, &data, 1);
    let difference = |rows: &[Vec<i64>]| -> Vec<i64> {
        rows[0].iter().zip(&rows[1]).map(|(x, y)| x - y).collect()
    };
    assert_eq!(difference(&naive.plus), difference(&data), "exactly");
    // Here the difference of two shares is right where chance makes it so.
    let modulus = field(32_749);
    let p = i64::from(modulus.prime());
    let data = secret(&mut draw, 2, 20_000);
    let seen = difference(&shared(modulus, &mut draw, &data, 0));
    let right = difference(&data)
        .iter()
        .zip(&seen)
        .filter(|(x, y)| (*x - *y).rem_euclid(p) == 0)
        .count();
    assert!(right < 8, "{right} of 20,000");
}

#[test]
fn a_bank_of_masks_opens_a_whole_matrix_to_one_device() {
    let mut draw = Draw::new(22);
    let data = secret(&mut draw, 100, 20);
    let naive = Naive::new(&mut draw, &data, 8);
    // Rows with the same mask are told by their small difference. One known row opens all of its group.
    let pairs = same_mask(&naive.plus);
    let mut known = vec![false; data.len()];
    let mut opened = 0;
    for start in 0..data.len() {
        if known[start] {
            continue;
        }
        known[start] = true;
        for &(i, j) in pairs.iter().filter(|&&(i, j)| i == start || j == start) {
            let other = if i == start { j } else { i };
            let found: Vec<i64> = (0..20)
                .map(|at| naive.plus[other][at] - naive.plus[start][at] + data[start][at])
                .collect();
            assert_eq!(found, data[other]);
            opened += usize::from(!known[other]);
            known[other] = true;
        }
    }
    assert_eq!(opened, data.len() - 8, "8 rows known, 92 found");
    // Here no two rows have the same masks, and none look as if they had.
    let seen = shared(field(32_749), &mut draw, &data, 0);
    assert_eq!(same_mask(&seen), []);
}

#[test]
fn masks_of_a_bank_span_few_dimensions_and_so_leave_rows_in_the_open() {
    // With M masks for n rows at least n - M combinations of rows have no mask at all.
    let mut draw = Draw::new(23);
    let (rows, masks) = (12, 4);
    let data = secret(&mut draw, rows, 30);
    let naive = Naive::new(&mut draw, &data, masks);
    let pairs = same_mask(&naive.plus);
    // Pairs make groups; each group of g rows gives g - 1 such combinations.
    let mut group: Vec<usize> = (0..rows).collect();
    for &(i, j) in &pairs {
        let (from, to) = (group[i].max(group[j]), group[i].min(group[j]));
        group
            .iter_mut()
            .filter(|g| **g == from)
            .for_each(|g| *g = to);
    }
    group.sort_unstable();
    group.dedup();
    assert!(group.len() <= masks);
}
