//! Integers go out as shares and come back as their product, whatever some of the devices answer.

use gemmesh_kernel::coding::share::{Check, Scratch, multiply};
use gemmesh_kernel::coding::whole::Whole;
use gemmesh_kernel::coding::{Parameters, Scheme, Side};
use gemmesh_kernel::exact::{output_bits, output_limbs};

use crate::{Draw, field, parameters, product};

/// Ways to answer wrongly.
const LIES: usize = 7;

fn lie(draw: &mut Draw, kind: usize, p: u32, answer: &mut [i16], cols: usize, another: &[i16]) {
    let half = (p / 2) as i16;
    let step = |x: i16| if x == half { -half } else { x + 1 };
    let back = |x: i16| if x == -half { half } else { x - 1 };
    match kind {
        // Numbers of its own.
        0 => answer.copy_from_slice(&draw.residues(p, answer.len())),
        // One entry.
        1 => answer[0] = step(answer[0]),
        // One row.
        2 => answer[..cols].iter_mut().for_each(|x| *x = step(*x)),
        // An opposite pair in a row.
        3 => {
            answer[0] = step(answer[0]);
            answer[1] = back(answer[1]);
        }
        // No residue, but congruent to the right one or not.
        4 => answer[0] = i16::MIN,
        // Another device's answer.
        5 => answer.copy_from_slice(another),
        // Nothing.
        _ => answer.fill(0),
    }
}

/// The product by shares, where some devices lie; each liar is found.
fn by_shares(
    whole: &mut Whole,
    parameters: &Parameters,
    (a, b): (&[u64], &[u64]),
    limbs: [usize; 2],
    liars: usize,
    draw: &mut Draw,
) -> Vec<u64> {
    let shape @ [rows, inner, cols] = whole.share_shape();
    let mut scratch = Scratch::new();
    let mut planes = Vec::new();
    let of_a = whole.residues(Side::Left, a, limbs[0]).unwrap();
    let of_b = whole.residues(Side::Right, b, limbs[0]).unwrap();
    for prime in 0..whole.codes().len() {
        let left = whole.encode(Side::Left, prime, &of_a[prime], draw).unwrap();
        let right = whole
            .encode(Side::Right, prime, &of_b[prime], draw)
            .unwrap();
        let code = &whole.codes()[prime];
        let field = *code.field();
        let right_ones: Vec<Vec<i16>> = left
            .iter()
            .zip(&right)
            .map(|(x, y)| {
                let mut c = vec![0; rows * cols];
                multiply(&field, x, y, shape, &mut c, &mut scratch).unwrap();
                c
            })
            .collect();
        let mut answers = right_ones.clone();
        for liar in 0..liars {
            let another = &right_ones[liar + 1];
            lie(
                draw,
                (liar + prime) % LIES,
                field.prime(),
                &mut answers[liar],
                cols,
                another,
            );
        }
        let mut good = Vec::new();
        for (number, answer) in answers.iter().enumerate() {
            let check = Check::new(field, &right[number], [inner, cols], draw).unwrap();
            let accepted = check.accepts(&left[number], answer, rows);
            assert_eq!(accepted, number >= liars, "{parameters:?}, answer {number}");
            if accepted {
                good.push((number, answer.as_slice()));
            }
        }
        // Those that come last are not waited for.
        let late = good.len() - code.answers();
        good.drain(..late);
        planes.push(whole.decode(prime, &good).unwrap());
    }
    let planes: Vec<&[i16]> = planes.iter().map(Vec::as_slice).collect();
    let mut c = vec![u64::MAX; planes[0].len() * limbs[1]];
    whole.integers(&planes, limbs[1], &mut c).unwrap();
    c
}

#[test]
fn integers_are_multiplied_exactly_while_devices_lie_and_fail() {
    let mut draw = Draw::new(40);
    for (scheme, colluders, spares, liars) in [
        (Scheme::InnerProduct { parts: 3 }, 1, 0, 0),
        (Scheme::InnerProduct { parts: 2 }, 2, 0, 0),
        (Scheme::InnerProductAny { parts: 3 }, 1, 3, 2),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 2,
                chain: 1,
            },
            1,
            2,
            2,
        ),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 3,
                chain: 2,
            },
            2,
            1,
            1,
        ),
    ] {
        let parameters = parameters(scheme, colluders, spares);
        for shape @ [rows, inner, cols] in [[1, 1, 6], [7, 10, 5], [33, 65, 18]] {
            let numbers = |draw: &mut Draw, len: usize| -> Vec<u64> {
                (0..len)
                    .map(|_| (draw.next() as i64 >> (draw.below(40) + 2)) as u64)
                    .collect()
            };
            let (a, b) = (
                numbers(&mut draw, rows * inner),
                numbers(&mut draw, inner * cols),
            );
            let bits = output_bits(62, 62, inner) - 1;
            let limbs = output_limbs(62, 62, inner);
            for prime_bits in [12, 15] {
                let mut whole = Whole::new(parameters, shape, bits, prime_bits).unwrap();
                let c = by_shares(
                    &mut whole,
                    &parameters,
                    (&a, &b),
                    [1, limbs],
                    liars,
                    &mut draw,
                );
                for (at, c) in c.chunks_exact(limbs).enumerate() {
                    let (i, j) = (at / cols, at % cols);
                    let sum: i128 = (0..inner)
                        .map(|k| {
                            i128::from(a[i * inner + k] as i64) * i128::from(b[k * cols + j] as i64)
                        })
                        .sum();
                    let high = c.get(1).copied().unwrap_or((c[0] as i64 >> 63) as u64);
                    assert_eq!((u128::from(high) << 64 | u128::from(c[0])) as i128, sum);
                }
            }
        }
    }
}

#[test]
fn a_share_is_multiplied_as_the_definition_says() {
    let mut draw = Draw::new(41);
    let mut scratch = Scratch::new();
    for p in [5, 2_053, 4_093, 16_411, 32_749] {
        for shape @ [rows, inner, cols] in [[1, 1, 1], [3, 1301, 5], [17, 40, 33], [70, 3, 150]] {
            let (a, b) = (
                draw.residues(p, rows * inner),
                draw.residues(p, inner * cols),
            );
            let mut c = vec![i16::MAX; rows * cols];
            multiply(&field(p), &a, &b, shape, &mut c, &mut scratch).unwrap();
            assert_eq!(c, product(p, &a, &b, shape));
        }
    }
    let mut c = [7];
    for bad in [[3], [-3], [i16::MIN], [i16::MAX]] {
        assert!(multiply(&field(5), &bad, &[1], [1; 3], &mut c, &mut scratch).is_err());
    }
    assert!(multiply(&field(5), &[1, 1], &[1], [1; 3], &mut c, &mut scratch).is_err());
}

#[test]
fn a_check_refuses_what_has_another_size() {
    let mut draw = Draw::new(42);
    let check = Check::new(field(4_093), &[1, 2, 3, 4], [2, 2], &mut draw).unwrap();
    assert!(check.accepts(&[1, 0], &[1, 2], 1));
    for (a, c, rows) in [
        (&[1, 0][..], &[1, 2, 0][..], 1),
        (&[1, 0, 0], &[1, 2], 1),
        (&[1, 0], &[1, 2], 2),
        (&[1, 0], &[1, 2], usize::MAX),
        (&[1, 0], &[1 + 4_093, 2], 1),
    ] {
        assert!(!check.accepts(a, c, rows));
    }
    assert!(Check::new(field(5), &[1], [2, 2], &mut draw).is_err());
    assert!(Check::new(field(5), &[3], [1, 1], &mut draw).is_err());
    assert!(
        !check.accepts(&[4_000, 0], &[4_000, 8_000], 1),
        "not canonical"
    );
}

#[test]
fn a_wrong_entry_passes_as_rarely_as_chance_in_one_vector_and_never_in_all() {
    // In a field of 5 a single vector would let every fifth error pass.
    let mut draw = Draw::new(43);
    for _ in 0..2_000 {
        let check = Check::new(field(5), &[1], [1, 1], &mut draw).unwrap();
        assert!(check.accepts(&[2], &[2], 1));
        assert!(!check.accepts(&[2], &[1], 1));
    }
}
