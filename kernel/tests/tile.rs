//! Tiles: bytes in, bytes out, against the definition; sizes, budgets, errors.

mod common;

use common::{Draw, compute};
use gemmesh_kernel::{
    Class, Element, KernelError, MatMut, MatRef, Placement, Stack, TileProduct, TileSpec, naive,
};

fn bytes_f64(x: &[f64]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn bytes_f32(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn a_float_tile_is_the_chain_of_its_class_whatever_the_slabs() {
    let (rows, inner, cols) = (19, 61, 23);
    let mut draw = Draw(3);
    let mut float = || draw.next() as f64 / u64::MAX as f64 - 0.5;
    let a: Vec<f64> = (0..rows * inner).map(|_| float()).collect();
    let b: Vec<f64> = (0..inner * cols).map(|_| float()).collect();
    let (a32, b32) = (
        a.iter().map(|&x| x as f32).collect::<Vec<_>>(),
        b.iter().map(|&x| x as f32).collect::<Vec<_>>(),
    );
    for class in [Class::Fused, Class::Separate] {
        let mut c = vec![0.0; rows * cols];
        naive::matmul(
            class,
            false,
            MatRef::row_major(&a, rows, inner).unwrap(),
            MatRef::row_major(&b, inner, cols).unwrap(),
            MatMut::row_major(&mut c, rows, cols).unwrap(),
        )
        .unwrap();
        let mut c32 = vec![0.0f32; rows * cols];
        naive::matmul(
            class,
            false,
            MatRef::row_major(&a32, rows, inner).unwrap(),
            MatRef::row_major(&b32, inner, cols).unwrap(),
            MatMut::row_major(&mut c32, rows, cols).unwrap(),
        )
        .unwrap();
        let spec = TileSpec {
            element: Element::F64,
            class,
            rows,
            cols,
            inner,
        };
        // One tile for all: each pass finds the buffers of the one before.
        let mut tile = TileProduct::new(spec).unwrap();
        for depth in [1, 7, 60, 61] {
            assert_eq!(
                compute(&mut tile, &bytes_f64(&a), &bytes_f64(&b), depth),
                bytes_f64(&c)
            );
            tile.reset(TileSpec {
                element: Element::F32,
                ..spec
            })
            .unwrap();
            assert_eq!(
                compute(&mut tile, &bytes_f32(&a32), &bytes_f32(&b32), depth),
                bytes_f32(&c32)
            );
            tile.reset(spec).unwrap();
        }
        assert_eq!(tile.operations(), 2 * 19 * 61 * 23);
    }
}

#[test]
fn every_nan_of_a_tile_is_the_canonical_one() {
    let odd = f64::from_bits(0xfff0_dead_beef_0001);
    let spec = TileSpec {
        element: Element::F64,
        class: Class::Separate,
        rows: 1,
        cols: 2,
        inner: 2,
    };
    let mut tile = TileProduct::new(spec).unwrap();
    let c = compute(
        &mut tile,
        &bytes_f64(&[odd, 1.0]),
        &bytes_f64(&[1.0, f64::INFINITY, 2.0, 0.0]),
        2,
    );
    assert_eq!(c, bytes_f64(&[f64::from_bits(0x7ff8 << 48); 2]));
    let spec = TileSpec {
        element: Element::F32,
        ..spec
    };
    tile.reset(spec).unwrap();
    let odd = f32::from_bits(0xff80_0001);
    let c = compute(
        &mut tile,
        &bytes_f32(&[odd, 1.0]),
        &bytes_f32(&[1.0, 2.0, 3.0, 4.0]),
        1,
    );
    assert_eq!(c, bytes_f32(&[f32::from_bits(0x7fc0 << 16); 2]));
}

const INT: Element = Element::Int {
    a_limbs: 1,
    b_limbs: 1,
    c_limbs: 2,
    a_bits: 40,
    b_bits: 40,
};

#[test]
fn a_slab_depth_keeps_the_memory_within_the_budget() {
    for element in [Element::F64, Element::F32, INT] {
        let spec = TileSpec {
            element,
            class: Class::Any,
            rows: 500,
            cols: 700,
            inner: 5000,
        };
        assert_eq!(spec.slab_depth(usize::MAX), 5000);
        assert_eq!(spec.slab_depth(1000), 0);
        let mut seen_blocks = false;
        for mebibytes in 1..200 {
            let depth = spec.slab_depth(mebibytes << 20);
            assert!(depth == 0 || spec.memory_bytes(depth) <= mebibytes << 20);
            assert!(
                depth.is_multiple_of(256) || depth < 256 || depth == 5000,
                "{depth}"
            );
            seen_blocks |= (256..5000).contains(&depth);
        }
        assert!(seen_blocks);
    }
}

#[test]
fn bad_specs_are_typed_errors() {
    let good = TileSpec {
        element: Element::F64,
        class: Class::Any,
        rows: 2,
        cols: 2,
        inner: 2,
    };
    let shape = |spec: TileSpec| {
        let made = TileProduct::new(spec).map(drop);
        assert!(
            matches!(made, Err(KernelError::Shape { .. })),
            "{spec:?}: {made:?}"
        );
    };
    shape(TileSpec { rows: 0, ..good });
    shape(TileSpec { cols: 0, ..good });
    shape(TileSpec { inner: 0, ..good });
    let int = |a_limbs, c_limbs, a_bits| Element::Int {
        a_limbs,
        b_limbs: 1,
        c_limbs,
        a_bits,
        b_bits: 64,
    };
    shape(TileSpec {
        element: int(0, 2, 0),
        ..good
    });
    shape(TileSpec {
        element: int(1, 9, 65),
        ..good
    });
    shape(TileSpec {
        element: int(1, 1, 64),
        ..good
    });
    shape(TileSpec {
        element: int(1, 0, 64),
        ..good
    });
    shape(TileSpec {
        element: int(60_000, 60_000, 64),
        ..good
    });
    let huge = TileProduct::new(TileSpec {
        rows: usize::MAX,
        cols: usize::MAX,
        ..good
    })
    .map(drop);
    assert!(
        matches!(huge, Err(KernelError::Overflow { .. })),
        "{huge:?}"
    );
    let huge = TileProduct::new(TileSpec {
        inner: usize::MAX,
        ..good
    })
    .map(drop);
    assert!(
        matches!(huge, Err(KernelError::Overflow { .. })),
        "{huge:?}"
    );
    let big = TileProduct::new(TileSpec {
        rows: 1 << 28,
        cols: 1 << 29,
        ..good
    })
    .map(drop);
    assert!(
        matches!(big, Err(KernelError::OutOfMemory { .. })),
        "{big:?}"
    );
    assert_eq!(
        TileSpec {
            rows: usize::MAX,
            ..good
        }
        .memory_bytes(usize::MAX),
        usize::MAX
    );
}

#[test]
fn bad_parts_and_missing_parts_are_typed_errors() {
    let spec = TileSpec {
        element: Element::F64,
        class: Class::Any,
        rows: 3,
        cols: 4,
        inner: 8,
    };
    let mut tile = TileProduct::new(spec).unwrap();
    let block = [0u8; 3 * 8 * 8];
    let is_shape = |result: Result<(), KernelError>| {
        assert!(
            matches!(result, Err(KernelError::Shape { .. })),
            "{result:?}"
        )
    };
    is_shape(tile.begin_slab(9));
    is_shape(tile.begin_slab(0));
    is_shape(tile.put_a(&block, Placement::whole(3, 8, 0, 0)));
    assert!(matches!(
        tile.accumulate(),
        Err(KernelError::Incomplete { .. })
    ));
    assert!(matches!(tile.finish(), Err(KernelError::Incomplete { .. })));
    tile.begin_slab(8).unwrap();
    let whole = Placement::whole(3, 8, 0, 0);
    is_shape(tile.put_a(&block[1..], whole));
    is_shape(tile.put_a(
        &block,
        Placement {
            dst_row: 1,
            ..whole
        },
    ));
    is_shape(tile.put_a(
        &block,
        Placement {
            dst_col: 1,
            ..whole
        },
    ));
    is_shape(tile.put_a(
        &block,
        Placement {
            src_row: 1,
            ..whole
        },
    ));
    is_shape(tile.put_a(
        &block,
        Placement {
            src_col: 1,
            ..whole
        },
    ));
    is_shape(tile.put_a(
        &block,
        Placement {
            src_row_len: 7,
            ..whole
        },
    ));
    let overflow = Placement {
        src_row: usize::MAX,
        ..whole
    };
    assert!(matches!(
        tile.put_a(&block, overflow),
        Err(KernelError::Overflow { .. })
    ));
    let overflow = Placement {
        dst_row: usize::MAX,
        ..whole
    };
    assert!(matches!(
        tile.put_a(&block, overflow),
        Err(KernelError::Overflow { .. })
    ));
    let overflow = Placement {
        src_row_len: usize::MAX,
        ..whole
    };
    assert!(matches!(
        tile.put_a(&block, overflow),
        Err(KernelError::Overflow { .. })
    ));
    tile.put_a(&block, whole).unwrap();
    assert!(
        matches!(tile.accumulate(), Err(KernelError::Incomplete { .. })),
        "B is missing"
    );
    // An integer with more bits than announced, on both ways of computing.
    for (a_bits, c_limbs) in [(8, 1), (60, 2)] {
        let element = Element::Int {
            a_limbs: 1,
            b_limbs: 1,
            c_limbs,
            a_bits,
            b_bits: 8,
        };
        tile.reset(TileSpec {
            element,
            class: Class::Any,
            rows: 1,
            cols: 1,
            inner: 1,
        })
        .unwrap();
        tile.begin_slab(1).unwrap();
        let place = Placement::whole(1, 1, 0, 0);
        for bad in [1i64 << a_bits, -(1 << a_bits), i64::MIN] {
            assert!(
                matches!(
                    tile.put_a(&bad.to_le_bytes(), place),
                    Err(KernelError::Range { .. })
                ),
                "{bad}"
            );
        }
        tile.put_a(&((1i64 << a_bits) - 1).to_le_bytes(), place)
            .unwrap();
    }
}

/// Stacks of products, cut where a tile may cut them, against each product by itself.
#[test]
fn a_tile_of_a_stack_is_the_rows_of_its_products() {
    let ints = |bits: u32, a_limbs: u16, c_limbs: u16| Element::Int {
        a_limbs,
        b_limbs: 1,
        c_limbs,
        a_bits: bits,
        b_bits: bits.min(63),
    };
    let elements = [
        Element::F64,
        Element::F32,
        ints(10, 1, 1),
        ints(31, 1, 2),
        ints(90, 2, 3),
    ];
    let mut draw = Draw(11);
    let mut tile: Option<TileProduct> = None;
    for (element, class) in elements
        .into_iter()
        .flat_map(|element| [(element, Class::Fused), (element, Class::Separate)])
    {
        for (each, inner, cols, products) in
            [(16, 16, 16, 5), (3, 7, 2, 9), (1, 4, 1, 12), (33, 5, 40, 2)]
        {
            let [a_bytes, b_bytes, _] = element.bytes();
            let a = operand(element, 0, products * each * inner, &mut draw);
            let b = operand(element, 1, products * inner * cols, &mut draw);
            let one = TileSpec {
                element,
                class,
                rows: each,
                cols,
                inner,
            };
            let mut alone = Vec::new();
            for product in 0..products {
                let a = &a[product * each * inner * a_bytes..][..each * inner * a_bytes];
                let b = &b[product * inner * cols * b_bytes..][..inner * cols * b_bytes];
                alone.extend(compute(&mut TileProduct::new(one).unwrap(), a, b, inner));
            }
            let row_bytes = alone.len() / (products * each);
            for (from, to) in [
                (0, products * each),
                (each - 1, products * each),
                (each / 2, each * 2 - each / 3),
            ] {
                let stack = Stack {
                    each,
                    skip: from % each,
                };
                let spec = TileSpec {
                    rows: to - from,
                    ..one
                };
                let tile = tile.get_or_insert_with(|| TileProduct::new(one).unwrap());
                tile.reset_stack(spec, stack).unwrap();
                tile.begin_slab(inner).unwrap();
                tile.put_a(
                    &a[from * inner * a_bytes..],
                    Placement::whole(to - from, inner, 0, 0),
                )
                .unwrap();
                let first = from / each;
                let count = stack.products(to - from);
                let b = &b[first * inner * cols * b_bytes..];
                tile.put_b(b, Placement::whole(count * inner, cols, 0, 0))
                    .unwrap();
                tile.accumulate().unwrap();
                assert_eq!(
                    tile.finish().unwrap(),
                    alone[from * row_bytes..to * row_bytes],
                    "{element:?} {class:?} {each} {from}..{to}"
                );
            }
        }
    }
}

#[test]
fn a_stack_has_one_slab() {
    let spec = TileSpec {
        element: Element::F64,
        class: Class::Any,
        rows: 4,
        cols: 2,
        inner: 6,
    };
    let mut tile = TileProduct::new(spec).unwrap();
    let stack = |each, skip| Stack { each, skip };
    assert!(tile.reset_stack(spec, stack(0, 0)).is_err());
    assert!(tile.reset_stack(spec, stack(2, 2)).is_err());
    tile.reset_stack(spec, stack(2, 1)).unwrap();
    assert!(tile.begin_slab(5).is_err());
    assert!(tile.begin_slab(6).is_ok());
    assert!(tile.accumulate().is_err());
    assert!(TileProduct::default().begin_slab(1).is_err());
    // The next tile is an ordinary one again.
    tile.reset(spec).unwrap();
    assert!(tile.begin_slab(5).is_ok());
}

fn operand(element: Element, which: usize, count: usize, draw: &mut Draw) -> Vec<u8> {
    let small = |draw: &mut Draw| (draw.next() % 1_000) as f64 / 7.0 - 70.0;
    let (limbs, bits) = match element {
        Element::F64 => return (0..count).flat_map(|_| small(draw).to_le_bytes()).collect(),
        Element::F32 => {
            let mut next = || (small(draw) as f32).to_le_bytes();
            return (0..count).flat_map(|_| next()).collect();
        }
        Element::Int {
            a_limbs,
            b_limbs,
            a_bits,
            b_bits,
            ..
        } => [(a_limbs, a_bits), (b_limbs, b_bits)][which],
        Element::Residues { .. } => unreachable!("tests/residues.rs has these"),
    };
    let shift = 64 * i128::from(limbs).min(2) as u32 - bits.min(126);
    let mut bytes = Vec::new();
    for _ in 0..count {
        let word = i128::from(draw.next()) << 64 | i128::from(draw.next());
        let value = if limbs == 1 {
            i128::from((word as i64) >> shift.min(63))
        } else {
            word >> shift
        };
        // The most negative number has one bit more than its magnitude may have.
        let value = value.max(1 - (1 << bits.min(126)));
        bytes.extend_from_slice(&value.to_le_bytes()[..8 * usize::from(limbs)]);
    }
    bytes
}
