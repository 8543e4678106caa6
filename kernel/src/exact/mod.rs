//! Exact products of integers of any size.
//!
//! Elements are two's complement numbers of `limbs` little-endian 64-bit limbs. With a, b the bit
//! lengths of the largest magnitudes in A and B,
//!
//! ```text
//! |C[i,j]| <= inner·(2^a - 1)·(2^b - 1) < 2^(a + b + ceil(log2(inner)))
//! ```
//!
//! How the product is taken depends on that bound, and on which kernels the device has:
//!
//! | operands, results | way |
//! |---|---|
//! | 15 bits, 42 bits | one or two products of 16-bit numbers: the low 32 bits, and a residue |
//! | any, below 2^53 | one product in `f64`, where every sum is exact |
//! | any, below 2^2,600 | modulo primes of 12 bits, as products of 16-bit numbers |
//! | any | modulo primes of 23 bits, in `f64` |
//!
//! Of the ways that are possible it is the one of least cost, in products in `f64`: the number of products of
//! 16-bit numbers over how many of those the device does in the time of one in `f64`.
//!
//! Sources: Bernstein, *Multidigit modular multiplication with the explicit Chinese remainder theorem*, 1995, for
//! how residues become integers; Dumas, Giorgi, Pernet, *Dense Linear Algebra over Word-Size Prime Fields: the
//! FFLAS and FFPACK Packages*, ACM TOMS 35(3), 2008, section 3, for reductions that wait.

mod floats;

use self::floats::FloatProduct;
use crate::gemm::{Class, Workspace, workspace_bytes};
use crate::integer::ceil_log2;
use crate::matrix::KernelError;
use crate::pairs::crt::{PairProduct, Problem};
use crate::pairs::short::{ShortProduct, integer_planes};
use crate::pairs::{self, Operand};

/// The most limbs of an operand. Beyond it the sums of the conversions would leave 2^53.
pub const LIMBS_MAX: usize = 1 << 11;

/// Sums below this are exact in `f64`.
const EXACT_BITS: u32 = 53;

/// Bits of one element of C in two's complement, sign included.
pub fn output_bits(a_bits: u32, b_bits: u32, inner: usize) -> u32 {
    a_bits
        .saturating_add(b_bits)
        .saturating_add(ceil_log2(inner))
        .saturating_add(1)
}

/// 64-bit limbs of one element of C, at least 1.
pub fn output_limbs(a_bits: u32, b_bits: u32, inner: usize) -> usize {
    output_bits(a_bits, b_bits, inner).div_ceil(64).max(1) as usize
}

/// The sizes of an exact product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) inner: usize,
    pub(crate) a_limbs: usize,
    pub(crate) b_limbs: usize,
    pub(crate) c_limbs: usize,
    pub(crate) a_bits: u32,
    pub(crate) b_bits: u32,
}

impl Sizes {
    /// Whether the product is best taken in `f64` as it is, every partial sum exact.
    pub(crate) fn direct(&self) -> bool {
        self.way() == Way::Direct
    }

    /// The way of least cost.
    fn way(&self) -> Way {
        let kernel = pairs::kernel();
        let bits = self.bits();
        // Relative to a product in `f64`.
        let cost = |products: usize| kernel.cost(products, self.rows, self.cols);
        let short = integer_planes(self.a_bits, self.b_bits, bits)
            .map(|planes| (cost(planes), Way::Short(planes)));
        let exact = self.a_bits.max(self.b_bits) <= EXACT_BITS && bits <= EXACT_BITS;
        let direct = exact.then_some((1.0, Way::Direct));
        let pairs = pairs::basis::needed(bits).map(|primes| (cost(primes), Way::Pairs));
        let floats = (self.float_primes() as f64, Way::Floats);
        [short, direct, pairs]
            .into_iter()
            .flatten()
            .fold(
                floats,
                |best, next| if next.0 < best.0 { next } else { best },
            )
            .1
    }

    /// Results are below 2^bits in magnitude.
    fn bits(&self) -> u32 {
        output_bits(self.a_bits, self.b_bits, self.inner) - 1
    }

    fn problem(&self) -> Problem {
        let bits = |bits: u32, limbs: usize| bits.saturating_add(1).min(64 * limbs as u32);
        Problem {
            rows: self.rows,
            cols: self.cols,
            bits: self.bits(),
            a_bits: bits(self.a_bits, self.a_limbs),
            b_bits: bits(self.b_bits, self.b_limbs),
            modulus: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), KernelError> {
        for (what, limbs, bits) in [
            ("limbs of A", self.a_limbs, self.a_bits),
            ("limbs of B", self.b_limbs, self.b_bits),
        ] {
            if limbs == 0 || limbs > LIMBS_MAX {
                return Err(KernelError::Shape {
                    what,
                    expected: LIMBS_MAX,
                    found: limbs,
                });
            }
            if bits as usize > 64 * limbs {
                return Err(KernelError::Shape {
                    what,
                    expected: bits.div_ceil(64) as usize,
                    found: limbs,
                });
            }
        }
        let needed = output_limbs(self.a_bits, self.b_bits, self.inner);
        if self.c_limbs < needed || self.c_limbs > 2 * LIMBS_MAX + 2 {
            return Err(KernelError::Shape {
                what: "limbs of C",
                expected: needed,
                found: self.c_limbs,
            });
        }
        Ok(())
    }

    /// The bytes that a [`ResidueProduct`] (or the product in `f64`) and its input need for slabs of depth
    /// `k`; saturating.
    pub(crate) fn memory_bytes(&self, k: usize) -> usize {
        let mul = |x: usize, y: usize| x.saturating_mul(y);
        let (in_a, in_b, out) = (
            mul(self.rows, k),
            mul(k, self.cols),
            mul(self.rows, self.cols),
        );
        let way = self.way();
        let (a_limbs, b_limbs) = match way {
            Way::Direct => (1, 1),
            _ => (self.a_limbs, self.b_limbs),
        };
        let shape = (self.rows, k, self.cols);
        let product = match way {
            Way::Direct => {
                // No block is deeper.
                let depth = k.min(1 << 16);
                let packing = workspace_bytes::<f64>(Class::Any, self.rows, depth, self.cols);
                mul(8, out).saturating_add(packing)
            }
            Way::Short(planes) => ShortProduct::bytes(&pairs::kernel(), shape, planes),
            Way::Pairs => PairProduct::bytes(&pairs::kernel(), &self.problem(), k),
            Way::Floats => self.float_bytes(k),
        };
        [
            mul(8 * a_limbs, in_a),
            mul(8 * b_limbs, in_b),
            mul(8 * self.c_limbs, out),
            product,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

/// How an exact product is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In so many planes of 16-bit numbers.
    Short(usize),
    /// In `f64`, by the caller.
    Direct,
    Pairs,
    Floats,
}

/// An exact product, slab by slab: what C needs is kept, A and B are not.
#[derive(Debug)]
pub(crate) struct ResidueProduct {
    sizes: Sizes,
    taken: Taken,
}

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one of them, and what it points to is larger by far"
)]
enum Taken {
    Short(ShortProduct),
    Pairs(PairProduct),
    Floats(FloatProduct),
}

impl Taken {
    fn new(sizes: Sizes) -> Result<Self, KernelError> {
        let kernel = pairs::kernel();
        Ok(match sizes.way() {
            Way::Short(planes) => {
                Self::Short(ShortProduct::new(kernel, sizes.rows, sizes.cols, planes)?)
            }
            Way::Pairs => Self::Pairs(PairProduct::new(kernel, sizes.problem())?),
            Way::Floats | Way::Direct => Self::Floats(FloatProduct::new(sizes)?),
        })
    }
}

impl ResidueProduct {
    pub(crate) fn new(sizes: Sizes) -> Result<Self, KernelError> {
        Ok(Self {
            sizes,
            taken: Taken::new(sizes)?,
        })
    }

    /// Starts another product, in the same buffers if it is taken in the same way. If memory is refused,
    /// the product is unusable until this is called again.
    pub(crate) fn reset(&mut self, sizes: Sizes) -> Result<(), KernelError> {
        self.sizes = sizes;
        match (&mut self.taken, sizes.way()) {
            (Taken::Short(short), Way::Short(planes)) => {
                short.reset(sizes.rows, sizes.cols, planes)
            }
            (Taken::Pairs(pairs), Way::Pairs) => pairs.reset(sizes.problem()),
            (Taken::Floats(floats), Way::Floats) => floats.reset(sizes),
            (taken, _) => {
                // The old one is given back first, so that two are never held.
                *taken = Taken::Short(ShortProduct::new(pairs::kernel(), 0, 0, 0)?);
                *taken = Taken::new(sizes)?;
                Ok(())
            }
        }
    }

    /// `C += A·B` for A rows × depth and B depth × cols, row-major.
    pub(crate) fn accumulate(
        &mut self,
        a: &[u64],
        b: &[u64],
        depth: usize,
        workspace: &mut Workspace,
    ) -> Result<(), KernelError> {
        let sizes = &self.sizes;
        let left = Operand::rows(a, sizes.a_limbs, sizes.rows, depth);
        let right = Operand::columns(b, sizes.b_limbs, depth, sizes.cols);
        match &mut self.taken {
            Taken::Short(short) => short.accumulate(&left, &right),
            Taken::Pairs(pairs) => pairs.accumulate(&left, &right).map(drop),
            Taken::Floats(floats) => floats.accumulate(a, b, depth, workspace),
        }
    }

    /// Writes C, row-major, `c_limbs` limbs each, to `output` as little-endian bytes.
    pub(crate) fn finish(
        &mut self,
        output: &mut [u8],
        workspace: &mut Workspace,
    ) -> Result<(), KernelError> {
        match &mut self.taken {
            Taken::Short(short) => {
                short.finish(self.sizes.c_limbs, output);
                Ok(())
            }
            Taken::Pairs(pairs) => pairs.finish(self.sizes.c_limbs, output),
            Taken::Floats(floats) => floats.finish(output, workspace),
        }
    }
}
