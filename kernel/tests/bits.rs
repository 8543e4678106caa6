//! The bits of a product are part of the contract: these were computed once and must come out on every
//! device, whatever its instance.

#[path = "common/sample.rs"]
mod sample;

use gemmesh_kernel::{Class, Element, Placement, TileProduct, TileSpec};

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn word(i: usize) -> u64 {
    (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn float(i: usize) -> f64 {
    (word(i) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// The hash of a 61 × 130 × 77 product, in slabs of 50.
fn product(element: Element, class: Class, operand: impl Fn(usize) -> Vec<u8>) -> u64 {
    let (rows, inner, cols) = (61, 130, 77);
    let a: Vec<u8> = (0..rows * inner).flat_map(&operand).collect();
    let b: Vec<u8> = (0..inner * cols).flat_map(&operand).collect();
    let spec = TileSpec {
        element,
        class,
        rows,
        cols,
        inner,
    };
    let mut tile = TileProduct::new(spec).unwrap();
    for start in (0..inner).step_by(50) {
        let k = 50.min(inner - start);
        tile.begin_slab(k).unwrap();
        let part = Placement {
            src_row_len: inner,
            src_col: start,
            ..Placement::whole(rows, k, 0, 0)
        };
        tile.put_a(&a, part).unwrap();
        let part = Placement {
            src_row: start,
            ..Placement::whole(k, cols, 0, 0)
        };
        tile.put_b(&b, part).unwrap();
        tile.accumulate().unwrap();
    }
    hash(&tile.finish().unwrap())
}

#[test]
fn every_device_gets_the_same_bits() {
    let double = |class| product(Element::F64, class, |i| float(i).to_le_bytes().to_vec());
    let single = |class| {
        product(Element::F32, class, |i| {
            (float(i) as f32).to_le_bytes().to_vec()
        })
    };
    let int = |bits: u32, c_limbs| {
        let element = Element::Int {
            a_limbs: 1,
            b_limbs: 1,
            c_limbs,
            a_bits: bits,
            b_bits: bits,
        };
        product(element, Class::Any, |i| {
            (word(i) as i64 >> (63 - bits)).to_le_bytes().to_vec()
        })
    };
    let found = [
        double(Class::Fused),
        double(Class::Separate),
        single(Class::Fused),
        single(Class::Separate),
        int(20, 1),
        int(62, 3),
    ];
    let expected = [
        0x6bd2_67b2_2af7_3536,
        0xb193_ad1f_2aca_9a7a,
        0xe1b9_bf64_ce99_362a,
        0x88fd_e5ea_335a_0c19,
        0x80a3_93cb_47d2_2ab0,
        0xa7af_fa4c_59ce_0b72,
    ];
    assert_eq!(found, expected, "{found:#018x?}");
}

#[test]
fn random_products_of_doubles_have_the_recorded_bits() {
    println!("seed {:#x}, {} products", sample::SEED, sample::CASES);
    sample::floats_have_the_recorded_bits::<f64>();
}

#[test]
fn random_products_of_singles_have_the_recorded_bits() {
    println!("seed {:#x}, {} products", sample::SEED, sample::CASES);
    sample::floats_have_the_recorded_bits::<f32>();
}

#[test]
fn random_products_of_integers_have_the_recorded_bits() {
    println!("seed {:#x}, {} products", sample::SEED, sample::CASES);
    sample::integers_have_the_recorded_bits();
}
