//! Guarded products, as a node carries them out: shares are made of the factors and written as matrices, so that they are
//! served, checked and stored like those of any job; what comes back is put together tile by tile.
//!
//! What is decided, and who has which share, is `gemmesh_protocol::engine`'s; the arithmetic is
//! `gemmesh_kernel::coding`'s.

mod decode;
mod encode;
mod scale;

use std::sync::Arc;
use std::time::Instant;

use gemmesh_kernel::KernelError;
use gemmesh_kernel::coding::residues::{self, Crt};
use gemmesh_kernel::coding::uniform::Entropy;
use gemmesh_kernel::coding::{Code, Field, Parameters, Scheme, Side, fixed, masked};
use gemmesh_protocol::coded;
use gemmesh_protocol::id::{BlockId, Epoch, JobId};
use gemmesh_protocol::job::{Guard, JobHeader, KernelClass, Operand, ShareOf};
use gemmesh_protocol::matrix::{Dtype, ElementType, Manifest};
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::status::Mode;
use gemmesh_protocol::tile::Tiling;
use tokio::sync::Mutex;

pub(crate) use decode::Tiles;

use crate::app::App;
use crate::error::ApiError;
use crate::os;

/// The largest tile of a guarded product: elements of its shares are up to four times as large.
pub(crate) const TILE_BYTES_MAX: u64 = 2 << 20;

/// Bits that are kept of a float of 64 and of 32 bits: all that it has, and of the short ones two more, which their
/// products would lose to rounding.
const BITS_F64: u16 = 53;
const BITS_F32: u16 = 26;

/// The operating system's random numbers.
struct System;

impl Entropy for System {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), KernelError> {
        getrandom::fill(bytes).map_err(|_| KernelError::Entropy)
    }
}

/// How a product of these factors is guarded.
///
/// # Errors
/// 422 when its elements may be larger than all primes together.
pub(crate) fn guard(
    mode: Mode,
    (colluders, spares): (u32, u32),
    a: &Manifest,
    b: &Manifest,
) -> Result<Guard, ApiError> {
    let inner = usize::try_from(a.cols).unwrap_or(usize::MAX);
    let refused = |error: KernelError| {
        ApiError::new(
            422,
            "too_large",
            format!("the product can not be shared: {error}"),
            "use smaller numbers or a shorter inner dimension, or mode plain",
        )
    };
    let bits_kept = match a.element.dtype {
        Dtype::F64 => BITS_F64,
        Dtype::F32 => BITS_F32,
        Dtype::Int | Dtype::Residues => 0,
    };
    let bits = match bits_kept {
        // |sum| < inner·2^(bits of A + bits of B).
        0 => a.bits + b.bits + inner.next_power_of_two().ilog2() + 1,
        kept => fixed::product_bits(kept.into(), inner).map_err(refused)?,
    };
    let primes = residues::fields_for(bits).map_err(refused)?;
    Ok(Guard {
        mode,
        colluders,
        spares,
        primes: primes as u16,
        bits_kept,
    })
}

/// A product that is shared: what it takes to put it together.
pub(crate) struct Shared {
    header: Arc<JobHeader>,
    guard: Guard,
    codes: Vec<Code>,
    fields: Vec<Field>,
    crt: Mutex<Crt>,
    cuts: [Cut; 2],
    /// Rows and columns of a share's answer.
    answer: [u64; 2],
    /// Exponents of the rows of A and of the columns of B.
    scales: [Vec<i32>; 2],
}

/// How a factor is cut into parts, of which all have one size; what is missing at the edges is zeros.
#[derive(Debug, Clone, Copy)]
struct Cut {
    rows: u64,
    cols: u64,
    part_rows: u64,
    part_cols: u64,
    down: u64,
    across: u64,
}

/// What a scheme is to the kernel.
fn parameters(sharing: &coded::Sharing, guard: &Guard) -> Option<Parameters> {
    let (scheme, spares) = match sharing.scheme {
        coded::Scheme::Masked => return None,
        coded::Scheme::InnerProduct { parts } => {
            let parts = parts as usize;
            (Scheme::InnerProduct { parts }, 0)
        }
        coded::Scheme::InnerProductAny { parts } => {
            let parts = parts as usize;
            (Scheme::InnerProductAny { parts }, guard.spares as usize)
        }
        coded::Scheme::Gasp { rows, cols, chain } => {
            let [rows, cols, chain] = [rows, cols, chain].map(|n| n as usize);
            (Scheme::Gasp { rows, cols, chain }, guard.spares as usize)
        }
    };
    Some(Parameters {
        scheme,
        colluders: guard.colluders as usize,
        spares,
    })
}

/// The size of a part: rounded up to whole tiles if there are several, since tiles of answers become tiles of C.
fn part(size: u64, parts: u64, tile: u64) -> u64 {
    match parts {
        1 => size,
        _ => size.div_ceil(parts).next_multiple_of(tile),
    }
}

impl Shared {
    fn new(header: Arc<JobHeader>, sharing: &coded::Sharing) -> Result<Self, KernelError> {
        let guard = **header.guard.as_ref().expect("a guarded product");
        let fields = residues::fields(guard.primes.into())?;
        let code = |field: &Field| match parameters(sharing, &guard) {
            Some(parameters) => Code::new(parameters, *field),
            None => masked::code(*field),
        };
        let codes = fields.iter().map(code).collect::<Result<_, _>>()?;
        let [down, parts, across] = sharing.scheme.cut().map(u64::from);
        let (m, k, n) = (header.a.rows, header.a.cols, header.b.cols);
        let rows = part(m, down, header.tiling.tile_rows);
        let cols = part(n, across, header.tiling.tile_cols);
        let inner = k.div_ceil(parts);
        let cut = |rows, cols, part_rows, part_cols, down, across| Cut {
            rows,
            cols,
            part_rows,
            part_cols,
            down,
            across,
        };
        Ok(Self {
            crt: Mutex::new(Crt::new(&fields)?),
            codes,
            fields,
            cuts: [
                cut(m, k, rows, inner, down, parts),
                cut(k, n, inner, cols, parts, across),
            ],
            answer: [rows, cols],
            scales: [Vec::new(), Vec::new()],
            header,
            guard,
        })
    }

    fn element(&self) -> ElementType {
        ElementType {
            dtype: Dtype::Residues,
            limbs: self.guard.primes,
        }
    }

    /// The job of one share.
    fn share(&self, number: usize, a: Manifest, b: Manifest) -> Taken {
        let [rows, cols] = self.answer;
        let tiling = Tiling {
            rows,
            cols,
            ..self.header.tiling
        };
        Taken {
            header: JobHeader {
                job: JobId(os::random()),
                name: String::new(),
                class: KernelClass::Exact,
                a,
                b,
                element: self.element(),
                tiling,
                stack: 1,
                batch: None,
                guard: None,
                share: Some(ShareOf {
                    product: self.header.job,
                    number: number as u16,
                }),
            },
            submitted: os::wall(),
            token: BlockId(os::random()),
        }
    }
}

/// Shares that were made.
pub(crate) struct Encoded {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shares: Vec<Taken>,
    pub(crate) seconds: f64,
}

/// Makes the shares of both factors with fresh masks, and a durable job for each.
///
/// # Errors
/// What is wrong with the factors, or the disk.
pub(crate) async fn encode(
    app: &App,
    header: Arc<JobHeader>,
    sharing: &coded::Sharing,
) -> Result<Encoded, ApiError> {
    let start = Instant::now();
    let mut shared = Shared::new(header, sharing).map_err(kernel)?;
    let store = app.store();
    let ids = [shared.header.a.id(), shared.header.b.id()];
    if shared.guard.bits_kept > 0 {
        let [a, b] = ids;
        shared.scales = [
            scale::of_rows(store.source(a).await?).await?,
            scale::of_columns(store.source(b).await?).await?,
        ];
    }
    let shared = Arc::new(shared);
    let mut factors = Vec::new();
    for (side, id) in [Side::Left, Side::Right].into_iter().zip(ids) {
        let source = store.source(id).await?;
        let to = shared.clone();
        let count = sharing.shares as usize;
        let made = store.write_matrices(count, move |drafts| {
            encode::encode(&to, side, source, drafts)
        });
        factors.push(made.await?);
    }
    let (right, left) = (factors.pop(), factors.pop());
    let pairs = left.into_iter().flatten().zip(right.into_iter().flatten());
    let share = |(number, (a, b))| shared.share(number, a, b);
    let shares: Vec<Taken> = pairs.enumerate().map(share).collect();
    if let Some(wrong) = shares.iter().find_map(|share| share.header.check().err()) {
        return Err(ApiError::new(
            422,
            "not_computable",
            format!("the product can not be shared: {wrong}"),
            "submit smaller pieces, or in mode plain",
        ));
    }
    let first = Epoch {
        counter: 1,
        device: app.device(),
    };
    store.insert_jobs(shares.clone(), first).await?;
    Ok(Encoded {
        shared,
        shares,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The factors of a share, to be removed with it.
pub(crate) fn factors(header: &JobHeader) -> Vec<gemmesh_protocol::id::MatrixId> {
    [Operand::A, Operand::B]
        .map(|operand| header.manifest(operand).id())
        .into()
}

fn kernel(error: KernelError) -> ApiError {
    ApiError::new(
        503,
        "not_shared",
        format!("shares could not be made: {error}"),
        "try again, or in mode plain",
    )
}
