//! Shares for the inner dimension in p parts: C = Σ A_i·B_i.
//!
//! With points β_1..β_p for the data and α_1..α_N for the devices, all different:
//!
//! ```text
//! f(x) = Σ_i A_i·l_i(x) + z(x)·Σ_t R_t·x^t          l_i(β_k) = [i = k],  z(x) = Π_i (x - β_i)
//! g(x) = Σ_i c_i·B_i·l_i(x) + z(x)·Σ_t S_t·x^t      0 <= t < T
//! ```
//!
//! Share j is f(α_j), g(α_j). The answers are values of h = f·g, of degree 2p + 2T - 2, and
//! h(β_i) = c_i·A_i·B_i. Any T values of z(x)·Σ R_t·x^t at the α_j are uniform, because the matrix of
//! z(α_j)·α_j^t is one of Vandermonde with rows scaled by numbers that are not 0.
//!
//! *All answers.* Let w(x) be the product of all x - β_i and x - α_j. Since h has a degree of at most
//! p + N - 2 for N = p + 2T, the sum of h(x)/w'(x) over all roots of w is 0 (it is the coefficient of degree
//! p + N - 1 of the polynomial of lower degree that goes through these values). With c_i = w'(β_i) this says
//!
//! ```text
//! Σ A_i·B_i = -Σ_j h(α_j)/w'(α_j)
//! ```
//!
//! so p + 2T answers are enough although h is not known then. (Makkonen, arXiv 2404.15080, gives
//! such schemes as orthogonal vectors of generalised Reed-Solomon codes.)
//!
//! *Any answers.* With c_i = 1, any 2p + 2T - 1 answers give h by interpolation, and C = Σ h(β_i).

use alloc::vec::Vec;

use super::linear::{add, multiply, power, subtract};
use super::{Code, Decoding, Field, Parameters};
use crate::matrix::KernelError;

/// The points of the data and those of the devices.
fn points(parts: usize, shares: usize, field: &Field) -> Result<(Vec<u32>, Vec<u32>), KernelError> {
    if parts + shares > field.prime() as usize {
        return Err(KernelError::Range {
            what: "number of points (limit: elements of the field)",
        });
    }
    let data = 0..parts as u32;
    let devices = parts as u32..(parts + shares) as u32;
    Ok((data.collect(), devices.collect()))
}

/// Π (x - root) over the roots that are not x.
fn derivative(field: &Field, x: u32, roots: impl Iterator<Item = u32>) -> u32 {
    roots.filter(|&root| root != x).fold(1, |product, root| {
        multiply(field, product, subtract(field, x, root))
    })
}

/// The value at x of the polynomial that is 1 at `nodes[i]` and 0 at all other nodes.
fn lagrange(field: &Field, nodes: &[u32], i: usize, x: u32) -> u32 {
    let others = || (0..nodes.len()).filter(|&k| k != i).map(|k| nodes[k]);
    let above = others().fold(1, |product, node| {
        multiply(field, product, subtract(field, x, node))
    });
    let below = derivative(field, nodes[i], others());
    multiply(field, above, field.invert(below))
}

/// The coefficients of one factor, blocks scaled by `scale`.
fn coefficients(
    field: &Field,
    data: &[u32],
    devices: &[u32],
    colluders: usize,
    scale: impl Fn(usize) -> u32,
) -> Vec<i16> {
    let mut all = Vec::with_capacity(devices.len() * (data.len() + colluders));
    for &x in devices {
        all.extend((0..data.len()).map(|i| {
            let basis = lagrange(field, data, i, x);
            field.canonical(multiply(field, scale(i), basis))
        }));
        let vanishing = derivative(field, x, data.iter().copied());
        all.extend((0..colluders).map(|t| {
            let mask = multiply(field, vanishing, power(field, x, t as u32));
            field.canonical(mask)
        }));
    }
    all
}

/// The code that needs all answers.
pub(super) fn all(
    parameters: Parameters,
    parts: usize,
    answers: usize,
    field: Field,
) -> Result<Code, KernelError> {
    let (data, devices) = points(parts, answers, &field)?;
    let at = |x| derivative(&field, x, data.iter().chain(&devices).copied());
    let t = parameters.colluders;
    let weights = devices.iter().map(|&x| {
        let weight = field.invert(at(x));
        field.canonical(field.prime() - weight)
    });
    Ok(Code {
        field,
        parameters,
        answers,
        shares: answers,
        left: coefficients(&field, &data, &devices, t, |_| 1),
        right: coefficients(&field, &data, &devices, t, |i| at(data[i])),
        decoding: Decoding::All(weights.collect()),
        every_set: true,
    })
}

/// The code that needs any answers of more.
pub(super) fn any(
    parameters: Parameters,
    parts: usize,
    answers: usize,
    field: Field,
) -> Result<Code, KernelError> {
    let shares = answers + parameters.spares;
    let (data, devices) = points(parts, shares, &field)?;
    let coefficients = coefficients(&field, &data, &devices, parameters.colluders, |_| 1);
    Ok(Code {
        field,
        parameters,
        answers,
        shares,
        left: coefficients.clone(),
        right: coefficients,
        decoding: Decoding::Sum {
            points: devices,
            data,
        },
        every_set: true,
    })
}

/// The weights of values at `points` in the sum of those at `data`.
pub(super) fn sum_of_values(field: &Field, points: &[u32], data: &[u32]) -> Vec<i16> {
    (0..points.len())
        .map(|j| {
            let weight = data
                .iter()
                .fold(0, |sum, &x| add(field, sum, lagrange(field, points, j, x)));
            field.canonical(weight)
        })
        .collect()
}
