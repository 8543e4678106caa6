//! Any R answers give the product.

use gemmesh_kernel::KernelError;
use gemmesh_kernel::coding::masked::{Bank, Masks};
use gemmesh_kernel::coding::share::Scratch;
use gemmesh_kernel::coding::{Code, Scheme, Side};

use crate::{Draw, encode, every, field, parameters, product, views};

/// Sets of answers that are tried of one code at most.
const SETS: usize = 60;

fn random(draw: &mut Draw, p: u32, count: usize, len: usize) -> Vec<Vec<i16>> {
    (0..count).map(|_| draw.residues(p, len)).collect()
}

/// Blocks of C by the definition.
fn expected(code: &Code, a: &[Vec<i16>], b: &[Vec<i16>], shape: [usize; 3]) -> Vec<Vec<i16>> {
    let p = code.field().prime();
    let [rows, inner, cols] = code.parameters().cut();
    let mut blocks = Vec::new();
    for i in 0..rows {
        for l in 0..cols {
            let mut sum = vec![0; shape[0] * shape[2]];
            for k in 0..inner {
                let one = product(p, &a[i * inner + k], &b[k * cols + l], shape);
                for (sum, x) in sum.iter_mut().zip(one) {
                    // As a 1 × 2 by 2 × 1 product, to be canonical again.
                    let ones = [1, 1];
                    *sum = product(p, &[*sum, x], &ones, [1, 2, 1])[0];
                }
            }
            blocks.push(sum);
        }
    }
    blocks
}

fn check(code: &Code, shape: [usize; 3], draw: &mut Draw) {
    let p = code.field().prime();
    let [rows, inner, cols] = shape;
    let t = code.parameters().colluders;
    let a = random(draw, p, code.blocks(Side::Left), rows * inner);
    let b = random(draw, p, code.blocks(Side::Right), inner * cols);
    let left = encode(code, Side::Left, &a, &random(draw, p, t, rows * inner));
    let right = encode(code, Side::Right, &b, &random(draw, p, t, inner * cols));
    let answers: Vec<Vec<i16>> = left
        .iter()
        .zip(&right)
        .map(|(x, y)| product(p, x, y, shape))
        .collect();
    let expected = expected(code, &a, &b, shape);
    let (of, needed) = (code.shares(), code.answers());
    for set in sets(of, needed, draw) {
        let decoder = match code.decoder(&set) {
            Ok(decoder) => decoder,
            Err(KernelError::Range { .. }) if !code.every_set_decodes() => continue,
            Err(error) => panic!("{:?}, answers {set:?}: {error}", code.parameters()),
        };
        let chosen: Vec<Vec<i16>> = set.iter().map(|&answer| answers[answer].clone()).collect();
        let mut found = vec![vec![i16::MAX; rows * cols]; decoder.blocks()];
        let mut slices: Vec<&mut [i16]> = found.iter_mut().map(Vec::as_mut_slice).collect();
        decoder.decode(&views(&chosen), &mut slices).unwrap();
        assert_eq!(found, expected, "{:?}, answers {set:?}", code.parameters());
    }
}

/// All sets of answers if they are few, in any order; else the first ones, the last ones, and random ones.
fn sets(of: usize, needed: usize, draw: &mut Draw) -> Vec<Vec<usize>> {
    let mut sets = vec![
        (0..needed).collect(),
        (of - needed..of).rev().collect::<Vec<usize>>(),
    ];
    if of - needed == 1 {
        sets = (0..of)
            .map(|left_out| (0..of).filter(|&answer| answer != left_out).collect())
            .collect();
    } else if of > needed {
        while sets.len() < SETS {
            let mut places: Vec<usize> = (0..of).collect();
            for i in 0..needed {
                places.swap(i, i + draw.below((of - i) as u64) as usize);
            }
            places.truncate(needed);
            sets.push(places);
        }
    }
    sets
}

#[test]
fn every_code_of_up_to_20_shares_gives_the_product_from_any_answers() {
    let mut draw = Draw::new(1);
    let all = every(20, 4);
    assert!(all.len() > 1_000, "{}", all.len());
    let mut sampled = 0;
    for p in [32_749, 4_093] {
        let modulus = field(p);
        for &parameters in &all {
            let code = Code::new(parameters, modulus).unwrap_or_else(|error| {
                panic!("{parameters:?} modulo {p}: {error}");
            });
            sampled += usize::from(!code.every_set_decodes());
            check(&code, [1, 2, 1], &mut draw);
        }
    }
    assert!(sampled > 0, "codes with very many sets are among them");
}

#[test]
fn blocks_are_matrices() {
    let mut draw = Draw::new(2);
    for (scheme, colluders, spares) in [
        (Scheme::InnerProduct { parts: 3 }, 1, 0),
        (Scheme::InnerProduct { parts: 4 }, 2, 0),
        (Scheme::InnerProductAny { parts: 2 }, 2, 2),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 2,
                chain: 1,
            },
            1,
            1,
        ),
        (
            Scheme::Gasp {
                rows: 3,
                cols: 2,
                chain: 2,
            },
            2,
            1,
        ),
        (
            Scheme::Gasp {
                rows: 2,
                cols: 3,
                chain: 1,
            },
            2,
            0,
        ),
    ] {
        for p in [29, 16_411, 32_749] {
            let code = Code::new(parameters(scheme, colluders, spares), field(p)).unwrap();
            for shape in [[1, 1, 1], [3, 5, 4], [16, 70, 9]] {
                check(&code, shape, &mut draw);
            }
        }
    }
}

#[test]
fn the_smallest_fields_have_room_for_the_points() {
    // p parts and N devices need p + N points.
    for (parts, colluders, prime) in [(1, 1, 5), (2, 1, 7), (3, 1, 11), (1, 2, 7)] {
        let scheme = Scheme::InnerProduct { parts };
        let code = Code::new(parameters(scheme, colluders, 0), field(prime)).unwrap();
        check(&code, [2, 2, 2], &mut Draw::new(3));
    }
    let scheme = Scheme::InnerProduct { parts: 4 };
    assert!(Code::new(parameters(scheme, 1, 0), field(7)).is_err());
    // Points that are not 0, and whose answers decode.
    for (rows, cols, colluders, prime) in
        [(1, 1, 1, 5), (2, 2, 1, 11), (3, 2, 1, 17), (3, 3, 1, 23)]
    {
        let scheme = Scheme::Gasp {
            rows,
            cols,
            chain: 1,
        };
        let code = Code::new(parameters(scheme, colluders, 0), field(prime)).unwrap();
        check(&code, [2, 2, 2], &mut Draw::new(4));
    }
}

#[test]
fn what_is_no_code_is_refused() {
    let refused = |scheme, colluders, spares| {
        let parameters = parameters(scheme, colluders, spares);
        assert!(
            Code::new(parameters, field(32_749)).is_err(),
            "{parameters:?}"
        );
    };
    refused(Scheme::InnerProduct { parts: 0 }, 1, 0);
    refused(Scheme::InnerProduct { parts: 1 }, 0, 0);
    refused(Scheme::InnerProduct { parts: 1 }, 1, 1);
    refused(Scheme::InnerProduct { parts: 255 }, 1, 0);
    refused(Scheme::InnerProductAny { parts: usize::MAX }, 1, 0);
    refused(Scheme::InnerProductAny { parts: 1 }, usize::MAX, 0);
    refused(Scheme::InnerProductAny { parts: 1 }, 1, usize::MAX);
    refused(
        Scheme::Gasp {
            rows: 0,
            cols: 1,
            chain: 1,
        },
        1,
        0,
    );
    refused(
        Scheme::Gasp {
            rows: 2,
            cols: 2,
            chain: 0,
        },
        1,
        0,
    );
    refused(
        Scheme::Gasp {
            rows: 2,
            cols: 2,
            chain: 3,
        },
        3,
        0,
    );
    let scheme = Scheme::InnerProductAny { parts: 1 };
    let code = Code::new(parameters(scheme, 1, 2), field(32_749)).unwrap();
    for answers in [vec![0, 1], vec![0, 1, 1], vec![0, 1, 5], vec![0, 1, 2, 3]] {
        assert!(code.decoder(&answers).is_err(), "{answers:?}");
    }
    let block = [1];
    let mut shares = [[0]; 5];
    let mut slices: Vec<&mut [i16]> = shares.iter_mut().map(|x| &mut x[..]).collect();
    let no_masks = code.encode(Side::Left, &[&block], &[], &mut slices);
    assert!(no_masks.is_err());
}

#[test]
fn two_shares_and_the_product_of_their_masks_give_the_product() {
    let mut draw = Draw::new(5);
    let mut scratch = Scratch::new();
    for p in [5, 4_093, 32_749] {
        for shape @ [rows, inner, cols] in [[1, 1, 1], [5, 40, 3], [20, 7, 33]] {
            let (a, b) = (
                draw.residues(p, rows * inner),
                draw.residues(p, inner * cols),
            );
            let masks = Masks::draw(field(p), shape, &mut draw, &mut scratch).unwrap();
            let mut left = [vec![0; a.len()], vec![0; a.len()]];
            let mut right = [vec![0; b.len()], vec![0; b.len()]];
            let [l0, l1] = &mut left;
            let [r0, r1] = &mut right;
            let offset = masks.share(&a, &b, [l0, l1], [r0, r1]).unwrap();
            let plus = product(p, &left[0], &right[0], shape);
            let minus = product(p, &left[1], &right[1], shape);
            let mut c = vec![i16::MAX; rows * cols];
            offset.result(&plus, &minus, &mut c).unwrap();
            assert_eq!(c, product(p, &a, &b, shape));
        }
    }
}

#[test]
fn an_entry_of_the_bank_is_used_once() {
    let mut draw = Draw::new(6);
    let mut scratch = Scratch::new();
    let mut bank = Bank::new(field(32_749), [2, 3, 2], 2);
    assert!(bank.refill(&mut draw, &mut scratch).unwrap());
    assert!(bank.refill(&mut draw, &mut scratch).unwrap());
    assert!(!bank.refill(&mut draw, &mut scratch).unwrap(), "full");
    let mut seen = Vec::new();
    for taken in 0..5u64 {
        let masks = bank.take(&mut draw, &mut scratch).unwrap();
        assert_eq!(masks.shape(), [2, 3, 2]);
        assert_eq!(bank.drawn_late(), taken.saturating_sub(1));
        let (a, b) = ([0; 6], [0; 6]);
        let mut shares = [[0; 6]; 4];
        let [s0, s1, s2, s3] = &mut shares;
        masks.share(&a, &b, [s0, s1], [s2, s3]).unwrap();
        assert!(
            !seen.contains(&shares),
            "the masks themselves, since A and B are 0"
        );
        seen.push(shares);
    }
    assert!(bank.is_empty());
}
