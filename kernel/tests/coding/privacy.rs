//! What any T devices see does not depend on A and B.

use gemmesh_kernel::coding::masked::Masks;
use gemmesh_kernel::coding::share::Scratch;
use gemmesh_kernel::coding::{Code, Parameters, Scheme, Side, uniform};

use crate::{Draw, encode, every, field, parameters};

/// The field's elements, canonical.
fn elements(p: u32) -> impl Iterator<Item = i16> + Clone {
    let half = i64::from(p / 2);
    (-half..=half).map(|x| x as i16)
}

/// All vectors of `len` elements: for each place the values at it.
fn vectors(p: u32, len: usize) -> Vec<Vec<i16>> {
    let count = (p as usize).pow(len as u32);
    let all: Vec<i16> = elements(p).collect();
    (0..len)
        .map(|place| {
            let step = (p as usize).pow(place as u32);
            (0..count).map(|n| all[n / step % p as usize]).collect()
        })
        .collect()
}

/// For each input and each choice of masks all shares: `[share][input·masks + mask]`.
fn all_shares(code: &Code, side: Side) -> (Vec<Vec<i16>>, usize) {
    let p = code.field().prime();
    let (blocks, masks) = (code.blocks(side), code.parameters().colluders);
    let all = vectors(p, masks + blocks);
    let shares = encode(code, side, &all[masks..], &all[..masks]);
    (shares, (p as usize).pow(masks as u32))
}

/// Each set of `t` devices.
fn sets(of: usize, t: usize) -> Vec<Vec<usize>> {
    (0..1u32 << of)
        .filter(|set| set.count_ones() as usize == t)
        .map(|set| (0..of).filter(|&i| set >> i & 1 == 1).collect())
        .collect()
}

/// The number of what a set of devices sees of one factor.
fn view(shares: &[Vec<i16>], set: &[usize], at: usize, p: u32) -> usize {
    set.iter().fold(0, |view, &share| {
        view * p as usize + (i32::from(shares[share][at]) + (p / 2) as i32) as usize
    })
}

/// Whether, for each input, each possible view comes from exactly one choice of masks.
fn is_uniform(code: &Code, side: Side) -> bool {
    let p = code.field().prime();
    let (shares, masks) = all_shares(code, side);
    sets(code.shares(), code.parameters().colluders)
        .iter()
        .all(|set| {
            (0..shares[0].len()).step_by(masks).all(|input| {
                let mut seen = vec![false; masks];
                (0..masks).for_each(|mask| seen[view(&shares, set, input + mask, p)] = true);
                seen.iter().all(|&seen| seen)
            })
        })
}

#[test]
fn the_view_of_a_device_has_the_same_distribution_for_every_two_inputs() {
    // Both factors at once, counted: every A and B, every R and S, every device.
    for (scheme, p) in [
        (Scheme::InnerProduct { parts: 1 }, 5),
        (Scheme::InnerProduct { parts: 2 }, 7),
        (Scheme::InnerProductAny { parts: 1 }, 5),
        (
            Scheme::Gasp {
                rows: 1,
                cols: 1,
                chain: 1,
            },
            5,
        ),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 1,
                chain: 1,
            },
            7,
        ),
    ] {
        let code = Code::new(parameters(scheme, 1, 0), field(p)).unwrap();
        let (left, masks) = all_shares(&code, Side::Left);
        let (right, _) = all_shares(&code, Side::Right);
        for device in 0..code.shares() {
            let mut first: Option<Vec<u32>> = None;
            for a in (0..left[0].len()).step_by(masks) {
                for b in (0..right[0].len()).step_by(masks) {
                    let mut counts = vec![0; (p * p) as usize];
                    for r in 0..masks {
                        for s in 0..masks {
                            let of_a = view(&left, &[device], a + r, p);
                            let of_b = view(&right, &[device], b + s, p);
                            counts[of_a * p as usize + of_b] += 1;
                        }
                    }
                    let first = first.get_or_insert_with(|| counts.clone());
                    assert_eq!(*first, counts, "{scheme:?}, device {device}");
                }
            }
        }
    }
}

#[test]
fn views_of_sets_of_devices_are_uniform_for_every_input() {
    // The masks of the two factors are independent, so one at a time is enough.
    for (scheme, colluders, p) in [
        (Scheme::InnerProduct { parts: 1 }, 2, 7),
        (Scheme::InnerProduct { parts: 2 }, 2, 11),
        (Scheme::InnerProduct { parts: 1 }, 3, 11),
        (Scheme::InnerProductAny { parts: 1 }, 2, 7),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 2,
                chain: 1,
            },
            1,
            11,
        ),
        (
            Scheme::Gasp {
                rows: 1,
                cols: 1,
                chain: 1,
            },
            2,
            11,
        ),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 1,
                chain: 2,
            },
            2,
            17,
        ),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 1,
                chain: 1,
            },
            2,
            17,
        ),
    ] {
        let code = Code::new(parameters(scheme, colluders, 0), field(p)).unwrap();
        for side in [Side::Left, Side::Right] {
            assert!(
                is_uniform(&code, side),
                "{scheme:?}, {colluders} colluders, {side:?}"
            );
        }
    }
}

#[test]
fn one_device_more_than_allowed_would_learn_something() {
    // The test above can fail: with T + 1 devices it does.
    let code = Code::new(
        parameters(Scheme::InnerProduct { parts: 1 }, 1, 0),
        field(5),
    )
    .unwrap();
    let (shares, masks) = all_shares(&code, Side::Left);
    let views = |input: usize| -> Vec<usize> {
        (0..masks)
            .map(|mask| view(&shares, &[0, 1], input * masks + mask, 5))
            .collect()
    };
    assert!(views(0).iter().all(|seen| !views(1).contains(seen)));
}

/// Determinant modulo p, by expansion: a slow reference.
fn determinant(p: i64, rows: &[Vec<i64>]) -> i64 {
    let Some(first) = rows.first() else { return 1 };
    first.iter().enumerate().fold(0, |sum, (col, &x)| {
        let minor: Vec<Vec<i64>> = rows[1..]
            .iter()
            .map(|row| {
                let others = row.iter().enumerate().filter(|&(c, _)| c != col);
                others.map(|(_, &x)| x).collect()
            })
            .collect();
        let term = x * determinant(p, &minor) % p;
        (if col % 2 == 0 { sum + term } else { sum - term }).rem_euclid(p)
    })
}

#[test]
fn every_square_of_mask_coefficients_is_invertible_in_every_code_of_up_to_20_shares() {
    let p = 32_749;
    let mut checked = 0u64;
    for parameters in every(20, 3) {
        let Parameters { colluders: t, .. } = parameters;
        let code = Code::new(parameters, field(p)).unwrap();
        for side in [Side::Left, Side::Right] {
            let of_share = |share| -> Vec<i64> {
                let all = code.coefficients(side, share).unwrap();
                all[code.blocks(side)..]
                    .iter()
                    .map(|&x| i64::from(x))
                    .collect()
            };
            let rows: Vec<Vec<i64>> = (0..code.shares()).map(of_share).collect();
            let mut chosen: Vec<usize> = (0..t).collect();
            // Sets in steps, so that all pairs and many triples are seen of each.
            for first in 0..code.shares() {
                for step in 1..code.shares().div_ceil(t).max(2) {
                    for (i, place) in chosen.iter_mut().enumerate() {
                        *place = (first + i * step) % code.shares();
                    }
                    let mut sorted = chosen.clone();
                    sorted.sort_unstable();
                    sorted.dedup();
                    if sorted.len() == t {
                        let square: Vec<Vec<i64>> =
                            sorted.iter().map(|&i| rows[i].clone()).collect();
                        assert_ne!(
                            determinant(p.into(), &square),
                            0,
                            "{parameters:?} {sorted:?}"
                        );
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 100_000, "{checked}");
}

/// How far counts are from equal ones, in standard deviations of the chi-squared distribution.
fn unevenness(counts: &[u32]) -> f64 {
    let total: u32 = counts.iter().sum();
    let mean = f64::from(total) / counts.len() as f64;
    let chi: f64 = counts
        .iter()
        .map(|&n| (f64::from(n) - mean).powi(2) / mean)
        .sum();
    let freedom = (counts.len() - 1) as f64;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

fn bin(x: i16, p: u32, bins: usize) -> usize {
    ((i32::from(x) + (p / 2) as i32) as usize * bins) / p as usize
}

#[test]
fn in_the_real_field_shares_of_very_different_matrices_look_alike() {
    let p = 32_749;
    let len = 200_000;
    let modulus = field(p);
    let mut draw = Draw::new(10);
    let zero = vec![0; len];
    let small: Vec<i16> = (0..len).map(|_| draw.below(3) as i16).collect();
    let large = vec![(p / 2) as i16; len];
    for (scheme, colluders) in [
        (Scheme::InnerProduct { parts: 3 }, 1),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 2,
                chain: 1,
            },
            2,
        ),
    ] {
        let code = Code::new(parameters(scheme, colluders, 0), modulus).unwrap();
        for data in [&zero, &small, &large] {
            for side in [Side::Left, Side::Right] {
                let blocks = vec![data.clone(); code.blocks(side)];
                let mut masks = vec![vec![0; len]; colluders];
                for mask in &mut masks {
                    uniform::fill(&modulus, &mut draw, mask).unwrap();
                }
                let shares = encode(&code, side, &blocks, &masks);
                for set in sets(code.shares(), colluders) {
                    let bins: usize = if colluders == 1 { 64 } else { 16 };
                    let mut counts = vec![0; bins.pow(colluders as u32)];
                    let mut seen = vec![0; len];
                    for share in set.iter().map(|&share| &shares[share]) {
                        for (seen, &x) in seen.iter_mut().zip(share) {
                            *seen = *seen * bins + bin(x, p, bins);
                        }
                    }
                    seen.into_iter().for_each(|seen: usize| counts[seen] += 1);
                    let far = unevenness(&counts);
                    assert!(far.abs() < 6.0, "{scheme:?} {side:?} {set:?}: {far}");
                }
            }
        }
    }
}

#[test]
fn each_of_two_masked_shares_is_uniform_for_every_input() {
    // 3,000 products of 1 × 1 for each A and B, with the masks of a small field: each view about as often.
    let p = 5;
    let mut draw = Draw::new(11);
    let mut scratch = Scratch::new();
    for a in elements(p) {
        for b in elements(p) {
            let mut counts = [vec![0; 25], vec![0; 25]];
            for _ in 0..3_000 {
                let masks = Masks::draw(field(p), [1; 3], &mut draw, &mut scratch).unwrap();
                let mut shares = [[0]; 4];
                let [a0, a1, b0, b1] = &mut shares;
                masks.share(&[a], &[b], [a0, a1], [b0, b1]).unwrap();
                for (device, counts) in counts.iter_mut().enumerate() {
                    let of = |at: usize| (shares[at][0] + 2) as usize;
                    counts[5 * of(device) + of(2 + device)] += 1;
                }
            }
            for counts in &counts {
                assert!(unevenness(counts).abs() < 6.0, "{a} {b}: {counts:?}");
            }
        }
    }
}

#[test]
fn masks_are_uniform_in_the_field() {
    let mut draw = Draw::new(12);
    for p in [5, 7, 23] {
        let mut mask = vec![0; 50_000];
        uniform::fill(&field(p), &mut draw, &mut mask).unwrap();
        let mut counts = vec![0; p as usize];
        for x in mask {
            counts[(i32::from(x) + (p / 2) as i32) as usize] += 1;
        }
        assert!(unevenness(&counts).abs() < 6.0, "{counts:?}");
    }
    for p in [4_093, 16_411, 32_749] {
        let mut mask = vec![0; 50_001];
        uniform::fill(&field(p), &mut draw, &mut mask).unwrap();
        let mut counts = vec![0; 50];
        mask.iter().for_each(|&x| counts[bin(x, p, 50)] += 1);
        assert!(unevenness(&counts).abs() < 6.0, "{counts:?}");
    }
}

#[test]
fn without_entropy_there_are_no_masks() {
    struct Empty;
    impl uniform::Entropy for Empty {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), gemmesh_kernel::KernelError> {
            Err(gemmesh_kernel::KernelError::Entropy)
        }
    }
    let mut scratch = Scratch::new();
    assert!(Masks::draw(field(5), [1; 3], &mut Empty, &mut scratch).is_err());
}
