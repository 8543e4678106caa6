//! The side of residues of [`crate::verify`]: so many secret vectors modulo each prime that a wrong tile passes
//! with a probability of at most 2^-60.

use alloc::vec::Vec;

use super::Verdict;
use crate::arch::widest;
use crate::coding::{Field, residues};
use crate::matrix::{KernelError, product, push, resize};
use crate::random::ChaCha;
use crate::tile::Placement;

/// A wrong tile passes with a probability of at most 2^-60.
const SURE_BITS: f64 = 60.0;
const WORD: usize = 2;

/// What belongs to one prime.
#[derive(Debug)]
struct Plane {
    field: Field,
    trials: usize,
    /// The vectors x_t, one after the other; canonical, as all here.
    x: Vec<i16>,
    /// B·x_t.
    y: Vec<i16>,
}

#[derive(Debug)]
pub(super) struct Probe {
    inner: usize,
    cols: usize,
    planes: Vec<Plane>,
}

impl Probe {
    pub(super) fn new(
        primes: usize,
        inner: usize,
        cols: usize,
        mut random: ChaCha,
    ) -> Result<Self, KernelError> {
        let mut planes = Vec::new();
        for field in residues::fields(primes)? {
            let bits = libm::log2(f64::from(field.prime()));
            let trials = libm::ceil(SURE_BITS / bits) as usize;
            let (mut x, mut y) = (Vec::new(), Vec::new());
            resize(&mut x, product("secret vectors", &[trials, cols])?, 0)?;
            resize(&mut y, product("secret vectors", &[trials, inner])?, 0)?;
            for x in &mut x {
                *x = field.plus(0, random.below(field.prime().into()) as i64);
            }
            let plane = Plane {
                field,
                trials,
                x,
                y,
            };
            push(&mut planes, plane)?;
        }
        Ok(Self {
            inner,
            cols,
            planes,
        })
    }

    pub(super) fn project_b(
        &mut self,
        block: &[u8],
        placement: &Placement,
        extent: (usize, usize),
    ) -> Result<(), KernelError> {
        let (inner, cols, width) = (self.inner, self.cols, WORD * self.planes.len());
        let mut words = Vec::new();
        resize(&mut words, placement.cols, 0)?;
        let planes = &mut self.planes;
        placement.for_each_row(block, width, extent, |row, col, bytes| {
            for (q, plane) in planes.iter_mut().enumerate() {
                take(bytes, width, WORD * q, &mut words);
                for (x, y) in plane
                    .x
                    .chunks_exact(cols)
                    .zip(plane.y.chunks_exact_mut(inner))
                {
                    y[row] = plane.field.plus(y[row], dot(&words, &x[col..]));
                }
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
pub(super) struct Rows {
    rows: usize,
    /// v_t = A·y_t for each prime.
    v: Vec<Vec<i16>>,
}

impl Rows {
    pub(super) fn new(probe: &Probe, rows: usize) -> Result<Self, KernelError> {
        let mut v = Vec::new();
        for plane in &probe.planes {
            let mut one = Vec::new();
            resize(&mut one, product("checked rows", &[plane.trials, rows])?, 0)?;
            push(&mut v, one)?;
        }
        Ok(Self { rows, v })
    }

    pub(super) fn project_a(
        &mut self,
        probe: &Probe,
        block: &[u8],
        placement: &Placement,
        extent: (usize, usize),
    ) -> Result<(), KernelError> {
        let (rows, width) = (self.rows, WORD * probe.planes.len());
        let mut words = Vec::new();
        resize(&mut words, placement.cols, 0)?;
        let all = &mut self.v;
        placement.for_each_row(block, width, extent, |row, col, bytes| {
            for (q, (plane, v)) in probe.planes.iter().zip(&mut *all).enumerate() {
                take(bytes, width, WORD * q, &mut words);
                for (y, v) in plane
                    .y
                    .chunks_exact(probe.inner)
                    .zip(v.chunks_exact_mut(rows))
                {
                    v[row] = plane.field.plus(v[row], dot(&words, &y[col..]));
                }
            }
            Ok(())
        })
    }

    pub(super) fn verdict(
        &self,
        probe: &Probe,
        c_bytes: &[u8],
        row_bytes: usize,
    ) -> Result<Verdict, KernelError> {
        let width = WORD * probe.planes.len();
        let mut words = Vec::new();
        resize(&mut words, probe.cols, 0)?;
        for (row, bytes) in c_bytes.chunks_exact(row_bytes.max(1)).enumerate() {
            for (q, (plane, v)) in probe.planes.iter().zip(&self.v).enumerate() {
                take(bytes, width, WORD * q, &mut words);
                let most = (plane.field.prime() / 2) as i16;
                let canonical = words.iter().all(|x| (-most..=most).contains(x));
                let vectors = plane.x.chunks_exact(probe.cols);
                let mut pairs = vectors.zip(v.chunks_exact(self.rows));
                if !canonical || !pairs.all(|(x, v)| plane.field.plus(0, dot(&words, x)) == v[row])
                {
                    return Ok(Verdict::Rejected);
                }
            }
        }
        Ok(Verdict::Accepted)
    }
}

/// Every `width`-th word from `offset` on.
fn take(bytes: &[u8], width: usize, offset: usize, to: &mut [i16]) {
    for (to, element) in to.iter_mut().zip(bytes.chunks_exact(width)) {
        *to = i16::from_le_bytes([element[offset], element[offset + 1]]);
    }
}

/// Products that are summed in 32 bits: of any 16-bit number and one of at most 11 bits and a sign.
const TURN: usize = 32;

widest! {
    fn dot(x: &[i16], y: &[i16]) -> i64 {
        let turns = x.chunks(TURN).zip(y.chunks(TURN));
        let sum = |(x, y): (&[i16], &[i16])| {
            x.iter().zip(y).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum::<i32>()
        };
        turns.map(|turn| i64::from(sum(turn))).sum()
    }
}
