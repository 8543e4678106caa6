//! Tiles of residues and their check, against one naive loop.

use gemmesh_kernel::coding::{Field, residues};
use gemmesh_kernel::verify::{Probe, RowCheck, Verdict};
use gemmesh_kernel::{Class, Element, KernelError, Placement, TileProduct, TileSpec};
use proptest::prelude::*;

/// Elements of a matrix, each with a residue for each prime.
fn random(fields: &[Field], elements: usize, seed: &mut u64) -> Vec<i16> {
    let mut residue = |field: &Field| {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let p = i64::from(field.prime());
        // The largest ones often.
        match *seed >> 60 {
            0 => (p / 2) as i16,
            1 => (-p / 2) as i16,
            _ => ((*seed >> 20) as i64 % p - p / 2) as i16,
        }
    };
    (0..elements)
        .flat_map(|_| fields.iter().map(&mut residue).collect::<Vec<i16>>())
        .collect()
}

fn bytes(residues: &[i16]) -> Vec<u8> {
    residues.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn naive(fields: &[Field], a: &[i16], b: &[i16], [m, k, n]: [usize; 3]) -> Vec<i16> {
    let primes = fields.len();
    let mut c = Vec::new();
    for i in 0..m {
        for j in 0..n {
            for (q, field) in fields.iter().enumerate() {
                let p = i64::from(field.prime());
                let term = |l: usize| {
                    i64::from(a[(i * k + l) * primes + q]) * i64::from(b[(l * n + j) * primes + q])
                };
                let sum = (0..k).map(term).sum::<i64>().rem_euclid(p);
                c.push((if sum > p / 2 { sum - p } else { sum }) as i16);
            }
        }
    }
    c
}

fn spec(primes: usize, [rows, inner, cols]: [usize; 3]) -> TileSpec {
    TileSpec {
        element: Element::Residues {
            primes: primes as u16,
        },
        class: Class::Any,
        rows,
        cols,
        inner,
    }
}

/// The tile of A and B in slabs of `depth`.
fn tile(
    primes: usize,
    a: &[u8],
    b: &[u8],
    shape: [usize; 3],
    depth: usize,
) -> Result<Vec<u8>, KernelError> {
    let [m, k, n] = shape;
    let mut product = TileProduct::new(spec(primes, shape))?;
    for from in (0..k).step_by(depth) {
        let depth = depth.min(k - from);
        product.begin_slab(depth)?;
        let of_a = Placement {
            src_row_len: k,
            src_row: 0,
            src_col: from,
            rows: m,
            cols: depth,
            dst_row: 0,
            dst_col: 0,
        };
        let of_b = Placement {
            src_row_len: n,
            src_row: from,
            src_col: 0,
            rows: depth,
            cols: n,
            dst_row: 0,
            dst_col: 0,
        };
        product.put_a(a, of_a)?;
        product.put_b(b, of_b)?;
        product.accumulate()?;
    }
    product.finish()
}

fn verdict(primes: usize, a: &[u8], b: &[u8], c: &[u8], shape: [usize; 3], seed: u64) -> Verdict {
    let [m, k, n] = shape;
    let mut key = [7; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let element = spec(primes, shape).element;
    let mut probe = Probe::new(element, k, n, key).unwrap();
    probe.project_b(b, Placement::whole(k, n, 0, 0)).unwrap();
    assert!(!probe.second_pass());
    let mut check = RowCheck::new(&probe, m).unwrap();
    check.project_a(a, Placement::whole(m, k, 0, 0)).unwrap();
    check.verdict(c).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_tile_is_the_product_modulo_each_prime_and_a_lie_is_seen(
        m in 1usize..40, k in 1usize..700, n in 1usize..40, primes in 1usize..6, depth in 1usize..300,
        mut seed: u64, at: prop::sample::Index, off in 1i16..2_000,
    ) {
        let fields = residues::fields(primes).unwrap();
        let a = random(&fields, m * k, &mut seed);
        let b = random(&fields, k * n, &mut seed);
        let expected = naive(&fields, &a, &b, [m, k, n]);
        let (a, b) = (bytes(&a), bytes(&b));
        let c = tile(primes, &a, &b, [m, k, n], depth).unwrap();
        prop_assert!(c == bytes(&expected));
        prop_assert_eq!(verdict(primes, &a, &b, &c, [m, k, n], seed), Verdict::Accepted);

        let mut lie = expected.clone();
        let at = at.index(lie.len());
        let p = fields[at % primes].prime() as i16;
        // Another residue.
        lie[at] = if lie[at] + off % p > p / 2 { lie[at] + off % p - p } else { lie[at] + off % p };
        prop_assert_eq!(verdict(primes, &a, &b, &bytes(&lie), [m, k, n], seed), Verdict::Rejected);
        // The same residue in another form.
        lie[at] = if expected[at] > 0 { expected[at] - p } else { expected[at] + p };
        prop_assert_eq!(verdict(primes, &a, &b, &bytes(&lie), [m, k, n], seed), Verdict::Rejected);
        prop_assert_eq!(verdict(primes, &a, &b, &c[1..], [m, k, n], seed), Verdict::Rejected);
    }
}

#[test]
fn what_is_no_residue_is_refused() {
    let field = residues::fields(1).unwrap()[0];
    let most = (field.prime() / 2) as i16;
    for (x, right) in [
        (most, true),
        (-most, true),
        (most + 1, false),
        (i16::MIN, false),
    ] {
        let done = tile(1, &x.to_le_bytes(), &1i16.to_le_bytes(), [1; 3], 1);
        assert_eq!(done.is_ok(), right, "{x}: {done:?}");
    }
    for primes in [0, residues::FIELDS_MAX + 1] {
        assert!(TileProduct::new(spec(primes, [1; 3])).is_err(), "{primes}");
    }
    assert!(TileProduct::new(spec(residues::FIELDS_MAX, [1; 3])).is_ok());
}

#[test]
fn there_are_as_many_primes_as_large_results_need() {
    let primes = residues::fields(residues::FIELDS_MAX).unwrap();
    let bits: f64 = primes
        .iter()
        .map(|field| f64::from(field.prime()).log2())
        .sum();
    for (at, field) in primes.iter().enumerate() {
        assert!((1 << 10..1 << 12).contains(&field.prime()));
        assert!(
            primes[..at]
                .iter()
                .all(|before| before.prime() > field.prime())
        );
    }
    assert_eq!(residues::fields_for(bits as u32 - 2), Ok(primes.len()));
    assert!(residues::fields_for(bits as u32 + 2).is_err());
    // Products of 53 bits and a sum of 4,096 of them.
    assert_eq!(residues::fields_for(2 * 53 + 13), Ok(11));
}
