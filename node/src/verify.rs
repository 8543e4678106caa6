//! Checks tiles that other devices computed, by Freivalds' random-vector test (see
//! `gemmesh_kernel::verify`), reading operands block by block.
//!
//! B·x is made once per job and column panel, A·(B·x) for all tiles of a row panel at once where they are few. The vectors are drawn here, from the system's
//! entropy, and never leave this process; after a rejection the panel's vector is retired.
//!
//! Where the test can not tell (operands with infinities, sums beyond the range), the tile is
//! computed here and compared: nothing of another device counts unseen.

mod stack;

use std::collections::{BTreeMap, BTreeSet};
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
use crate::present::Present;
use crate::store::{Store, StoreError};

/// Bytes of operands that a tile computed here keeps at a time: half as many as the tile has, within these.
const SLAB_MIN: u64 = 256 << 10;
/// See [`SLAB_MIN`].
const SLAB_MAX: u64 = 4 << 20;
/// Bytes of a vector for each row of B and each column of a tile.
const PROBE_BYTES: u64 = 16;

/// Up to so many column panels, and so many tiles, a row panel of A is read once for all its tiles.
const COLUMNS_MAX: u64 = 8;
const TILES_MAX: u64 = 1 << 15;
/// Rows of tiles that have not come and are multiplied all the same; each takes at most 17 bytes.
const AHEAD_ROWS_MAX: u64 = 1 << 18;

/// What a row of a tile that has not come takes.
const AHEAD_BYTES: u64 = 17;

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

/// What the checks of all jobs share.
#[derive(Debug)]
pub struct Checks {
    job_bytes: u64,
    computing: Arc<Mutex<()>>,
}

impl Checks {
    /// Of `bytes` for vectors each job may keep a quarter: more than four are seldom checked at a time.
    pub fn new(bytes: u64) -> Self {
        Self {
            job_bytes: bytes / 4,
            computing: Arc::default(),
        }
    }
}

/// The checks of one job.
pub struct Verifier {
    store: Store,
    present: Present,
    header: Arc<JobHeader>,
    a: MatrixId,
    b: MatrixId,
    panels: Mutex<Panels>,
    /// The most bytes of vectors that are kept.
    probes_bytes: u64,
    /// Held while a tile is computed here: one at a time on this node.
    computing: Arc<Mutex<()>>,
}

/// What was made of the operands' panels.
#[derive(Default)]
struct Panels {
    /// By the first column.
    probes: BTreeMap<u64, Arc<OnceCell<Arc<Probe>>>>,
    /// A·y for tiles that have not come yet, by first row and column.
    ahead: BTreeMap<(u64, u64), RowCheck<Arc<Probe>>>,
    /// First rows of row panels that were read for all their tiles.
    read: BTreeSet<u64>,
}

impl Panels {
    /// Drops a vector and what was made with it.
    fn retire(&mut self, col: u64) {
        self.probes.remove(&col);
        self.ahead.retain(|&(_, other), _| other != col);
    }
}

impl Verifier {
    /// For a job whose operands are in `store`, some of their blocks `present`.
    pub fn new(store: Store, present: Present, header: Arc<JobHeader>, checks: &Checks) -> Self {
        let (a, b) = (header.a.id(), header.b.id());
        Self {
            store,
            present,
            header,
            a,
            b,
            panels: Mutex::default(),
            probes_bytes: checks.job_bytes,
            computing: checks.computing.clone(),
        }
    }

    /// Whether `tile`, row-major, is A·B there, and the bytes that count. A wrong element escapes
    /// with the probability stated at [`Probe`]; a right tile is never refused.
    /// Cost: 2·(rows·inner + rows·cols) operations, and 2·inner·cols once per column panel, both panels read
    /// once where there are few column panels; the
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
                self.panels.lock().await.retire(rect.col);
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
        let ahead = self.panels.lock().await.ahead.remove(&(rect.row, rect.col));
        let check = match ahead {
            Some(check) => check,
            None => self.read_rows(rect).await?,
        };
        let bytes = bytes.clone();
        blocking(move || Ok(check.verdict(&bytes)?)).await
    }

    /// A·y for the rows of `rect`. The first time that these rows are read, it is made for all tiles
    /// of them: others will come, and reading costs more than multiplying.
    async fn read_rows(&self, rect: Rect) -> Result<RowCheck<Arc<Probe>>, VerifyError> {
        let tiling = &self.header.tiling;
        let mut columns = vec![rect];
        if tiling.grid_cols() <= COLUMNS_MAX && tiling.len() <= TILES_MAX {
            let mut panels = self.panels.lock().await;
            let ahead = panels.ahead.len() as u64 + tiling.grid_cols();
            let rows_max = AHEAD_ROWS_MAX.min(self.probes_bytes / 2 / AHEAD_BYTES);
            let room =
                ahead * tiling.tile_rows <= rows_max && tiling.grid_cols() <= self.probes_max(rect);
            if room && panels.read.insert(rect.row) {
                let others = (0..tiling.grid_cols()).map(|tile| tiling.rect(tile));
                columns.extend(others.filter(|other| other.col != rect.col));
            }
        }
        let mut probes = Vec::new();
        for column in columns {
            probes.push((column.col, self.probe_of(column).await?));
        }
        let inner = self.header.a.cols;
        let parts = self.header.a.grid().parts(Rect {
            col: 0,
            cols: inner,
            ..rect
        });
        let mut reader = self.store.reader(self.a, &self.present).await?;
        let checks = blocking(move || {
            let check = |(col, probe)| Ok((col, RowCheck::new(probe, rect.rows as usize)?));
            let checks: Result<Vec<_>, VerifyError> = probes.into_iter().map(check).collect();
            let mut checks = checks?;
            for part in parts {
                let block = reader.read(part.index)?;
                for (_, check) in &mut checks {
                    check.project_a(block, compute::placement(&part))?;
                }
            }
            Ok(checks)
        });
        let mut checks = checks.await?.into_iter();
        let (_, own) = checks.next().expect("its own is the first");
        let mut panels = self.panels.lock().await;
        for (col, check) in checks {
            // Not with a vector that was retired meanwhile.
            let probe = panels.probes.get(&col).and_then(|cell| cell.get());
            if probe.is_some_and(|probe| Arc::ptr_eq(probe, check.probe())) {
                panels.ahead.insert((rect.row, col), check);
            }
        }
        Ok(own)
    }

    /// The probe for the columns of `rect`, made when there is none.
    async fn probe_of(&self, rect: Rect) -> Result<Arc<Probe>, VerifyError> {
        let cell = {
            let mut panels = self.panels.lock().await;
            let most = self.probes_max(rect);
            while panels.probes.len() as u64 >= most && !panels.probes.contains_key(&rect.col) {
                // A job is computed panel by panel: the one farthest away is needed last.
                let far = |column: &u64| column.abs_diff(rect.col);
                let farthest = panels.probes.keys().copied().max_by_key(far);
                panels.retire(farthest.expect("more than none"));
            }
            panels.probes.entry(rect.col).or_default().clone()
        };
        let probe = cell
            .get_or_try_init(async || self.probe(rect).await.map(Arc::new))
            .await?;
        Ok(probe.clone())
    }

    /// How many panels' vectors are kept: half of what this job may keep.
    fn probes_max(&self, rect: Rect) -> u64 {
        let each = PROBE_BYTES * (self.header.a.cols + rect.cols);
        (self.probes_bytes / 2 / each).max(1)
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
        let parts = self.header.b.grid().parts(panel);
        let mut reader = self.store.reader(self.b, &self.present).await?;
        blocking(move || {
            loop {
                for part in &parts {
                    probe.project_b(reader.read(part.index)?, compute::placement(part))?;
                }
                // Columns with a NaN or an infinity would leave the others unchecked: once more without.
                if !probe.second_pass() {
                    return Ok(probe);
                }
            }
        })
        .await
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
            Dtype::Int | Dtype::Residues => |_| false,
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
        let tile = rect.rows * rect.cols * self.header.element.bytes();
        let depth = slab::depth(&self.header, rect, SLAB_MAX.min(tile / 2).max(SLAB_MIN));
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
        let shape = TileShape::of(header, rect);
        compute::spec(&shape, header.class)
    }
}

/// Runs `work` on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VerifyError> + Send + 'static,
) -> Result<T, VerifyError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| StoreError::Closed)?
}

fn of_class(spec: TileSpec, class: Class) -> TileSpec {
    TileSpec { class, ..spec }
}
