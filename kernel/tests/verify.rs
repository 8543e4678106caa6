//! Checks of products: honest ones pass whatever computed them, lies do not.

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::gemm::matmul_with;
use gemmesh_kernel::verify::{Probe, RowCheck, Verdict};
use gemmesh_kernel::{
    Class, Element, KernelError, MatMut, MatRef, Placement, Scalar, TileProduct, TileSpec,
    Workspace, naive,
};
use proptest::prelude::*;

fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 11
}

/// The two float types, as bytes.
trait Float: Scalar {
    const ELEMENT: Element;
    const MAX: Self;
    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
    fn bytes(x: &[Self]) -> Vec<u8>;
    fn smallest() -> Self;
}

macro_rules! float {
    ($scalar:ty, $element:expr) => {
        impl Float for $scalar {
            const ELEMENT: Element = $element;
            const MAX: Self = <$scalar>::MAX;
            fn of(x: f64) -> Self {
                x as Self
            }
            fn wide(self) -> f64 {
                self.into()
            }
            fn bytes(x: &[Self]) -> Vec<u8> {
                x.iter().flat_map(|x| x.to_le_bytes()).collect()
            }
            fn smallest() -> Self {
                Self::from_bits(1)
            }
        }
    };
}
float!(f64, Element::F64);
float!(f32, Element::F32);

fn random<T: Float>(len: usize, state: &mut u64) -> Vec<T> {
    (0..len)
        .map(|_| T::of(next(state) as f64 / (1u64 << 52) as f64 - 1.0))
        .collect()
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    inner: usize,
    cols: usize,
}

impl Shape {
    /// All of B and A in blocks of 7 × 5 and the like, as a coordinator would stream them.
    fn blocks(rows: usize, cols: usize) -> impl Iterator<Item = Placement> {
        let (height, width) = (rows.div_ceil(3).max(1), cols.div_ceil(2).max(1));
        (0..rows).step_by(height).flat_map(move |row| {
            (0..cols).step_by(width).map(move |col| Placement {
                src_row_len: cols,
                src_row: row,
                src_col: col,
                rows: height.min(rows - row),
                cols: width.min(cols - col),
                dst_row: row,
                dst_col: col,
            })
        })
    }

    fn probe(self, element: Element, b: &[u8], seed: u8) -> Probe {
        let mut probe = Probe::new(element, self.inner, self.cols, [seed; 32]).unwrap();
        self.project(&mut probe, b);
        probe
    }

    fn project(self, probe: &mut Probe, b: &[u8]) {
        for block in Self::blocks(self.inner, self.cols) {
            probe.project_b(b, block).unwrap();
        }
    }

    fn check<'p>(self, probe: &'p Probe, a: &[u8]) -> RowCheck<&'p Probe> {
        let mut check = RowCheck::new(probe, self.rows).unwrap();
        for block in Self::blocks(self.rows, self.inner) {
            check.project_a(a, block).unwrap();
        }
        check
    }

    fn verdict(self, element: Element, a: &[u8], b: &[u8], c: &[u8]) -> Verdict {
        let probe = self.probe(element, b, 7);
        self.check(&probe, a).verdict(c).unwrap()
    }

    fn product<T: Float>(self, class: Class, a: &[T], b: &[T]) -> Vec<T> {
        let Self { rows, inner, cols } = self;
        let mut c = vec![T::ZERO; rows * cols];
        naive::matmul(
            class,
            false,
            MatRef::row_major(a, rows, inner).unwrap(),
            MatRef::row_major(b, inner, cols).unwrap(),
            MatMut::row_major(&mut c, rows, cols).unwrap(),
        )
        .unwrap();
        c
    }
}

fn honest_products_of_every_kernel<T: Float>() {
    let mut state = 4;
    let mut workspace = Workspace::new();
    for shape in [
        (1, 1, 1),
        (1, 900, 1),
        (5, 1, 7),
        (13, 17, 11),
        (64, 300, 33),
        (3, 2, 500),
    ] {
        let (rows, inner, cols) = shape;
        let shape = Shape { rows, inner, cols };
        for scale in [1.0, 1e-30, 1e15] {
            let (mut a, b) = (
                random::<T>(rows * inner, &mut state),
                random::<T>(inner * cols, &mut state),
            );
            a.iter_mut().for_each(|x| *x = T::of(x.wide() * scale));
            let probe = shape.probe(T::ELEMENT, &T::bytes(&b), 3);
            let (a_bytes, left) = (T::bytes(&a), MatRef::row_major(&a, rows, inner).unwrap());
            let check = shape.check(&probe, &a_bytes);
            for kernel in T::kernels() {
                let mut c = vec![T::ZERO; rows * cols];
                let right = MatRef::row_major(&b, inner, cols).unwrap();
                let out = MatMut::row_major(&mut c, rows, cols).unwrap();
                matmul_with(
                    kernel,
                    kernel.blocking(),
                    false,
                    left,
                    right,
                    out,
                    &mut workspace,
                )
                .unwrap();
                assert_eq!(
                    check.verdict(&T::bytes(&c)),
                    Ok(Verdict::Accepted),
                    "{shape:?} {}",
                    kernel.name()
                );
            }
        }
    }
}

#[test]
fn honest_products_of_every_kernel_are_accepted() {
    honest_products_of_every_kernel::<f64>();
    honest_products_of_every_kernel::<f32>();
}

#[test]
fn honest_products_are_accepted_where_they_underflow() {
    fn check<T: Float>() {
        let mut state = 8;
        let shape = Shape {
            rows: 9,
            inner: 40,
            cols: 12,
        };
        let root = T::smallest().wide().sqrt();
        for scale in [root * 0.3, root * 4.0, root * 1000.0] {
            let mut a = random::<T>(9 * 40, &mut state);
            let mut b = random::<T>(40 * 12, &mut state);
            a.iter_mut()
                .chain(&mut b)
                .for_each(|x| *x = T::of(x.wide() * scale));
            for class in [Class::Fused, Class::Separate] {
                let c = shape.product(class, &a, &b);
                let verdict =
                    shape.verdict(T::ELEMENT, &T::bytes(&a), &T::bytes(&b), &T::bytes(&c));
                assert_eq!(verdict, Verdict::Accepted, "scale {scale:e}");
            }
        }
    }
    check::<f64>();
    check::<f32>();
}

/// Six kinds of lies about a float product, on one tile.
fn lies<T: Float>(relative: f64) {
    let shape = Shape {
        rows: 24,
        inner: 100,
        cols: 30,
    };
    let mut state = 21;
    let (a, b) = (
        random::<T>(24 * 100, &mut state),
        random::<T>(100 * 30, &mut state),
    );
    let honest = shape.product(Class::Separate, &a, &b);
    let probe = shape.probe(T::ELEMENT, &T::bytes(&b), 9);
    let (a_bytes, other_row) = (T::bytes(&a), 5 * 30);
    let check = shape.check(&probe, &a_bytes);
    assert_eq!(check.verdict(&T::bytes(&honest)), Ok(Verdict::Accepted));
    let lie = |what: &str, change: &dyn Fn(&mut Vec<T>)| {
        let mut c = honest.clone();
        change(&mut c);
        assert_eq!(
            check.verdict(&T::bytes(&c)),
            Ok(Verdict::Rejected),
            "{what}"
        );
    };
    lie("one element a little off", &|c| {
        c[77] = T::of(c[77].wide() + relative)
    });
    lie("one element of another sign", &|c| {
        c[77] = T::of(-c[77].wide())
    });
    lie("two elements exchanged", &|c| c.swap(31, 32));
    lie("two rows exchanged", &|c| {
        (0..30).for_each(|j| c.swap(j, other_row + j))
    });
    lie("zeros", &|c| c.fill(T::ZERO));
    lie("scaled", &|c| {
        c.iter_mut()
            .for_each(|x| *x = T::of(x.wide() * (1.0 + relative)))
    });
    lie("an error that a vector of ones would not see", &|c| {
        (c[3], c[4]) = (
            T::of(c[3].wide() + 2.0 * relative),
            T::of(c[4].wide() - 0.01),
        );
    });
    lie("one NaN", &|c| c[719] = T::of(f64::NAN));
    lie("all NaN", &|c| c.fill(T::of(f64::NAN)));
    lie("one infinity", &|c| c[0] = T::of(f64::INFINITY));
    lie("the largest finite number", &|c| c[0] = T::MAX);
    lie("too short", &|c| {
        c.pop();
    });
    lie("too long", &|c| c.push(T::ZERO));
    lie("empty", &|c| c.clear());
    lie("of shorter k", &|c| {
        let (a, b): (Vec<T>, Vec<T>) = (
            a.chunks(100).flat_map(|row| row[..99].to_vec()).collect(),
            b[..99 * 30].to_vec(),
        );
        *c = Shape { inner: 99, ..shape }.product(Class::Separate, &a, &b);
    });
}

#[test]
fn lies_about_floats_are_rejected() {
    lies::<f64>(1e-10);
    lies::<f32>(2e-2);
}

/// A product of integers through the tile, so that the check is held against the real bytes.
fn integers(
    shape: Shape,
    limbs: usize,
    bits: u32,
    state: &mut u64,
) -> (Element, Vec<u8>, Vec<u8>, Vec<u8>) {
    let Shape { rows, inner, cols } = shape;
    let c_limbs = output_limbs(bits, bits, inner);
    let element = Element::Int {
        a_limbs: limbs as u16,
        b_limbs: limbs as u16,
        c_limbs: c_limbs as u16,
        a_bits: bits,
        b_bits: bits,
    };
    let mut operand = |len: usize| -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..len {
            let mut element: Vec<u64> = (0..limbs)
                .map(|_| next(state) << 13 ^ next(state))
                .collect();
            let top = limbs * 64 - bits as usize;
            let last = element.last_mut().unwrap();
            // `bits` bits of magnitude, either sign; the complement of an even x is -(x + 1).
            *last = last.checked_shr(top as u32).unwrap_or(0);
            element[0] &= !1;
            if next(state).is_multiple_of(2) {
                element.iter_mut().for_each(|limb| *limb = !*limb);
            }
            element
                .iter()
                .for_each(|limb| bytes.extend_from_slice(&limb.to_le_bytes()));
        }
        bytes
    };
    let (a, b) = (operand(rows * inner), operand(inner * cols));
    let mut tile = TileProduct::new(TileSpec {
        element,
        class: Class::Any,
        rows,
        cols,
        inner,
    })
    .unwrap();
    tile.begin_slab(inner).unwrap();
    tile.put_a(&a, Placement::whole(rows, inner, 0, 0)).unwrap();
    tile.put_b(&b, Placement::whole(inner, cols, 0, 0)).unwrap();
    tile.accumulate().unwrap();
    let c = tile.finish().unwrap();
    (element, a, b, c)
}

#[test]
fn honest_exact_products_are_accepted_and_lies_are_not() {
    let mut state = 17;
    for (limbs, bits) in [(1, 5), (1, 20), (1, 63), (2, 64), (2, 127), (9, 570)] {
        for (rows, inner, cols) in [(1, 1, 1), (4, 9, 5), (17, 33, 12)] {
            let shape = Shape { rows, inner, cols };
            let (element, a, b, c) = integers(shape, limbs, bits, &mut state);
            let probe = shape.probe(element, &b, 1);
            let check = shape.check(&probe, &a);
            assert_eq!(
                check.verdict(&c),
                Ok(Verdict::Accepted),
                "{shape:?} {bits} bits"
            );
            let [_, _, element_bytes] = element.bytes();
            let lie = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
                let mut lie = c.clone();
                change(&mut lie);
                assert_ne!(lie, c, "{what} changes something");
                assert_eq!(
                    check.verdict(&lie),
                    Ok(Verdict::Rejected),
                    "{what}: {shape:?} {bits} bits"
                );
            };
            lie("the lowest bit", &|c| c[0] ^= 1);
            lie("the highest bit", &|c| *c.last_mut().unwrap() ^= 0x80);
            lie("one bit in the middle", &|c| {
                let middle = c.len() / 2;
                c[middle] ^= 4;
            });
            lie("too short", &|c| c.truncate(c.len() - 1));
            lie("too long", &|c| c.push(0));
            lie("the complement", &|c| {
                c.iter_mut().for_each(|byte| *byte ^= 0xff)
            });
            if shape.cols > 1 && c[..element_bytes] != c[element_bytes..2 * element_bytes] {
                lie("two elements exchanged", &|c| {
                    c[..2 * element_bytes].rotate_left(element_bytes)
                });
            }
            // What a check modulo the well-known prime 2^61 − 1 would not see.
            lie("a known modulus added", &|c| {
                let low = u64::from_le_bytes(c[..8].try_into().unwrap());
                c[..8].copy_from_slice(&low.wrapping_add((1 << 61) - 1).to_le_bytes());
            });
        }
    }
}

/// A finite tile with one special element in A or B.
fn with_special(in_a: bool, special: f64) -> (Shape, Vec<u8>, Vec<u8>, Vec<f64>) {
    let shape = Shape {
        rows: 6,
        inner: 10,
        cols: 8,
    };
    let mut state = 31;
    let (mut a, mut b) = (random::<f64>(60, &mut state), random::<f64>(80, &mut state));
    if in_a {
        a[2 * 10 + 3] = special;
    } else {
        b[3 * 8 + 5] = special;
    }
    let c = shape.product(Class::Fused, &a, &b);
    (shape, f64::bytes(&a), f64::bytes(&b), c)
}

#[test]
fn non_finite_operands_are_carried_through_the_check() {
    for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for in_a in [true, false] {
            let (shape, a, b, c) = with_special(in_a, special);
            let mut probe = shape.probe(Element::F64, &b, 2);
            let first = shape.check(&probe, &a).verdict(&f64::bytes(&c)).unwrap();
            assert_eq!(probe.second_pass(), !in_a);
            if !in_a {
                assert_eq!(first, Verdict::Undecided, "the columns spoil each other");
                assert!(!probe.is_complete());
                shape.project(&mut probe, &b);
                assert!(!probe.second_pass());
            }
            let check = shape.check(&probe, &a);
            let decided = if special.is_nan() {
                Verdict::Accepted
            } else {
                Verdict::Undecided
            };
            assert_eq!(
                check.verdict(&f64::bytes(&c)),
                Ok(decided),
                "{special} in A: {in_a}"
            );
            // A finite number where none can be, and a NaN where there is none, are lies.
            for (at, value) in [
                (if in_a { 2 * 8 + 1 } else { 4 * 8 + 5 }, 1.0),
                (0, f64::NAN),
                (0, c[0] + 1e-6),
            ] {
                let mut lie = c.clone();
                lie[at] = value;
                assert_eq!(
                    check.verdict(&f64::bytes(&lie)),
                    Ok(Verdict::Rejected),
                    "{at}: {value}"
                );
            }
            if special.is_nan() {
                let mut lie = c.clone();
                lie[if in_a { 2 * 8 + 1 } else { 4 * 8 + 5 }] = f64::INFINITY;
                assert_eq!(check.verdict(&f64::bytes(&lie)), Ok(Verdict::Rejected));
            }
        }
    }
}

#[test]
fn products_that_overflow_are_not_rejected_and_their_other_rows_are_checked() {
    fn check<T: Float>() {
        let shape = Shape {
            rows: 4,
            inner: 6,
            cols: 5,
        };
        let mut state = 41;
        let (mut a, b) = (random::<T>(24, &mut state), random::<T>(30, &mut state));
        a[6..12].fill(T::MAX);
        for class in [Class::Fused, Class::Separate] {
            let c = shape.product(class, &a, &b);
            assert!(
                c[5..10].iter().any(|c| !c.wide().is_finite()),
                "the case is one"
            );
            let (a, b) = (T::bytes(&a), T::bytes(&b));
            assert_eq!(
                shape.verdict(T::ELEMENT, &a, &b, &T::bytes(&c)),
                Verdict::Undecided
            );
            for (at, value) in [(0, f64::INFINITY), (12, c[12].wide() + 0.1)] {
                let mut lie = c.clone();
                lie[at] = T::of(value);
                assert_eq!(
                    shape.verdict(T::ELEMENT, &a, &b, &T::bytes(&lie)),
                    Verdict::Rejected
                );
            }
        }
    }
    check::<f64>();
    check::<f32>();
}

#[test]
fn a_check_that_is_not_complete_is_an_error() {
    let shape = Shape {
        rows: 2,
        inner: 3,
        cols: 4,
    };
    let mut probe = Probe::new(Element::F64, 3, 4, [0; 32]).unwrap();
    assert!(matches!(
        RowCheck::new(&probe, 2),
        Err(KernelError::Incomplete { .. })
    ));
    let block = [0; 3 * 4 * 8];
    assert!(matches!(
        probe.project_b(&block, Placement::whole(4, 4, 0, 0)),
        Err(KernelError::Shape { .. })
    ));
    assert!(matches!(
        probe.project_b(&block[1..], Placement::whole(3, 4, 0, 0)),
        Err(KernelError::Shape { .. })
    ));
    shape.project(&mut probe, &block);
    let mut check = RowCheck::new(&probe, 2).unwrap();
    assert!(matches!(
        check.verdict(&[0; 64]),
        Err(KernelError::Incomplete { .. })
    ));
    assert!(matches!(
        check.project_a(&block, Placement::whole(2, 4, 0, 0)),
        Err(KernelError::Shape { .. })
    ));
    check
        .project_a(&block, Placement::whole(2, 3, 0, 0))
        .unwrap();
    assert_eq!(check.verdict(&[0; 64]), Ok(Verdict::Accepted));
}

/// How many honest products are checked: by hand `HONEST_PRODUCTS=100000 cargo test --release`.
fn honest_products() -> u64 {
    let asked = std::env::var("HONEST_PRODUCTS");
    asked.ok().and_then(|n| n.parse().ok()).unwrap_or(3_000)
}

/// Random shapes, magnitudes and secrets; every kernel in turn.
fn many_honest_products<T: Float>(count: u64) {
    let kernels: Vec<_> = T::kernels().collect();
    let mut workspace = Workspace::new();
    let mut state = 77;
    for turn in 0..count {
        let mut size = |most: u64| 1 + (next(&mut state) % most) as usize;
        let shape = match turn % 8 {
            0 => (1, size(400), size(4)),
            1 => (size(4), size(4), size(400)),
            2 => (size(60), size(60), size(60)),
            _ => (size(20), size(20), size(20)),
        };
        let (rows, inner, cols) = shape;
        let (mut a, b) = (
            random::<T>(rows * inner, &mut state),
            random::<T>(inner * cols, &mut state),
        );
        // Rows of very different magnitudes, and sums that cancel.
        for (i, x) in a.iter_mut().enumerate() {
            let scale = 2f64.powi((i / inner * 7 % 41) as i32 - 20);
            let sign = if turn % 3 == 0 && i % 2 == 1 {
                -1.0
            } else {
                1.0
            };
            *x = T::of(x.wide() * scale * sign);
        }
        let kernel = &kernels[turn as usize % kernels.len()];
        let mut c = vec![T::ZERO; rows * cols];
        matmul_with(
            kernel,
            kernel.blocking(),
            false,
            MatRef::row_major(&a, rows, inner).unwrap(),
            MatRef::row_major(&b, inner, cols).unwrap(),
            MatMut::row_major(&mut c, rows, cols).unwrap(),
            &mut workspace,
        )
        .unwrap();
        let shape = Shape { rows, inner, cols };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&next(&mut state).to_le_bytes());
        let mut probe = Probe::new(T::ELEMENT, inner, cols, seed).unwrap();
        shape.project(&mut probe, &T::bytes(&b));
        assert_eq!(
            shape.check(&probe, &T::bytes(&a)).verdict(&T::bytes(&c)),
            Ok(Verdict::Accepted),
            "turn {turn}, {shape:?}, {}",
            kernel.name()
        );
    }
}

#[test]
fn no_honest_product_among_many_is_rejected() {
    println!("{} of each type", honest_products());
    many_honest_products::<f64>(honest_products());
    many_honest_products::<f32>(honest_products());
}

/// One tile with many secrets: how often a change is seen.
fn seen(shape: Shape, trials: u64, change: impl Fn(u64, &mut Vec<f64>)) -> u64 {
    let mut state = 51;
    let Shape { rows, inner, cols } = shape;
    let (a, b) = (
        random::<f64>(rows * inner, &mut state),
        random::<f64>(inner * cols, &mut state),
    );
    let honest = shape.product(Class::Fused, &a, &b);
    let (a, b) = (f64::bytes(&a), f64::bytes(&b));
    let mut seen = 0;
    for trial in 0..trials {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&trial.to_le_bytes());
        let mut probe = Probe::new(Element::F64, inner, cols, seed).unwrap();
        shape.project(&mut probe, &b);
        let check = shape.check(&probe, &a);
        let mut c = honest.clone();
        change(trial, &mut c);
        match check.verdict(&f64::bytes(&c)).unwrap() {
            Verdict::Rejected => seen += 1,
            Verdict::Accepted => {}
            Verdict::Undecided => panic!("everything is finite"),
        }
    }
    seen
}

const TILE: Shape = Shape {
    rows: 3,
    inner: 200,
    cols: 40,
};

/// What the module's documentation says a row of [`TILE`] may be off by: elements of A and B are below
/// 1 and 1/2 on average, |x| is below 3/2.
fn bound_at_most() -> f64 {
    let terms = (TILE.inner + 1) + 2 * (TILE.cols + 16) + TILE.inner + 16;
    let magnitude = (TILE.cols * TILE.inner) as f64;
    1.02 * terms as f64 * (f64::EPSILON / 2.0) * magnitude * 1.5
}

#[test]
fn a_single_wrong_element_is_always_seen_if_it_is_off_by_more_than_four_bounds() {
    let trials = 1_000;
    let off = 4.0 * bound_at_most();
    let caught = seen(TILE, trials, |trial, c| {
        let at = trial as usize % c.len();
        c[at] += if trial % 2 == 0 { off } else { -off };
    });
    assert_eq!(caught, trials, "an error of {off:e}");
}

#[test]
fn a_single_element_off_by_one_part_in_ten_to_the_eighth_is_seen() {
    let trials = 1_000;
    // Elements of this product are about 4 in magnitude; the few that are a thousand times smaller may
    // be off by as much as rounding is.
    let caught = seen(TILE, trials, |trial, c| {
        let at = trial as usize % c.len();
        c[at] *= 1.0 + 1e-8;
    });
    println!("{caught} of {trials}");
    assert!(caught >= trials * 99 / 100, "{caught} of {trials}");
}

#[test]
fn equal_and_opposite_errors_in_a_row_pass_as_rarely_as_documented() {
    // They cancel only where two elements of x are closer than 2·bound/|Δ|: with that probability at
    // most, 2 in 10 here.
    let (trials, off) = (2_000, 10.0 * bound_at_most());
    let caught = seen(TILE, trials, |trial, c| {
        let (i, j) = (trial as usize % 20, 20 + trial as usize % 19);
        c[i] += off;
        c[j] -= off;
    });
    println!("{caught} of {trials}");
    assert!(caught >= trials * 8 / 10, "{caught} of {trials}");
    let large = seen(TILE, trials, |_, c| {
        c[3] += 1e-3;
        c[4] -= 1e-3;
    });
    assert_eq!(large, trials);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Operands over the whole range of exponents: no honest product is ever rejected, and what is
    /// finite and can not overflow is decided.
    #[test]
    fn no_honest_product_is_rejected(
        rows in 1usize..9, inner in 1usize..60, cols in 1usize..20,
        seed: u64, seeds in prop::array::uniform32(any::<u8>()), spread in 0i32..1000, fused: bool, specials in 0usize..3,
    ) {
        let shape = Shape { rows, inner, cols };
        let mut state = seed;
        let mut wild = |len: usize| -> Vec<f64> {
            (0..len)
                .map(|_| {
                    let exponent = next(&mut state) % (2 * spread as u64 + 1);
                    let x: f64 = random::<f64>(1, &mut state)[0];
                    x * 2f64.powi(exponent as i32 - spread)
                })
                .collect()
        };
        let (mut a, mut b) = (wild(rows * inner), wild(inner * cols));
        for special in 0..specials {
            let at = seed as usize % (rows * inner);
            a[at] = [f64::NAN, f64::INFINITY][special % 2];
            b[seed as usize % (inner * cols)] = f64::NEG_INFINITY;
        }
        let c = shape.product(if fused { Class::Fused } else { Class::Separate }, &a, &b);
        let (a, b, c) = (f64::bytes(&a), f64::bytes(&b), f64::bytes(&c));
        let mut probe = Probe::new(Element::F64, inner, cols, seeds).unwrap();
        shape.project(&mut probe, &b);
        // Elements up to 2^spread, at most 60·20 terms of a row: all below 2^1000.
        let decided = specials == 0 && spread < 490;
        let right = |verdict| match verdict {
            Verdict::Accepted => true,
            Verdict::Undecided => !decided,
            Verdict::Rejected => false,
        };
        prop_assert!(right(shape.check(&probe, &a).verdict(&c).unwrap()));
        if probe.second_pass() {
            shape.project(&mut probe, &b);
            prop_assert!(right(shape.check(&probe, &a).verdict(&c).unwrap()));
        }
    }
}
