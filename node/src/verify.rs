//! Checks tiles that other devices computed, by Freivalds' random-vector test (see
//! `gemmesh_kernel::verify`), reading operands block by block.
//!
//! B·x is made once per job and column panel. The vectors are drawn here, from the system's
//! entropy, and never leave this process; after a rejection the panel's vector is retired.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gemmesh_kernel::tile::Element;
use gemmesh_kernel::verify::{Probe, RowCheck};
use gemmesh_protocol::id::MatrixId;
use gemmesh_protocol::io::TileShape;
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::tile::Rect;
use tokio::sync::{Mutex, OnceCell};

use crate::compute;
use crate::os;
use crate::store::{Store, StoreError};

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
        }
    }

    /// Whether `tile`, row-major, is A·B there. A wrong element escapes with the probability
    /// stated at [`Probe`]; a right tile is never refused.
    /// Cost: 2·(rows·inner + rows·cols) operations, and 2·inner·cols once per column panel.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn accepts(&self, tile: u32, bytes: &Bytes) -> Result<bool, VerifyError> {
        let rect = self.header.tiling.rect(u64::from(tile));
        let element = self.element();
        if bytes.len() as u64 != rect.rows * rect.cols * self.header.element.bytes() {
            return Ok(false);
        }
        let cell = self
            .probes
            .lock()
            .await
            .entry(rect.col)
            .or_default()
            .clone();
        let probe = cell.get_or_try_init(|| self.probe(element, rect)).await?;
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
        let accepted = check.accept(bytes);
        if !accepted {
            self.probes.lock().await.remove(&rect.col);
        }
        Ok(accepted)
    }

    /// x and B·x for the columns of `rect`.
    async fn probe(&self, element: Element, rect: Rect) -> Result<Probe, VerifyError> {
        let inner = self.header.b.rows;
        let mut probe = Probe::new(element, inner as usize, rect.cols as usize, os::random())?;
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

    fn element(&self) -> Element {
        let header = &self.header;
        let shape = TileShape {
            rows: 1,
            cols: 1,
            inner: header.a.cols,
            a: header.a.element,
            a_bits: header.a.bits,
            b: header.b.element,
            b_bits: header.b.bits,
            c: header.element,
        };
        compute::spec(&shape, header.class).element
    }
}
