//! Products whose bits are recorded: the same random shapes, layouts and values on every device, made
//! with integer arithmetic alone. The host's tests, the browser's and those of other architectures
//! include this file and compare with the same constants.

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::gemm::{Blocking, Kernel, matmul_with};
use gemmesh_kernel::{
    Class, Element, MatMut, MatRef, Placement, Scalar, TileProduct, TileSpec, Workspace, naive,
};

/// Where all numbers come from.
pub const SEED: u64 = 0x6765_6d6d_6573_6800;

/// Random products of each kind.
pub const CASES: u64 = 1200;

/// The bits of all products, by kind and class: every kernel of the class on every device gives these.
pub const F64_FUSED: u64 = 0x7cf2_4379_4bca_929b;
/// See [`F64_FUSED`].
pub const F64_SEPARATE: u64 = 0x3a9d_9beb_fed3_36b8;
/// See [`F64_FUSED`].
pub const F32_FUSED: u64 = 0x798b_8576_f488_c0e5;
/// See [`F64_FUSED`].
pub const F32_SEPARATE: u64 = 0x24ca_4151_1ebc_301b;
/// See [`F64_FUSED`].
pub const EXACT: u64 = 0x6490_b5b5_3c03_972b;

/// SplitMix64.
pub struct Draw(u64);

impl Draw {
    /// The numbers of one case.
    pub fn new(kind: u64, case: u64) -> Self {
        Self(SEED ^ (kind << 56) ^ case.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `from..=to`.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + (self.next() % (to - from + 1) as u64) as usize
    }
}

fn fold(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What the elements of an operand are like.
#[derive(Clone, Copy, Debug)]
enum Flavour {
    /// Full mantissas between -1 and 1.
    Unit,
    /// Many zeros of both signs.
    Zeros,
    /// Products around the smallest normal number, subnormal operands.
    Tiny,
    /// All finite exponents: sums overflow.
    Wide,
    /// Infinities and NaN among ordinary numbers.
    Special,
    /// Any bits at all.
    Raw,
}

impl Flavour {
    fn draw(draw: &mut Draw) -> Self {
        match draw.next() % 8 {
            0 | 1 => Self::Unit,
            2 => Self::Zeros,
            3 | 4 => Self::Tiny,
            5 => Self::Wide,
            6 => Self::Special,
            _ => Self::Raw,
        }
    }
}

/// A float type whose values are made from, and hashed as, bits.
pub trait Sample: Scalar {
    /// Apart from the other type's cases.
    const KIND: u64;

    /// The recorded bits of a class.
    fn recorded(class: Class) -> u64;

    /// An element, from 64 random bits.
    fn make(flavour: u8, word: u64) -> Self;

    /// The bits, one value for every NaN.
    fn word(self) -> u64;
}

macro_rules! sample {
    ($scalar:ty, $bits:ty, $kind:expr, $fused:expr, $separate:expr, mantissa = $mantissa:expr, bias = $bias:expr) => {
        impl Sample for $scalar {
            const KIND: u64 = $kind;

            fn recorded(class: Class) -> u64 {
                if class == Class::Fused {
                    $fused
                } else {
                    $separate
                }
            }

            fn make(flavour: u8, word: u64) -> Self {
                const BITS: u32 = <$bits>::BITS;
                let selector = word & 0xff;
                let raw = (word >> (64 - BITS)) as $bits;
                let mantissa = raw & ((1 << $mantissa) - 1);
                let sign = raw >> (BITS - 1) << (BITS - 1);
                // Sign and fraction as drawn, and an exponent of these many values from a first one.
                let scaled = |first: i32, many: u64| {
                    let exponent = (($bias + first) as u64 + (word >> 8) % many) as $bits;
                    Self::from_bits(sign | (exponent << $mantissa) | mantissa)
                };
                let unit = scaled(-4, 4);
                match flavour {
                    0 => unit,
                    1 if selector < 80 => Self::from_bits(sign),
                    1 => unit,
                    2 if selector < 40 => Self::from_bits(sign | mantissa),
                    2 => scaled(-$bias / 2 - 20, 40),
                    3 => scaled(1 - $bias, 2 * $bias as u64),
                    4 if selector < 4 => Self::from_bits(sign | Self::INFINITY.to_bits()),
                    4 if selector == 4 => Self::NAN,
                    4 => unit,
                    _ => Self::from_bits(raw),
                }
            }

            fn word(self) -> u64 {
                let x = if self.is_nan() {
                    <Self as Scalar>::CANONICAL_NAN
                } else {
                    self
                };
                u64::from(x.to_bits())
            }
        }
    };
}
sample!(
    f64,
    u64,
    1,
    F64_FUSED,
    F64_SEPARATE,
    mantissa = 52,
    bias = 1023
);
sample!(
    f32,
    u32,
    2,
    F32_FUSED,
    F32_SEPARATE,
    mantissa = 23,
    bias = 127
);

/// Where the elements of a matrix lie.
#[derive(Clone, Copy, Debug)]
struct Layout {
    row_stride: usize,
    col_stride: usize,
    len: usize,
}

impl Layout {
    fn draw(draw: &mut Draw, rows: usize, cols: usize) -> Self {
        let gap = draw.between(0, 5);
        let (row_stride, col_stride) = match draw.next() % 6 {
            0..=2 => (cols + gap, 1),
            3 | 4 => (1, rows + gap),
            _ => (cols * 3 + gap, 3),
        };
        Self {
            row_stride,
            col_stride,
            len: (rows - 1) * row_stride + (cols - 1) * col_stride + 1,
        }
    }
}

/// One random product.
struct Case<T> {
    shape: (usize, usize, usize),
    layouts: [Layout; 3],
    flavours: [Flavour; 2],
    accumulate: bool,
    /// Block sizes to use in place of the kernel's own.
    blocking: Option<Blocking>,
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<T>,
}

/// Mostly small, sometimes beyond every register block.
fn dimension(draw: &mut Draw) -> usize {
    match draw.next() % 8 {
        0..=3 => draw.between(1, 8),
        4..=6 => draw.between(9, 40),
        _ => draw.between(41, 100),
    }
}

impl<T: Sample> Case<T> {
    fn new(case: u64) -> Self {
        let mut draw = Draw::new(T::KIND, case);
        let (mut m, mut k, mut n) = (
            dimension(&mut draw),
            dimension(&mut draw),
            dimension(&mut draw),
        );
        // A few that are deeper, or wider, than the blocks of every instance.
        match case % 40 {
            0 => (m, k, n) = (m.min(9), draw.between(500, 1100), n.min(20)),
            1 => (m, k, n) = (draw.between(90, 310), k.min(9), n.min(20)),
            2 => (m, k, n) = (m.min(9), k.min(9), draw.between(500, 2300)),
            _ => {}
        }
        let layouts = [(m, k), (k, n), (m, n)].map(|(r, c)| Layout::draw(&mut draw, r, c));
        let flavours = [Flavour::draw(&mut draw), Flavour::draw(&mut draw)];
        let accumulate = draw.next().is_multiple_of(3);
        let blocking = draw.next().is_multiple_of(4).then(|| Blocking {
            mc: draw.between(1, 50),
            kc: draw.between(1, 50),
            nc: draw.between(1, 50),
        });
        let mut fill = |flavour: Flavour, len: usize| -> Vec<T> {
            (0..len)
                .map(|_| T::make(flavour as u8, draw.next()))
                .collect()
        };
        let a = fill(flavours[0], layouts[0].len);
        let b = fill(flavours[1], layouts[1].len);
        let c = if accumulate {
            fill(flavours[1], layouts[2].len)
        } else {
            vec![T::CANONICAL_NAN; layouts[2].len]
        };
        Self {
            shape: (m, k, n),
            layouts,
            flavours,
            accumulate,
            blocking,
            a,
            b,
            c,
        }
    }

    /// The product by `multiply`, as one hash.
    fn hash(&self, multiply: impl FnOnce(MatRef<'_, T>, MatRef<'_, T>, MatMut<'_, T>)) -> u64 {
        let (m, k, n) = self.shape;
        let [a, b, c] = self.layouts;
        let mut found = self.c.clone();
        multiply(
            MatRef::new(&self.a, m, k, a.row_stride, a.col_stride).unwrap(),
            MatRef::new(&self.b, k, n, b.row_stride, b.col_stride).unwrap(),
            MatMut::new(&mut found, m, n, c.row_stride, c.col_stride).unwrap(),
        );
        // Also what lies between the elements of C, which nobody may touch.
        found.iter().fold(0, |hash, x| fold(hash, x.word()))
    }

    fn by_kernel(&self, kernel: &Kernel<T>, workspace: &mut Workspace) -> u64 {
        let blocking = self.blocking.unwrap_or(kernel.blocking());
        self.hash(|a, b, c| {
            matmul_with(kernel, blocking, self.accumulate, a, b, c, workspace).unwrap();
        })
    }

    fn by_definition(&self, class: Class) -> u64 {
        self.hash(|a, b, c| naive::matmul(class, self.accumulate, a, b, c).unwrap())
    }
}

/// All floating products by every kernel that this device has.
pub fn floats_have_the_recorded_bits<T: Sample>() {
    let mut workspace = Workspace::new();
    for class in [Class::Fused, Class::Separate] {
        for kernel in T::kernels().filter(|kernel| kernel.class() == class) {
            let hash = (0..CASES).fold(0, |hash, case| {
                fold(hash, Case::new(case).by_kernel(kernel, &mut workspace))
            });
            if hash != T::recorded(class) {
                differ(kernel, hash, &mut workspace);
            }
        }
    }
}

/// Says where a kernel differs from the definition.
fn differ<T: Sample>(kernel: &Kernel<T>, hash: u64, workspace: &mut Workspace) -> ! {
    let name = kernel.name();
    let class = kernel.class();
    for index in 0..CASES {
        let case = Case::<T>::new(index);
        assert_eq!(
            case.by_kernel(kernel, workspace),
            case.by_definition(class),
            "{name} {class:?}: case {index}, {:?} with {:?} in {:?}, accumulate {}",
            case.shape,
            case.flavours,
            case.layouts,
            case.accumulate,
        );
    }
    panic!(
        "{name} {class:?} is as defined, but the recorded bits are {:#018x}, not {hash:#018x}",
        T::recorded(class)
    );
}

/// The bits of one random exact product.
fn exact_case(case: u64) -> u64 {
    let mut draw = Draw::new(3, case);
    let (rows, cols) = (draw.between(1, 20), draw.between(1, 20));
    let inner = if case.is_multiple_of(40) {
        draw.between(500, 1200)
    } else {
        draw.between(1, 40)
    };
    let mut bits = || match draw.next() % 8 {
        0..=2 => draw.between(1, 24),
        3..=5 => draw.between(25, 64),
        6 => draw.between(65, 150),
        _ => draw.between(150, 400),
    };
    let (a_bits, b_bits) = (bits(), bits());
    let limbs = |bits: usize| (bits + 1).div_ceil(64);
    // Two's complement numbers of at most `bits` bits of magnitude: often the extremes.
    let mut operand = |bits: usize, count: usize| -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let selector = draw.next();
            let negative = selector & 1 == 1;
            for limb in 0..limbs(bits) {
                let kept = bits.saturating_sub(64 * limb).min(64) as u32;
                let mask = 1u64.checked_shl(kept).unwrap_or(0).wrapping_sub(1);
                let magnitude = match selector >> 1 & 7 {
                    0 => mask,
                    1 => 0,
                    _ => draw.next() & mask,
                };
                // The complement of x is -x - 1; taking the lowest bit away keeps it in range.
                let magnitude = if limb == 0 && negative {
                    magnitude & !1
                } else {
                    magnitude
                };
                let word = if negative { !magnitude } else { magnitude };
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    };
    let (a, b) = (operand(a_bits, rows * inner), operand(b_bits, inner * cols));
    let c_limbs = output_limbs(a_bits as u32, b_bits as u32, inner) + draw.between(0, 1);
    let depth = draw.between(1, inner);
    let mut tile = TileProduct::new(TileSpec {
        element: Element::Int {
            a_limbs: limbs(a_bits) as u16,
            b_limbs: limbs(b_bits) as u16,
            c_limbs: c_limbs as u16,
            a_bits: a_bits as u32,
            b_bits: b_bits as u32,
        },
        class: Class::Any,
        rows,
        cols,
        inner,
    })
    .unwrap();
    for start in (0..inner).step_by(depth) {
        let k = depth.min(inner - start);
        tile.begin_slab(k).unwrap();
        let whole = Placement::whole(rows, k, 0, 0);
        let part = Placement {
            src_row_len: inner,
            src_col: start,
            ..whole
        };
        tile.put_a(&a, part).unwrap();
        let whole = Placement::whole(k, cols, 0, 0);
        let part = Placement {
            src_row: start,
            ..whole
        };
        tile.put_b(&b, part).unwrap();
        tile.accumulate().unwrap();
    }
    tile.finish()
        .unwrap()
        .chunks_exact(8)
        .fold(0, |hash, limb| {
            fold(hash, u64::from_le_bytes(limb.try_into().unwrap()))
        })
}

/// All exact products.
pub fn integers_have_the_recorded_bits() {
    let hash = (0..CASES).fold(0, |hash, case| fold(hash, exact_case(case)));
    assert_eq!(hash, EXACT, "{hash:#018x}");
}
