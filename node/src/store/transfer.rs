//! Matrices from node to node: the manifest, then all blocks, with their hashes checked on both
//! sides.
//!
//! ```text
//! u32, big-endian     bytes of the manifest
//! manifest            MessagePack
//! blocks              in the order of the manifest, without anything between them
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use gemmesh_protocol::id::MatrixId;
use gemmesh_protocol::matrix::Manifest;

use super::draft::Draft;
use super::source::MatrixFile;
use super::{CancelOnDrop, Store, StoreError, blocking, lock, pack, pieces};
use crate::error::ApiError;
use crate::files::unprocessable;

/// The most bytes of a manifest: 2^20 hashes of 34 bytes, and room.
const MANIFEST_BYTES_MAX: usize = 40 << 20;

/// A matrix being sent.
struct Sending {
    source: MatrixFile,
    head: Option<Bytes>,
    next: u64,
}

impl Sending {
    fn next_bytes(&mut self) -> Result<Option<Bytes>, StoreError> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        if self.next == self.source.manifest.blocks.len() as u64 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.source.read_block(self.next, &mut bytes)?;
        self.next += 1;
        Ok(Some(bytes.into()))
    }
}

impl Store {
    /// The matrix `id` in the form of this module, block by block.
    pub fn export_blocks(
        &self,
        id: MatrixId,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let (store, shared) = (self.clone(), self.shared().clone());
        pieces(
            async move {
                let source = store.file(id).await?;
                let manifest = pack(&*source.manifest);
                let len = u32::try_from(manifest.len()).expect("manifests are bounded");
                let head = [&len.to_be_bytes()[..], &manifest].concat();
                Ok(Sending {
                    source,
                    head: Some(head.into()),
                    next: 0,
                })
            },
            Sending::next_bytes,
            move |error| shared.noticed(id, error),
        )
    }

    /// Takes what [`Store::export_blocks`] sends. Durable on return. Memory: the manifest and
    /// about two blocks; a stream of another matrix than `wanted` is refused, one that is longer than its manifest says is not read on.
    ///
    /// # Errors
    /// `bad_blocks` when the stream is not of this form, ends early, or a block has not its hash;
    /// `disk_budget`; the other codes of [`super`].
    pub async fn import_blocks<S, E>(
        &self,
        stream: S,
        wanted: Option<MatrixId>,
    ) -> Result<Manifest, ApiError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        let permit = self.shared().imports.acquire().await;
        let _permit = permit.map_err(|_| StoreError::Closed)?;
        let mut stream = Incoming {
            stream: Box::pin(stream),
            buffer: BytesMut::new(),
        };
        let len = stream.take(4).await?.get_u32() as usize;
        if len > MANIFEST_BYTES_MAX {
            return Err(bad_blocks("its manifest is too long"));
        }
        let manifest = stream.take(len).await?;
        let manifest: Manifest = rmp_serde::from_slice(&manifest)
            .map_err(|error| bad_blocks(format!("its manifest does not decode: {error}")))?;
        manifest
            .check()
            .map_err(|error| bad_blocks(error.to_string()))?;
        let id = manifest.id();
        if wanted.is_some_and(|wanted| wanted != id) {
            return Err(bad_blocks("it is another matrix"));
        }
        if let Ok(there) = self.manifest(id).await {
            return Ok(Manifest::clone(&there));
        }
        let shared = self.shared().clone();
        lock(&shared.catalog).check_room()?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(cancelled.clone());
        let mut draft = Draft::new(shared.blocks.clone(), shared.budget.clone(), cancelled);
        let manifest = Arc::new(manifest);
        let (rows, cols, element) = (manifest.rows, manifest.cols, manifest.element);
        draft = blocking(move || draft.announce(rows, cols, element).map(|()| draft)).await?;
        let grid = manifest.grid();
        for (index, expected) in (0..).zip(&manifest.blocks) {
            let bytes = stream.take(grid.block_bytes(index) as usize).await?;
            let written = blocking(move || {
                let id = draft.write_block(index, &bytes)?;
                Ok::<_, StoreError>((draft, id))
            });
            let (back, found) = written.await?;
            draft = back;
            if found != *expected {
                return Err(bad_blocks(format!("block {index} does not have its hash")));
            }
        }
        let finished = blocking(move || draft.finish()).await?;
        // A wrong bit length would make exact products of this matrix wrong.
        if finished.manifest != *manifest {
            return Err(bad_blocks("its elements are not as long as it says"));
        }
        Ok(self.keep(finished).await?)
    }
}

fn bad_blocks(what: impl std::fmt::Display) -> ApiError {
    unprocessable(
        "bad_blocks",
        format!("the other node sent a matrix that is not what it says: {what}"),
        "try again; if it stays so, that node's disk or memory may be faulty",
    )
}

/// A stream of bytes, read in pieces of a wanted length.
struct Incoming<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S, E> Incoming<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    async fn take(&mut self, len: usize) -> Result<Bytes, ApiError> {
        while self.buffer.len() < len {
            match self.stream.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(bad_blocks(format!("it broke off: {error}"))),
                None => return Err(bad_blocks("it ends early")),
            }
        }
        Ok(self.buffer.split_to(len).freeze())
    }
}
