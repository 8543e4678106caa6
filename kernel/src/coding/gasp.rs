//! Gap additive secure polynomial codes: A's rows in K parts, B's columns in L, so that each block of C is
//! one product of parts.
//!
//! ```text
//! f(x) = Σ_i A_i·x^α_i + Σ_t R_t·x^α_(K+t)        g(x) = Σ_l B_l·x^β_l + Σ_t S_t·x^β_(L+t)
//! α = 0, 1, .., K - 1; the first T of K·L + K·j + s,  j = 0, 1, ..,  0 <= s < chain
//! β = 0, K, .., K·(L - 1); K·L, K·L + 1, .., K·L + T - 1
//! ```
//!
//! for K >= L; otherwise A and B change places. The degrees of f·g are the sums of an α and a β (the *degree
//! table*). Those of blocks, i + K·l, are below K·L and occur once each; all others are at least K·L.
//! So C's blocks are coefficients of f·g, and answers are needed for as many as there are different
//! sums.
//!
//! Source: D'Oliveira, El Rouayheb, Heinlein, Karpuk, *Degree Tables for Secure Distributed Matrix
//! Multiplication*, arXiv 2106.09816, the definition of GASP_r; chains of min(K, T) are GASP_big and chains of 1
//! GASP_small of arXiv 1812.09962.

use alloc::vec::Vec;

use super::linear::{Square, every_subset, power, subsets};
use super::{Code, Decoding, Field, Parameters};
use crate::matrix::{KernelError, push};
use crate::random::ChaCha;

/// The most sets of devices for which the independence of their shares is proved one by one.
const COLLUSIONS_MAX: u64 = 100_000;

/// Up to so many sets of answers each is tried; of more a sample.
const SETS_MAX: u64 = 2_000;

/// Sets of the sample.
const SAMPLE: usize = 200;

/// Choices of points that are tried.
const ATTEMPTS: u8 = 100;

/// α and β for K >= L.
fn degrees(k: usize, l: usize, t: usize, chain: usize) -> (Vec<u32>, Vec<u32>) {
    let (blocks, step) = (k * l, k);
    let alpha = (0..k).chain((0..t).map(|n| blocks + step * (n / chain) + n % chain));
    let beta = (0..l).map(|n| step * n).chain(blocks..blocks + t);
    (
        alpha.map(|d| d as u32).collect(),
        beta.map(|d| d as u32).collect(),
    )
}

/// The degrees of A's and of B's blocks and masks.
fn both(rows: usize, cols: usize, t: usize, chain: usize) -> (Vec<u32>, Vec<u32>) {
    if rows >= cols {
        return degrees(rows, cols, t, chain);
    }
    let (alpha, beta) = degrees(cols, rows, t, chain);
    (beta, alpha)
}

/// Degrees of f·g, those of blocks first.
fn sums(left: &[u32], right: &[u32], rows: usize, cols: usize) -> Result<Vec<u32>, KernelError> {
    let mut all = Vec::new();
    for i in &left[..rows] {
        for l in &right[..cols] {
            push(&mut all, i + l)?;
        }
    }
    let mut rest = Vec::new();
    for (i, x) in left.iter().enumerate() {
        for (l, y) in right.iter().enumerate() {
            if i >= rows || l >= cols {
                push(&mut rest, x + y)?;
            }
        }
    }
    rest.sort_unstable();
    rest.dedup();
    for degree in rest {
        push(&mut all, degree)?;
    }
    Ok(all)
}

/// R: the number of different degrees. For K, L, T and a chain from 1 to min(max(K, L), T).
pub(super) fn answers(
    rows: usize,
    cols: usize,
    t: usize,
    chain: usize,
) -> Result<usize, KernelError> {
    let (left, right) = both(rows, cols, t, chain);
    Ok(sums(&left, &right, rows, cols)?.len())
}

/// The length of chains for which the fewest answers are needed, and how many those are.
///
/// # Errors
/// As [`Parameters::answers`] for all chains.
pub fn shortest(rows: usize, cols: usize, colluders: usize) -> Result<(usize, usize), KernelError> {
    let mut best: Result<(usize, usize), KernelError> = Err(KernelError::Range {
        what: "parts of a shared product",
    });
    for chain in 1..=rows.max(cols).min(colluders) {
        let parameters = Parameters {
            scheme: super::Scheme::Gasp { rows, cols, chain },
            colluders,
            spares: 0,
        };
        let Ok(answers) = parameters.answers() else {
            continue;
        };
        // Of equals the longest chain: its masks need no search.
        if best.is_err() || best.is_ok_and(|(_, least)| answers <= least) {
            best = Ok((chain, answers));
        }
    }
    best
}

/// The code, if points are found.
pub(super) fn code(
    parameters: Parameters,
    (rows, cols, chain): (usize, usize, usize),
    answers: usize,
    field: Field,
) -> Result<Code, KernelError> {
    let t = parameters.colluders;
    let shares = answers + parameters.spares;
    let (left, right) = both(rows, cols, t, chain);
    let degrees = sums(&left, &right, rows, cols)?;
    // Masks of degrees that follow each other have coefficients of Vandermonde's form.
    let gaps = chain < rows.max(cols).min(t);
    if gaps && subsets(shares, t) > COLLUSIONS_MAX {
        return Err(KernelError::Range {
            what: "sets of colluders to check (longer chains need no check)",
        });
    }
    let long = if rows >= cols {
        &left[rows..]
    } else {
        &right[cols..]
    };
    let every_set = subsets(shares, answers) <= SETS_MAX;
    for attempt in 0..ATTEMPTS {
        let points = draw(shares, &field, attempt)?;
        let decodable = |chosen: &[usize], degrees: &[u32]| {
            let square = Square::new(chosen.len(), |row, col| {
                power(&field, points[chosen[row]], degrees[col])
            })?;
            Ok(square.regular(&field))
        };
        let private = !gaps || every_subset(shares, t, |chosen| decodable(chosen, long))?;
        if !private {
            continue;
        }
        let decodes = if every_set {
            every_subset(shares, answers, |chosen| decodable(chosen, &degrees))?
        } else {
            let mut random = ChaCha::new([attempt; 32]);
            let mut all = true;
            for _ in 0..SAMPLE {
                let chosen = sample(shares, answers, &mut random);
                all = all && decodable(&chosen, &degrees)?;
            }
            all
        };
        if !decodes {
            continue;
        }
        let evaluated = |degrees: &[u32]| {
            let one = |&x: &u32| {
                let at = move |&degree: &u32| field.canonical(power(&field, x, degree));
                degrees.iter().map(at).collect::<Vec<i16>>()
            };
            points.iter().flat_map(one).collect()
        };
        return Ok(Code {
            field,
            parameters,
            answers,
            shares,
            left: evaluated(&left),
            right: evaluated(&right),
            decoding: Decoding::Degrees {
                points,
                degrees,
                blocks: rows * cols,
            },
            every_set,
        });
    }
    Err(KernelError::Range {
        what: "field (too small for the points of this code)",
    })
}

/// Different points that are not 0: public, and the same everywhere.
fn draw(shares: usize, field: &Field, attempt: u8) -> Result<Vec<u32>, KernelError> {
    let most = u64::from(field.prime()) - 1;
    if shares as u64 > most {
        return Err(KernelError::Range {
            what: "number of points (limit: elements of the field)",
        });
    }
    let mut random = ChaCha::new([attempt.wrapping_add(1); 32]);
    let mut points = Vec::new();
    while points.len() < shares {
        let point = 1 + random.below(most) as u32;
        if !points.contains(&point) {
            push(&mut points, point)?;
        }
    }
    Ok(points)
}

/// `choose` different places out of `0..of`.
fn sample(of: usize, choose: usize, random: &mut ChaCha) -> Vec<usize> {
    let mut places: Vec<usize> = (0..of).collect();
    for i in 0..choose {
        places.swap(i, i + random.below((of - i) as u64) as usize);
    }
    places.truncate(choose);
    places
}

/// For each block of C the weights of the answers at these points.
pub(super) fn weights(
    field: &Field,
    points: &[u32],
    degrees: &[u32],
    blocks: usize,
) -> Result<Vec<i16>, KernelError> {
    let square = Square::new(points.len(), |row, col| {
        power(field, points[row], degrees[col])
    })?;
    let inverse = square.inverse(field)?.ok_or(KernelError::Range {
        what: "set of answers (it does not decode; take another one)",
    })?;
    let row = |block| inverse.row(block).iter().map(|&x| field.canonical(x));
    Ok((0..blocks).flat_map(row).collect())
}
