//! Every instance that runs here against the definition of the product.

use gemmesh_kernel::gemm::{Blocking, Kernel, kernel, matmul_with};
use gemmesh_kernel::{
    Class, KernelError, MatMut, MatRef, Scalar, Workspace, matmul, naive, supports,
};
use proptest::prelude::*;

/// A type whose bits can be compared and made from random ones.
trait Bits: Scalar {
    fn nan() -> Self;
    fn same(self, other: Self) -> bool;
    fn draw(state: &mut u64) -> Self;
}

macro_rules! bits {
    ($scalar:ty) => {
        impl Bits for $scalar {
            fn nan() -> Self {
                Self::NAN
            }
            fn same(self, other: Self) -> bool {
                self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
            }
            /// Values with full mantissas, both signs and a few zeros.
            fn draw(state: &mut u64) -> Self {
                *state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                match *state >> 60 {
                    0 => 0.0,
                    1 => -0.0,
                    _ => (*state >> 11) as Self / (1u64 << 52) as Self - 1.0,
                }
            }
        }
    };
}
bits!(f64);
bits!(f32);

fn random<T: Bits>(len: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    (0..len).map(|_| T::draw(&mut state)).collect()
}

/// How the three matrices lie in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows,
    Columns,
    Spaced,
}

const LAYOUTS: [Layout; 3] = [Layout::Rows, Layout::Columns, Layout::Spaced];

impl Layout {
    /// (row stride, column stride, length of the buffer).
    fn strides(self, rows: usize, cols: usize) -> (usize, usize, usize) {
        match self {
            Self::Rows => (cols, 1, rows * cols),
            Self::Columns => (1, rows, rows * cols),
            Self::Spaced => (2 * cols + 3, 2, rows * (2 * cols + 3)),
        }
    }
}

/// Checks one kernel and shape, bit for bit, with an output full of NaN (or of numbers to add to).
fn check<T: Bits>(
    kernel: &Kernel<T>,
    blocking: Blocking,
    (m, k, n): (usize, usize, usize),
    layouts: [Layout; 3],
    accumulate: bool,
    workspace: &mut Workspace,
) {
    let [(ars, acs, al), (brs, bcs, bl), (crs, ccs, cl)] = [
        layouts[0].strides(m, k),
        layouts[1].strides(k, n),
        layouts[2].strides(m, n),
    ];
    let (a, b) = (
        random::<T>(al, (m * 31 + k) as u64),
        random::<T>(bl, (k * 37 + n) as u64),
    );
    let c = if accumulate {
        random::<T>(cl, 5)
    } else {
        vec![T::nan(); cl]
    };
    let a = MatRef::new(&a, m, k, ars, acs).unwrap();
    let b = MatRef::new(&b, k, n, brs, bcs).unwrap();
    let (mut found, mut expected) = (c.clone(), c);
    let view = MatMut::new(&mut found, m, n, crs, ccs).unwrap();
    matmul_with(kernel, blocking, accumulate, a, b, view, workspace).unwrap();
    let view = MatMut::new(&mut expected, m, n, crs, ccs).unwrap();
    naive::matmul(kernel.class(), accumulate, a, b, view).unwrap();
    // Also between the elements of C nothing may have changed.
    for (at, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        assert!(
            found.same(expected),
            "{} {:?} {m}×{k}×{n} {layouts:?} {blocking:?} accumulate {accumulate}, at {at}: {found:?}, not {expected:?}",
            kernel.name(),
            kernel.class(),
        );
    }
}

/// Under Miri, which interprets every step, fewer and smaller.
const SMALL: usize = if cfg!(miri) { 3 } else { 13 };

fn every_small_shape<T: Bits>() {
    let mut workspace = Workspace::new();
    for kernel in T::kernels().filter(|kernel| kernel.class() != Class::Any) {
        let mut turn = 0;
        for m in 0..=SMALL {
            for k in 0..=SMALL {
                for n in 0..=SMALL {
                    turn += 1;
                    let layouts = [
                        LAYOUTS[turn % 3],
                        LAYOUTS[turn / 3 % 3],
                        LAYOUTS[turn / 9 % 3],
                    ];
                    check(
                        kernel,
                        kernel.blocking(),
                        (m, k, n),
                        layouts,
                        turn % 2 == 0,
                        &mut workspace,
                    );
                    check(
                        kernel,
                        kernel.blocking(),
                        (m, k, n),
                        [Layout::Rows; 3],
                        turn % 2 == 1,
                        &mut workspace,
                    );
                }
            }
        }
    }
}

#[test]
fn every_instance_computes_every_small_shape_f64() {
    every_small_shape::<f64>();
}

#[test]
fn every_instance_computes_every_small_shape_f32() {
    every_small_shape::<f32>();
}

fn every_single_step<T: Bits>() {
    let mut workspace = Workspace::new();
    for kernel in T::kernels().filter(|kernel| kernel.class() != Class::Any) {
        for n in [15, 16, 17, 31, 32, 33, 47, 64, 70] {
            for accumulate in [false, true] {
                for layouts in [
                    [Layout::Rows; 3],
                    [Layout::Spaced, Layout::Rows, Layout::Rows],
                    [Layout::Columns; 3],
                ] {
                    check(
                        kernel,
                        kernel.blocking(),
                        (5, 1, n),
                        layouts,
                        accumulate,
                        &mut workspace,
                    );
                    check(
                        kernel,
                        kernel.blocking(),
                        (n, 1, 5),
                        layouts,
                        accumulate,
                        &mut workspace,
                    );
                }
            }
        }
    }
}

#[test]
fn one_step_of_k_in_every_layout() {
    every_single_step::<f64>();
    every_single_step::<f32>();
}

fn every_single_column<T: Bits>() {
    let mut workspace = Workspace::new();
    for kernel in T::kernels() {
        for m in [15, 16, 17, 31, 32, 33, 47, 63, 64, 70] {
            for k in [15, 16, 17, 31, 33, 40, 64, 101] {
                for (at, b) in LAYOUTS.into_iter().enumerate() {
                    let layouts = [Layout::Rows, b, LAYOUTS[(at + m) % 3]];
                    for accumulate in [false, true] {
                        let (shape, blocking) = ((m, k, 1), kernel.blocking());
                        check(kernel, blocking, shape, layouts, accumulate, &mut workspace);
                    }
                }
            }
        }
        // Wherever in a cache line the rows start, and whatever lies between them.
        let (m, k, stride) = (40, 70, 75);
        let (a, b) = (random::<T>(m * stride + 16, 3), random::<T>(k, 4));
        for start in 0..16 {
            let left = MatRef::new(&a[start..], m, k, stride, 1).unwrap();
            let right = MatRef::row_major(&b, k, 1).unwrap();
            let mut c = vec![T::nan(); m];
            let out = MatMut::row_major(&mut c, m, 1).unwrap();
            let blocking = kernel.blocking();
            matmul_with(kernel, blocking, false, left, right, out, &mut workspace).unwrap();
            for (i, &found) in c.iter().enumerate() {
                let mut chain = T::ZERO;
                for (p, &b) in b.iter().enumerate() {
                    chain = match kernel.class() {
                        Class::Separate => T::separate(left.at(i, p), b, chain),
                        _ => T::fused(left.at(i, p), b, chain),
                    };
                }
                assert!(found.same(chain), "{} row {i} from {start}", kernel.name());
            }
        }
    }
}

#[test]
fn a_single_column_is_the_same_chains_f64() {
    every_single_column::<f64>();
}

#[test]
fn a_single_column_is_the_same_chains_f32() {
    every_single_column::<f32>();
}

fn every_layout_and_blocking<T: Bits>() {
    let mut workspace = Workspace::new();
    let blockings = [
        Blocking {
            mc: 1,
            kc: 1,
            nc: 1,
        },
        Blocking {
            mc: 5,
            kc: 7,
            nc: 3,
        },
        Blocking {
            mc: 24,
            kc: 16,
            nc: 64,
        },
        Blocking {
            mc: usize::MAX,
            kc: usize::MAX,
            nc: usize::MAX,
        },
    ];
    for kernel in T::kernels().filter(|kernel| kernel.class() != Class::Any) {
        for (turn, blocking) in blockings.into_iter().chain([kernel.blocking()]).enumerate() {
            for a in LAYOUTS {
                for b in LAYOUTS {
                    for c in LAYOUTS {
                        check(
                            kernel,
                            blocking,
                            (26, 35, 33),
                            [a, b, c],
                            turn % 2 == 0,
                            &mut workspace,
                        );
                    }
                }
            }
            check(
                kernel,
                blocking,
                (61, 130, 47),
                [Layout::Rows; 3],
                true,
                &mut workspace,
            );
        }
    }
}

#[test]
fn layouts_and_block_sizes_do_not_change_bits_f64() {
    every_layout_and_blocking::<f64>();
}

#[test]
fn layouts_and_block_sizes_do_not_change_bits_f32() {
    every_layout_and_blocking::<f32>();
}

/// The instances against each other, on operands over the whole range of exponents, subnormals and
/// overflow included: this also holds the software fused multiply-add against the hardware's.
#[test]
fn instances_of_a_class_agree_over_the_whole_range_of_exponents() {
    fn wild64(state: &mut u64) -> f64 {
        let unit = f64::draw(state);
        let exponent = (*state >> 20) % 1000;
        unit * 2f64.powi(exponent as i32 - 760)
    }
    fn wild32(state: &mut u64) -> f32 {
        let unit = f32::draw(state);
        let exponent = (*state >> 20) % 140;
        unit * 2f32.powi(exponent as i32 - 100)
    }
    fn agree<T: Bits>(draw: impl Fn(&mut u64) -> T) {
        let (m, k, n) = (29, 64, 35);
        let mut workspace = Workspace::new();
        let mut state = 99;
        for round in 0..40 {
            let a: Vec<T> = (0..m * k).map(|_| draw(&mut state)).collect();
            let b: Vec<T> = (0..k * n).map(|_| draw(&mut state)).collect();
            for class in [Class::Fused, Class::Separate] {
                let mut first: Option<Vec<T>> = None;
                for kernel in T::kernels().filter(|kernel| kernel.class() == class) {
                    let mut c = vec![T::nan(); m * n];
                    matmul_with(
                        kernel,
                        Blocking {
                            kc: 1 + round,
                            ..kernel.blocking()
                        },
                        false,
                        MatRef::row_major(&a, m, k).unwrap(),
                        MatRef::row_major(&b, k, n).unwrap(),
                        MatMut::row_major(&mut c, m, n).unwrap(),
                        &mut workspace,
                    )
                    .unwrap();
                    let first = first.get_or_insert_with(|| c.clone());
                    for (x, y) in first.iter().zip(&c) {
                        assert!(x.same(*y), "{} {class:?}: {x:?}, {y:?}", kernel.name());
                    }
                }
            }
        }
    }
    agree::<f64>(wild64);
    agree::<f32>(wild32);
}

#[test]
fn fused_rounds_once_and_separate_twice() {
    // (1 + e)² − (1 + 2e) is e² if rounded once, 0 if the product is rounded first.
    let e = 1.0 / (1u64 << 27) as f64;
    let (a, b) = ([1.0 + e], [1.0 + e]);
    for kernel in f64::kernels().filter(|kernel| kernel.class() != Class::Any) {
        let mut c = [-(1.0 + 2.0 * e)];
        matmul_with(
            kernel,
            kernel.blocking(),
            true,
            MatRef::row_major(&a, 1, 1).unwrap(),
            MatRef::row_major(&b, 1, 1).unwrap(),
            MatMut::row_major(&mut c, 1, 1).unwrap(),
            &mut Workspace::new(),
        )
        .unwrap();
        assert_eq!(
            c[0],
            if kernel.class() == Class::Fused {
                e * e
            } else {
                0.0
            },
            "{}",
            kernel.name()
        );
    }
}

#[test]
fn nan_and_infinities_follow_ieee_754_and_stay_in_their_rows_and_columns() {
    let (m, k, n) = (20, 21, 37);
    for kernel in f64::kernels() {
        let (mut a, mut b) = (random::<f64>(m * k, 1), random::<f64>(k * n, 2));
        a.iter_mut().chain(&mut b).for_each(|x| *x += 3.0);
        (a[3 * k + 5], a[7 * k + 1], b[2 * n + 11]) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
        let mut c = vec![0.0; m * n];
        matmul_with(
            kernel,
            kernel.blocking(),
            false,
            MatRef::row_major(&a, m, k).unwrap(),
            MatRef::row_major(&b, k, n).unwrap(),
            MatMut::row_major(&mut c, m, n).unwrap(),
            &mut Workspace::new(),
        )
        .unwrap();
        for i in 0..m {
            for j in 0..n {
                let x = c[i * n + j];
                match (i, j) {
                    (3, _) | (7, 11) => assert!(x.is_nan(), "({i}, {j}): {x}"),
                    (7, _) => assert_eq!(x, f64::INFINITY),
                    (_, 11) => assert_eq!(x, f64::NEG_INFINITY),
                    _ => assert!(x.is_finite(), "({i}, {j}): {x}"),
                }
            }
        }
    }
}

#[test]
fn an_inner_dimension_of_zero_gives_zeros_or_leaves_c() {
    let mut c = [f64::NAN; 6];
    let (a, b) = (
        MatRef::row_major(&[], 2, 0).unwrap(),
        MatRef::row_major(&[], 0, 3).unwrap(),
    );
    let mut workspace = Workspace::new();
    matmul(
        Class::Any,
        false,
        a,
        b,
        MatMut::row_major(&mut c, 2, 3).unwrap(),
        &mut workspace,
    )
    .unwrap();
    assert_eq!(c, [0.0; 6]);
    c.fill(7.0);
    matmul(
        Class::Any,
        true,
        a,
        b,
        MatMut::row_major(&mut c, 2, 3).unwrap(),
        &mut workspace,
    )
    .unwrap();
    assert_eq!(c, [7.0; 6]);
}

#[test]
fn any_is_the_first_kernel_and_every_class_has_one() {
    for class in [Class::Any, Class::Fused, Class::Separate] {
        assert!(kernel::<f64>(class).is_ok() && kernel::<f32>(class).is_ok());
    }
    assert!(supports(Class::Any) && supports(Class::Separate));
    let first = f64::kernels().next().unwrap();
    assert_eq!(gemmesh_kernel::instance(), first.name());
    assert_eq!(supports(Class::Fused), first.class() == Class::Fused);
}

#[test]
fn wrong_shapes_are_typed_errors_and_leave_c_alone() {
    let data = [1.0; 12];
    let shape = |result: Result<(), KernelError>| {
        assert!(
            matches!(result, Err(KernelError::Shape { .. })),
            "{result:?}"
        )
    };
    shape(MatRef::row_major(&data, 4, 4).map(drop));
    shape(MatRef::new(&data, 3, 2, 6, 1).map(drop));
    shape(MatMut::new(&mut [0.0; 9], 3, 3, 0, 1).map(drop));
    shape(MatMut::new(&mut [0.0; 9], 3, 3, 2, 1).map(drop));
    shape(MatMut::new(&mut [0.0; 9], 1, 3, 3, 0).map(drop));
    let huge = MatRef::new(&data, usize::MAX, 2, usize::MAX, 1);
    assert!(matches!(huge, Err(KernelError::Overflow { .. })));
    assert!(MatMut::new(&mut [0.0; 9], 3, 3, 1, 3).is_ok());
    let a = MatRef::row_major(&data, 3, 4).unwrap();
    let b = MatRef::row_major(&data, 4, 3).unwrap();
    shape(a.part(1, 0, 3, 1).map(drop));
    shape(a.part(0, usize::MAX, 1, 2).map(drop));
    let mut workspace = Workspace::new();
    let mut c = [5.0; 12];
    for (left, right, rows, cols) in [(a, a, 3, 4), (b, b, 4, 3), (a, b, 4, 3), (a, b, 3, 4)] {
        let view = MatMut::row_major(&mut c, rows, cols).unwrap();
        shape(matmul(Class::Any, false, left, right, view, &mut workspace));
    }
    assert_eq!(c, [5.0; 12]);
    let none = Blocking {
        mc: 8,
        kc: 0,
        nc: 8,
    };
    let view = MatMut::row_major(&mut c, 3, 3).unwrap();
    shape(matmul_with(
        kernel(Class::Any).unwrap(),
        none,
        false,
        a,
        b,
        view,
        &mut workspace,
    ));
}

#[test]
fn the_limit_loop_counts_what_it_does() {
    for iterations in [0, 1, 1000] {
        let (double, single) = (
            gemmesh_kernel::peak::multiply_adds::<f64>(iterations),
            gemmesh_kernel::peak::multiply_adds::<f32>(iterations),
        );
        assert_eq!(single, 2 * double, "twice the lanes");
        assert_eq!(
            double,
            iterations * gemmesh_kernel::peak::multiply_adds::<f64>(1)
        );
    }
    assert!(gemmesh_kernel::peak::multiply_adds::<f64>(1) > 0);
}

/// Sizes and strides as an attacker would choose them: small, zero, and around every overflow.
fn any_size() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0usize..12,
        2 => 12usize..400,
        1 => (0usize..4).prop_map(|x| usize::MAX - x),
        1 => (0u32..usize::BITS).prop_map(|bit| 1 << bit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A view is refused, or every element of it is in the slice and (if writable) has its own place.
    #[test]
    fn views_are_refused_or_inside(
        len in 0usize..300, rows in any_size(), cols in any_size(), row_stride in any_size(), col_stride in any_size(),
    ) {
        let mut data: Vec<f64> = (0..len).map(|x| x as f64).collect();
        let places = || -> Option<Vec<usize>> {
            let mut places = Vec::new();
            if rows == 0 || cols == 0 {
                return Some(places);
            }
            if rows.saturating_mul(cols) > 200_000 {
                return None;
            }
            for i in 0..rows {
                for j in 0..cols {
                    places.push(i.checked_mul(row_stride)?.checked_add(j.checked_mul(col_stride)?)?);
                }
            }
            Some(places)
        };
        if let Ok(view) = MatRef::new(&data, rows, cols, row_stride, col_stride) {
            // Only a stride of zero gives a view of many elements in a short slice.
            if let Some(places) = places() {
                for (at, place) in places.into_iter().enumerate() {
                    prop_assert!(place < len);
                    prop_assert_eq!(view.at(at / cols, at % cols), place as f64);
                }
            }
        }
        if let Ok(mut view) = MatMut::new(&mut data, rows, cols, row_stride, col_stride) {
            let mut places = places().expect("no more elements than the slice has");
            let mut count = 0;
            view.for_each(|x| {
                *x = -1.0;
                count += 1;
            });
            prop_assert_eq!(count, places.len());
            places.sort_unstable();
            prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "two elements share a place");
            let changed = data.iter().filter(|&&x| x == -1.0).count();
            prop_assert_eq!(changed, count);
        }
    }

    /// Any three views that fit each other: the product is the definition's, and nothing else changes.
    #[test]
    fn products_of_any_views_are_the_definitions(
        shape in prop::array::uniform3(1usize..14), strides in prop::array::uniform6(0usize..40),
        accumulate: bool, pick in 0usize..8, seed: u64,
    ) {
        let [m, k, n] = shape;
        let [ars, acs, brs, bcs, crs, ccs] = strides;
        let len = |rows: usize, cols: usize, row: usize, col: usize| (rows - 1) * row + (cols - 1) * col + 1;
        let a = random::<f64>(len(m, k, ars, acs), seed);
        let b = random::<f64>(len(k, n, brs, bcs), seed ^ 1);
        let c = random::<f64>(len(m, n, crs, ccs), seed ^ 2);
        let (a, b) = (MatRef::new(&a, m, k, ars, acs).unwrap(), MatRef::new(&b, k, n, brs, bcs).unwrap());
        let (mut found, mut expected) = (c.clone(), c);
        let kernels: Vec<_> = f64::kernels().filter(|kernel| kernel.class() != Class::Any).collect();
        let kernel = kernels[pick % kernels.len()];
        if let Ok(view) = MatMut::new(&mut found, m, n, crs, ccs) {
            matmul_with(kernel, kernel.blocking(), accumulate, a, b, view, &mut Workspace::new()).unwrap();
            let view = MatMut::new(&mut expected, m, n, crs, ccs).unwrap();
            naive::matmul(kernel.class(), accumulate, a, b, view).unwrap();
            prop_assert!(found.iter().zip(&expected).all(|(&x, &y)| x.same(y)), "{} {:?}", kernel.name(), kernel.class());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn larger_products_agree_with_the_definition(
        m in 1usize..300, k in 1usize..300, n in 1usize..300,
        layouts in prop::array::uniform3(0usize..3), accumulate: bool, pick in 0usize..8,
    ) {
        let layouts = layouts.map(|at| LAYOUTS[at]);
        let mut workspace = Workspace::new();
        // One kernel a case, never the software one alone: it is slow.
        let doubles: Vec<_> = f64::kernels().filter(|kernel| kernel.class() != Class::Any).collect();
        let kernel = doubles[pick % doubles.len()];
        check(kernel, kernel.blocking(), (m, k, n), layouts, accumulate, &mut workspace);
        let singles: Vec<_> = f32::kernels().filter(|kernel| kernel.class() != Class::Any).collect();
        let kernel = singles[pick % singles.len()];
        check(kernel, kernel.blocking(), (m, k, n), layouts, accumulate, &mut workspace);
    }

    #[test]
    fn cutting_k_into_slabs_changes_no_bit(k in 2usize..200, cut in 1usize..199) {
        let cut = cut.min(k - 1);
        let (m, n) = (13, 40);
        let (a, b) = (random::<f64>(m * k, 3), random::<f64>(k * n, 4));
        let (a, b) = (MatRef::row_major(&a, m, k).unwrap(), MatRef::row_major(&b, k, n).unwrap());
        let mut workspace = Workspace::new();
        for class in [Class::Any, Class::Fused, Class::Separate] {
            let (mut whole, mut slabs) = (vec![f64::NAN; m * n], vec![f64::NAN; m * n]);
            matmul(class, false, a, b, MatMut::row_major(&mut whole, m, n).unwrap(), &mut workspace).unwrap();
            for (start, depth) in [(0, cut), (cut, k - cut)] {
                let (a, b) = (a.part(0, start, m, depth).unwrap(), b.part(start, 0, depth, n).unwrap());
                let c = MatMut::row_major(&mut slabs, m, n).unwrap();
                matmul(class, start > 0, a, b, c, &mut workspace).unwrap();
            }
            prop_assert_eq!(&whole, &slabs);
        }
    }
}
