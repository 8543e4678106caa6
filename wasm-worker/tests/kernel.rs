//! The kernel as compute workers run it, against an oracle of three loops. Runs on the host, and in
//! headless browsers with each of the two builds.

use gemmesh_kernel::Placement;
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid};
use gemmesh_protocol::tile::Rect;
use gemmesh_wasm_worker::task::{Task, TaskError, TaskSpec, placement};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::{wasm_bindgen_test as test, wasm_bindgen_test_configure};

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test_configure!(run_in_browser);

const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};
const F32: ElementType = ElementType {
    dtype: Dtype::F32,
    limbs: 1,
};
const INT: ElementType = ElementType {
    dtype: Dtype::Int,
    limbs: 1,
};

/// Shapes with edges below, at and above the sizes of vectors, registers and blocks.
const SHAPES: [(u64, u64, u64); 10] = [
    (1, 1, 1),
    (1, 7, 1),
    (2, 3, 2),
    (5, 4, 3),
    (8, 8, 8),
    (17, 33, 9),
    (31, 257, 15),
    (1, 300, 65),
    (130, 19, 67),
    (37, 43, 1),
];

#[test]
fn doubles_are_the_oracles_product() {
    for shape in SHAPES {
        let (a, b) = doubles(shape);
        let c = multiply(
            spec(KernelClass::Any, shape, F64, 0),
            &bytes(&a),
            &bytes(&b),
        );
        let c = from_bytes(&c, f64::from_le_bytes);
        for (found, (expected, bound)) in c.iter().zip(oracle(shape, &a, &b)) {
            // |error| of a chain of k multiply-adds: at most k·2^-52 of the sum of magnitudes.
            assert!(
                (found - expected).abs() <= bound,
                "{shape:?}: {found} for {expected}"
            );
        }
    }
}

#[test]
fn class_separate_is_bit_equal_to_a_scalar_loop() {
    for shape in SHAPES {
        let (a, b) = doubles(shape);
        let c = multiply(
            spec(KernelClass::Separate, shape, F64, 0),
            &bytes(&a),
            &bytes(&b),
        );
        let expected = chain(shape, &a, &b, |a, b, c| a * b + c);
        assert_eq!(bits(&from_bytes(&c, f64::from_le_bytes)), bits(&expected));
    }
}

#[test]
fn class_separate_of_singles_is_bit_equal_to_a_scalar_loop() {
    for shape in SHAPES {
        let (a, b) = doubles(shape);
        let single = |m: &[f64]| m.iter().map(|&x| x as f32).collect::<Vec<_>>();
        let (a, b) = (single(&a), single(&b));
        let c = multiply(
            spec(KernelClass::Separate, shape, F32, 0),
            &a.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>(),
            &b.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>(),
        );
        let expected = chain(shape, &a, &b, |a, b, c| a * b + c);
        let c = from_bytes(&c, f32::from_le_bytes);
        assert_eq!(
            c.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            expected.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        );
    }
}

#[test]
fn integers_are_exact() {
    for bits in [3, 26, 31] {
        for shape in SHAPES {
            let range = (1i64 << bits) - 1;
            let integer = |seed| {
                let mut next = generator(seed);
                move || (next() * 2.0 * range as f64) as i64 - range
            };
            let (mut next_a, mut next_b) = (integer(1), integer(2));
            let a: Vec<i64> = (0..shape.0 * shape.1).map(|_| next_a()).collect();
            let b: Vec<i64> = (0..shape.1 * shape.2).map(|_| next_b()).collect();
            let c = multiply(
                spec(KernelClass::Exact, shape, INT, bits),
                &a.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>(),
                &b.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>(),
            );
            // Two limbs hold 2·31 bits and the carries of any of these sums.
            let c = from_bytes(&c, i128::from_le_bytes);
            let wide = |m: &[i64]| m.iter().map(|&x| i128::from(x)).collect::<Vec<_>>();
            let expected = chain(shape, &wide(&a), &wide(&b), |a, b, c| a * b + c);
            assert_eq!(c, expected, "{bits} bits, {shape:?}");
        }
    }
}

#[test]
fn nan_and_infinity_go_through() {
    let shape = (2, 2, 2);
    let a = [f64::INFINITY, 1.0, f64::NAN, 0.0];
    let b = [1.0, 0.0, 2.0, 3.0];
    let c = multiply(
        spec(KernelClass::Any, shape, F64, 0),
        &bytes(&a),
        &bytes(&b),
    );
    let c = from_bytes(&c, f64::from_le_bytes);
    assert_eq!(c[0], f64::INFINITY);
    assert!(c[1].is_nan() && c[2].is_nan() && c[3].is_nan(), "{c:?}");
}

#[test]
fn what_does_not_fit_is_an_error_not_a_trap() {
    let mut task = Task::default();
    let edge = 1 << 13;
    let huge = spec(KernelClass::Any, (edge, edge, 1), F64, 0);
    assert!(task.begin(&huge).is_ok());
    let error = task.begin_slab(edge as usize).expect_err("512 MiB of A");
    assert!(matches!(error, TaskError::TooLarge { .. }), "{error}");
    // The same worker goes on with the next tile.
    let one = spec(KernelClass::Any, (1, 1, 1), F64, 0);
    let block = 3.0f64.to_le_bytes();
    task.begin(&one).expect("a small tile");
    task.begin_slab(1).expect("its slab");
    let all = gemmesh_kernel::Placement::whole(1, 1, 0, 0);
    task.put_a(&block[..], all).expect("A");
    task.put_b(&block[..], all).expect("B");
    task.accumulate().expect("product");
    assert_eq!(task.finish().expect("C"), 9.0f64.to_le_bytes());
}

#[test]
fn rows_longer_than_what_is_read_at_a_time_arrive_whole() {
    let shape = (3, 20_000, 1);
    let (a, b) = doubles(shape);
    let spec = spec(KernelClass::Separate, shape, F64, 0);
    let all = |rows, cols| gemmesh_kernel::Placement::whole(rows, cols, 0, 0);
    let mut task = Task::default();
    task.begin(&spec).expect("a tile");
    task.begin_slab(shape.1 as usize).expect("its slab");
    task.put_a(&bytes(&a)[..], all(3, 20_000)).expect("A");
    task.put_b(&bytes(&b)[..], all(20_000, 1)).expect("B");
    task.accumulate().expect("product");
    let c = from_bytes(&task.finish().expect("C"), f64::from_le_bytes);
    assert_eq!(bits(&c), bits(&chain(shape, &a, &b, |a, b, c| a * b + c)));
}

#[test]
fn parts_outside_of_their_block_or_slab_are_errors() {
    use gemmesh_kernel::Placement;
    let mut task = Task::default();
    let one = [0; 8];
    let part = Placement::whole(1, 1, 0, 0);
    assert!(task.put_a(&one[..], part).is_err(), "no tile");
    task.begin(&spec(KernelClass::Any, (2, 2, 2), F64, 0))
        .expect("a tile");
    task.begin_slab(2).expect("its slab");
    let far = usize::MAX;
    for (rows, cols, row_len, row, col, to_row, to_col) in [
        (2, 1, 1, 0, 0, 0, 0),
        (1, 2, 1, 0, 0, 0, 0),
        (1, 1, 1, 1, 0, 0, 0),
        (1, 1, 1, 0, 1, 0, 0),
        (1, 1, 1, far, 0, 0, 0),
        (1, 1, 1, 0, far, 0, 0),
        (1, 1, far, 1, 0, 0, 0),
        (1, 1, far, 0, far - 1, 0, 0),
        (far, far, far, 0, 0, 0, 0),
        (1, 1, 1, 0, 0, 2, 0),
        (1, 1, 1, 0, 0, 0, 2),
        (1, 1, 1, 0, 0, far, far),
    ] {
        let part = Placement {
            src_row_len: row_len,
            src_row: row,
            src_col: col,
            rows,
            cols,
            dst_row: to_row,
            dst_col: to_col,
        };
        assert!(task.put_a(&one[..], part).is_err(), "{part:?}");
        assert!(task.put_b(&one[..], part).is_err(), "{part:?}");
    }
}

/// The browser refuses to grow the module's memory at every place where a tile needs some: that is an
/// error, the instance lives on, and with enough memory the same tile is computed.
#[cfg(target_arch = "wasm32")]
#[test]
fn refused_memory_is_an_error_not_a_trap() {
    use gemmesh_kernel::KernelError;
    // All memory that the module can have, in blocks, the last ones small.
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(1 << 13);
    for size in [64 << 20, 1 << 20, 16 << 10, 1 << 10] {
        loop {
            let mut block = Vec::new();
            if held.len() == held.capacity() || block.try_reserve_exact(size).is_err() {
                break;
            }
            held.push(block);
        }
    }
    let shape = (300, 400, 200);
    let (rows, inner, cols) = shape;
    let product = |spec: &TaskSpec, byte| -> Result<Vec<u8>, (&str, TaskError)> {
        let mut task = Task::default();
        let all = |rows, cols| gemmesh_kernel::Placement::whole(rows as usize, cols as usize, 0, 0);
        let block = Repeated([byte; 8]);
        task.begin(spec).map_err(|error| ("C", error))?;
        task.begin_slab(inner as usize)
            .map_err(|error| ("slab", error))?;
        task.put_a(&block, all(rows, inner))
            .map_err(|error| ("A", error))?;
        task.put_b(&block, all(inner, cols))
            .map_err(|error| ("B", error))?;
        task.accumulate().map_err(|error| ("product", error))?;
        task.finish().map_err(|error| ("result", error))
    };
    // Memory that was given back stays with the module, so the product that needs less comes first.
    let mut computed = |spec: &TaskSpec, byte, places: &[&str]| {
        let mut refused = Vec::new();
        let result = loop {
            match product(spec, byte) {
                Ok(result) => break result,
                Err((place, TaskError::Kernel(KernelError::OutOfMemory { .. }))) => {
                    refused.push(place);
                }
                Err((place, error)) => panic!("{place}: {error}"),
            }
            assert!(held.pop().is_some(), "not computed with all memory free");
        };
        for place in places {
            assert!(refused.contains(place), "{place} was never refused");
        }
        result
    };

    let floats = spec(KernelClass::Any, shape, F64, 0);
    let x = f64::from_le_bytes([0x3f; 8]);
    let expected = (0..inner).fold(0.0, |sum, _| x.mul_add(x, sum));
    let result = computed(&floats, 0x3f, &["C", "slab", "product"]);
    for element in from_bytes(&result, f64::from_le_bytes) {
        assert!((element - expected).abs() <= 1e-9 * expected);
    }

    let integers = spec(KernelClass::Exact, shape, INT, 58);
    let x = i128::from(i64::from_le_bytes([0x03; 8]));
    let expected = x * x * i128::from(inner);
    let result = computed(&integers, 0x03, &["product"]);
    for element in result.chunks_exact(16) {
        assert_eq!(element, expected.to_le_bytes());
    }
}

/// A block of any length without memory of its own.
#[cfg(target_arch = "wasm32")]
struct Repeated([u8; 8]);

#[cfg(target_arch = "wasm32")]
impl gemmesh_wasm_worker::task::Block for Repeated {
    fn bytes(&self) -> usize {
        usize::MAX
    }

    fn read(&self, from: usize, to: &mut [u8]) {
        assert!(from.is_multiple_of(8));
        for element in to.chunks_exact_mut(8) {
            element.copy_from_slice(&self.0);
        }
    }
}

/// Computes a whole product as a compute worker does: blocks of the manifest's grid, slabs of 256.
fn multiply(spec: TaskSpec, a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut task = Task::default();
    task.begin(&spec).expect("a tile that fits");
    let a_grid = Grid::new(spec.rows, spec.inner, spec.a);
    let b_grid = Grid::new(spec.inner, spec.cols, spec.b);
    for from in (0..spec.inner).step_by(256) {
        let depth = 256.min(spec.inner - from);
        task.begin_slab(depth as usize).expect("a slab that fits");
        let slab_a = Rect {
            row: 0,
            col: from,
            rows: spec.rows,
            cols: depth,
        };
        for part in a_grid.parts(slab_a) {
            let block = block(a, &a_grid, spec.inner, spec.a, part.index);
            task.put_a(&block[..], placement(&part))
                .expect("a part of A");
        }
        let slab_b = Rect {
            row: from,
            col: 0,
            rows: depth,
            cols: spec.cols,
        };
        for part in b_grid.parts(slab_b) {
            let block = block(b, &b_grid, spec.cols, spec.b, part.index);
            task.put_b(&block[..], placement(&part))
                .expect("a part of B");
        }
        task.accumulate().expect("a full slab");
    }
    task.finish().expect("a full tile")
}

/// A tile of a stack begins and ends in the middle of a product.
#[test]
fn a_tile_of_a_stack_has_the_rows_of_its_products() {
    let (each, inner, cols, products) = (7, 9, 4, 5);
    let (a, _) = doubles((each * products, inner, cols));
    let (_, b) = doubles((each, inner * products, cols));
    let alone: Vec<f64> = (0..products)
        .flat_map(|product| {
            let a = &a[(product * each * inner) as usize..][..(each * inner) as usize];
            let b = &b[(product * inner * cols) as usize..][..(inner * cols) as usize];
            let one = spec(KernelClass::Separate, (each, inner, cols), F64, 0);
            from_bytes(&multiply(one, &bytes(a), &bytes(b)), f64::from_le_bytes)
        })
        .collect();
    let (from, to) = (3, 31);
    let tile = TaskSpec {
        each,
        skip: from % each,
        ..spec(KernelClass::Separate, (to - from, inner, cols), F64, 0)
    };
    let mut task = Task::default();
    task.begin(&tile).expect("a tile");
    task.begin_slab(inner as usize).expect("the one slab");
    let rows = Placement::whole((to - from) as usize, inner as usize, 0, 0);
    let a = bytes(&a[(from * inner) as usize..(to * inner) as usize]);
    task.put_a(&a[..], rows).expect("its rows of A");
    let all = Placement::whole((products * inner) as usize, cols as usize, 0, 0);
    task.put_b(&bytes(&b)[..], all).expect("all of B");
    task.accumulate().expect("a product");
    let c = from_bytes(&task.finish().expect("a full tile"), f64::from_le_bytes);
    let expected = &alone[(from * cols) as usize..(to * cols) as usize];
    assert_eq!(bits(&c), bits(expected));
}

/// The bytes of one block of a row-major matrix.
fn block(matrix: &[u8], grid: &Grid, cols: u64, element: ElementType, index: u32) -> Vec<u8> {
    let rect = grid.rect(index.into());
    let bytes = element.bytes();
    (rect.row..rect.row + rect.rows)
        .flat_map(|row| {
            let start = ((row * cols + rect.col) * bytes) as usize;
            matrix[start..start + (rect.cols * bytes) as usize].to_vec()
        })
        .collect()
}

fn spec(
    class: KernelClass,
    (rows, inner, cols): (u64, u64, u64),
    element: ElementType,
    bits: u32,
) -> TaskSpec {
    let limbs = if element.dtype == Dtype::Int { 2 } else { 1 };
    TaskSpec {
        class,
        rows,
        cols,
        inner,
        a: element,
        a_bits: bits,
        b: element,
        b_bits: bits,
        c: ElementType { limbs, ..element },
        each: 0,
        skip: 0,
    }
}

fn doubles((rows, inner, cols): (u64, u64, u64)) -> (Vec<f64>, Vec<f64>) {
    let (mut a, mut b) = (generator(3), generator(4));
    (
        (0..rows * inner).map(|_| a() * 2.0 - 1.0).collect(),
        (0..inner * cols).map(|_| b() * 2.0 - 1.0).collect(),
    )
}

/// Each element with the bound of its error.
fn oracle(shape: (u64, u64, u64), a: &[f64], b: &[f64]) -> Vec<(f64, f64)> {
    let absolute = |m: &[f64]| m.iter().map(|x| x.abs()).collect::<Vec<_>>();
    let products = chain(shape, a, b, |a, b, c| a * b + c);
    let magnitudes = chain(shape, &absolute(a), &absolute(b), |a, b, c| a * b + c);
    let bound = shape.1 as f64 * f64::EPSILON;
    let pair = |(product, magnitude)| (product, bound * magnitude);
    products.into_iter().zip(magnitudes).map(pair).collect()
}

fn chain<T: Copy + Default>(
    (rows, inner, cols): (u64, u64, u64),
    a: &[T],
    b: &[T],
    step: impl Fn(T, T, T) -> T,
) -> Vec<T> {
    let (rows, inner, cols) = (rows as usize, inner as usize, cols as usize);
    let mut c = Vec::with_capacity(rows * cols);
    for i in 0..rows {
        for j in 0..cols {
            let add = |sum, k| step(a[i * inner + k], b[k * cols + j], sum);
            c.push((0..inner).fold(T::default(), add));
        }
    }
    c
}

fn bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn from_bytes<T, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    assert_eq!(bytes.len() % N, 0);
    let array = |chunk: &[u8]| read(chunk.try_into().expect("a whole element"));
    bytes.chunks_exact(N).map(array).collect()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Numbers from 0 to 1 (Knuth's 64-bit linear congruential generator, upper bits).
fn generator(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}
