//! Checks tiles that other devices computed, by Freivalds' random-vector test (see
//! `gemmesh_kernel::verify`), reading operands block by block.
//!
//! B·x is made once per job and column panel. The vectors are drawn here, from the system's
//! entropy, and never leave this process; after a rejection the panel's vector is retired.
//!
//! Where the test can not tell (operands with infinities, sums beyond the range), the tile is
//! computed here and compared: nothing of another device counts unseen.

mod stack;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gemmesh_kernel::gemm::Class;
use gemmesh_kernel::tile::{TileProduct, TileSpec};
use gemmesh_kernel::verify::{Probe, RowCheck, Verdict};
use gemmesh_protocol::id::MatrixId;
use gemmesh_protocol::io::{Checked, TileShape};
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::matrix::{Dtype, Part};
use gemmesh_protocol::message::Work;
use gemmesh_protocol::slab::{self, Slab};
use gemmesh_protocol::tile::Rect;
use gemmesh_protocol::time::Span;
use tokio::sync::{Mutex, OnceCell};

use crate::compute;
use crate::os;
use crate::store::{Store, StoreError};

/// Bytes of operands that a tile computed here keeps at a time.
const SLAB_BYTES_MAX: u64 = 4 << 20;

/// Why a tile could not be checked. It says nothing about the tile.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An operand can not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No memory for the vectors.
    #[error(transparent)]
    Kernel(#[from] gemmesh_kernel::KernelError),
}

/// The checks of one job.
pub struct Verifier {
    store: Store,
    header: Arc<JobHeader>,
    a: MatrixId,
    b: MatrixId,
    /// By the first column of the panel.
    probes: Mutex<BTreeMap<u64, Arc<OnceCell<Probe>>>>,
    /// Held while a tile is computed here: one at a time for each job.
    computing: Mutex<()>,
}

impl Verifier {
    /// For a job whose operands are in `store`.
    pub fn new(store: Store, header: Arc<JobHeader>, a: MatrixId, b: MatrixId) -> Self {
        Self {
            store,
            header,
            a,
            b,
            probes: Mutex::default(),
            computing: Mutex::default(),
        }
    }

    /// Whether `tile`, row-major, is A·B there, and the bytes that count. A wrong element escapes
    /// with the probability stated at [`Probe`]; a right tile is never refused.
    /// Cost: 2·(rows·inner + rows·cols) operations, and 2·inner·cols once per column panel; the
    /// whole product, once for each way of rounding, where that does not tell.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn check(&self, tile: u32, bytes: Bytes) -> Result<(Checked, Bytes), VerifyError> {
        let rect = self.header.tiling.rect(u64::from(tile));
        if bytes.len() as u64 != rect.rows * rect.cols * self.header.element.bytes() {
            return Ok((Checked::Wrong, bytes));
        }
        match self.project(rect, &bytes).await? {
            Verdict::Accepted => Ok((Checked::Right, bytes)),
            Verdict::Rejected => {
                self.probes.lock().await.remove(&rect.col);
                Ok((Checked::Wrong, bytes))
            }
            Verdict::Undecided => self.compare(rect, bytes).await,
        }
    }

    /// Freivalds' test.
    async fn project(&self, rect: Rect, bytes: &Bytes) -> Result<Verdict, VerifyError> {
        if let Some(span) = self.header.span(rect) {
            return self.project_stack(rect, span, bytes).await;
        }
        let cell = self
            .probes
            .lock()
            .await
            .entry(rect.col)
            .or_default()
            .clone();
        let probe = cell.get_or_try_init(|| self.probe(rect)).await?;
        let mut check = RowCheck::new(probe, rect.rows as usize)?;
        let inner = self.header.a.cols;
        for part in self.header.a.grid().parts(Rect {
            col: 0,
            cols: inner,
            ..rect
        }) {
            let block = self.store.read_block(self.a, part.index).await?;
            check.project_a(&block, compute::placement(&part))?;
        }
        Ok(check.verdict(bytes)?)
    }

    /// x and B·x for the columns of `rect`.
    async fn probe(&self, rect: Rect) -> Result<Probe, VerifyError> {
        let inner = self.header.b.rows;
        let (element, cols) = (self.spec(rect).element, rect.cols as usize);
        let mut probe = Probe::new(element, inner as usize, cols, os::random())?;
        let panel = Rect {
            row: 0,
            rows: inner,
            col: rect.col,
            cols: rect.cols,
        };
        loop {
            for part in self.header.b.grid().parts(panel) {
                let block = self.store.read_block(self.b, part.index).await?;
                probe.project_b(&block, compute::placement(&part))?;
            }
            // Columns with a NaN or an infinity would leave the others unchecked: once more without.
            if !probe.second_pass() {
                return Ok(probe);
            }
        }
    }

    /// Computes the tile and compares. In class `any` a device may round each step of an element
    /// once or twice; either is right.
    async fn compare(&self, rect: Rect, bytes: Bytes) -> Result<(Checked, Bytes), VerifyError> {
        let _alone = self.computing.lock().await;
        let spec = self.spec(rect);
        let (own, mut kernel) = self.compute(rect, spec).await?;
        let mut right = self.same(&bytes, &[&own]);
        if !right && spec.class == Class::Any {
            let (fused, once) = self.compute(rect, of_class(spec, Class::Fused)).await?;
            let (separate, twice) = self.compute(rect, of_class(spec, Class::Separate)).await?;
            kernel = Span(kernel.0 + once.0 + twice.0);
            right = self.same(&bytes, &[&fused, &separate]);
        }
        if right {
            return Ok((Checked::Right, bytes));
        }
        let work = Work {
            kernel,
            transfer: Span(0),
            busy: kernel,
        };
        Ok((Checked::Replaced(work), own))
    }

    /// Whether each element is that of one of `products`; any NaN is as good as another.
    fn same(&self, bytes: &[u8], products: &[&Bytes]) -> bool {
        let width = self.header.element.bytes() as usize;
        let nan: fn(&[u8]) -> bool = match self.header.element.dtype {
            Dtype::F64 => |x| x.try_into().is_ok_and(|x| f64::from_le_bytes(x).is_nan()),
            Dtype::F32 => |x| x.try_into().is_ok_and(|x| f32::from_le_bytes(x).is_nan()),
            Dtype::Int => |_| false,
        };
        bytes.chunks_exact(width).enumerate().all(|(i, element)| {
            products.iter().any(|product| {
                let own = &product[i * width..(i + 1) * width];
                own == element || (nan(own) && nan(element))
            })
        })
    }

    /// The tile by this node's own kernel, slab by slab, and the time in the kernel.
    async fn compute(&self, rect: Rect, spec: TileSpec) -> Result<(Bytes, Span), VerifyError> {
        let inner = self.header.a.cols;
        let depth = slab::depth(&self.header, rect, SLAB_BYTES_MAX);
        let (mut product, mut kernel, mut from) = (TileProduct::default(), Span(0), 0);
        let stack = self.header.span(rect).map(compute::stack);
        product.start(spec, stack)?;
        while from < inner {
            let slab = Slab::new(&self.header, rect, from, depth);
            product.begin_slab((slab.to - slab.from) as usize)?;
            for (_, part) in &slab.a {
                let block = self.store.read_block(self.a, part.index).await?;
                product.put_a(&block, compute::placement(part))?;
            }
            for (_, part) in &slab.b {
                let block = self.store.read_block(self.b, part.index).await?;
                product.put_b(&block, compute::placement(part))?;
            }
            let work = tokio::task::spawn_blocking(move || {
                let start = Instant::now();
                product.accumulate()?;
                Ok::<_, VerifyError>((product, start.elapsed()))
            });
            let (done, took) = work.await.map_err(|_| StoreError::Closed)??;
            product = done;
            kernel.0 += took.as_micros() as u64;
            from = slab.to;
        }
        Ok((product.finish()?.into(), kernel))
    }

    fn spec(&self, rect: Rect) -> TileSpec {
        let header = &self.header;
        let shape = TileShape {
            rows: rect.rows,
            cols: rect.cols,
            inner: header.a.cols,
            a: header.a.element,
            a_bits: header.a.bits,
            b: header.b.element,
            b_bits: header.b.bits,
            c: header.element,
            stack: header.span(rect),
        };
        compute::spec(&shape, header.class)
    }
}

fn of_class(spec: TileSpec, class: Class) -> TileSpec {
    TileSpec { class, ..spec }
}
