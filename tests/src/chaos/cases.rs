//! The products that are submitted, and what is right.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::room::NAMES;
use crate::integers::Integers;
use crate::matrices::{Matrix, Random};

/// How a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Exact integers of 62 bits.
    Int,
    /// f64, each device its fastest.
    Any,
    /// f64, the same bits everywhere.
    Reproducible,
}

/// A product: of which factors, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Product {
    /// Which factors.
    pub pair: usize,
    /// How.
    pub class: Class,
}

enum Pair {
    Int(Integers, Integers),
    F64(Matrix, Matrix),
}

/// Rows, inner, columns: small ones that only some nodes compute, and middle ones that keep all busy for
/// some seconds.
const INT: [[usize; 3]; 2] = [[250, 1_500, 260], [620, 2_600, 640]];
const F64: [[usize; 3]; 2] = [[800, 900, 700], [1_900, 1_700, 1_800]];

/// All products, and the results that were found right.
pub struct Cases {
    pairs: Vec<Pair>,
    right: Mutex<BTreeMap<Product, Vec<u8>>>,
}

impl Cases {
    /// Factors for each node.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random(seed ^ 0xca5e);
        let mut pairs = Vec::new();
        for _ in NAMES {
            for [m, k, n] in INT {
                let (a, b) = (random.bits(), random.bits());
                pairs.push(Pair::Int(
                    Integers::random(m, k, a),
                    Integers::random(k, n, b),
                ));
            }
            for [m, k, n] in F64 {
                let (a, b) = (random.bits(), random.bits());
                pairs.push(Pair::F64(Matrix::random(m, k, a), Matrix::random(k, n, b)));
            }
        }
        let right = Mutex::default();
        Self { pairs, right }
    }

    /// A product whose factors belong to a node.
    pub fn pick(&self, node: usize, random: &mut Random) -> Product {
        let each = self.pairs.len() / NAMES.len();
        let pair = node * each + random.bits() as usize % each;
        let class = match self.pairs[pair] {
            Pair::Int(..) => Class::Int,
            Pair::F64(..) if random.bits() & 1 == 0 => Class::Any,
            Pair::F64(..) => Class::Reproducible,
        };
        Product { pair, class }
    }

    /// Four products of a node's factors that keep the mesh busy for some seconds.
    pub fn large(&self, node: usize) -> [Product; 4] {
        let first = node * self.pairs.len() / NAMES.len();
        let product = |pair, class| Product {
            pair: first + pair,
            class,
        };
        let (int, f64) = (INT.len() - 1, INT.len() + F64.len() - 1);
        [
            product(int, Class::Int),
            product(int, Class::Int),
            product(f64, Class::Any),
            product(f64, Class::Reproducible),
        ]
    }

    /// The factors of a pair, as `.npy`.
    pub fn factors(&self, pair: usize) -> [Vec<u8>; 2] {
        match &self.pairs[pair] {
            Pair::Int(a, b) => [a.npy(), b.npy()],
            Pair::F64(a, b) => [a.npy(), b.npy()],
        }
    }

    /// What is submitted.
    pub fn request(product: Product, [a, b]: &[String; 2]) -> Value {
        json!({"a": a, "b": b, "reproducible": product.class == Class::Reproducible})
    }

    /// How a result is asked for: integers of more than 64 bits are text.
    pub fn format(product: Product) -> &'static str {
        match product.class {
            Class::Int => "csv",
            Class::Any | Class::Reproducible => "npy",
        }
    }

    /// Why these bytes are not the product, if they are not. Exact and reproducible products must be
    /// those that were found right before, byte for byte.
    pub fn fault(&self, product: Product, result: &[u8]) -> Option<String> {
        let mut right = self.right.lock().expect("no holder panics");
        if let Some(right) = right.get(&product) {
            return (right != result).then(|| "it is not what it was before".to_owned());
        }
        let fault = match &self.pairs[product.pair] {
            Pair::Int(a, b) => a.product_fault(b, result),
            Pair::F64(a, b) => {
                let c = Matrix::from_npy(result);
                let strict = product.class == Class::Reproducible;
                c.product_fault(a, b)
                    .or_else(|| strict.then(|| c.separate_fault(a, b)).flatten())
            }
        };
        if fault.is_none() && product.class != Class::Any {
            right.insert(product, result.to_vec());
        }
        fault
    }
}
