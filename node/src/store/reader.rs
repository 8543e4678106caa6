//! The blocks of one matrix one after the other, on a thread that may block: a turn of a thread and
//! memory of its own for each block would cost more than reading it.

use std::sync::Arc;

use bytes::Bytes;
use gemmesh_protocol::id::MatrixId;

use super::source::MatrixFile;
use super::{Shared, Store, StoreError};
use crate::present::Present;

/// Reads blocks from memory if they are there, else from the disk, their hashes checked.
pub struct BlockReader {
    id: MatrixId,
    source: MatrixFile,
    shared: Arc<Shared>,
    present: Present,
    /// The block that was read last: from the disk, or from memory.
    read: Vec<u8>,
    held: Bytes,
}

impl BlockReader {
    /// Bytes of block `index`.
    ///
    /// # Panics
    /// When the matrix has no such block; so do the others.
    pub fn block_bytes(&self, index: u32) -> usize {
        self.source.grid().block_bytes(u64::from(index)) as usize
    }

    /// Block `index`. Blocks.
    ///
    /// # Errors
    /// As [`Store::read_block`].
    pub fn read(&mut self, index: u32) -> Result<&[u8], StoreError> {
        if let Some(block) = self.present(index) {
            self.held = block;
            return Ok(&self.held);
        }
        let read = self.source.read_block(u64::from(index), &mut self.read);
        read.map_err(|error| self.shared.noticed(self.id, error))?;
        Ok(&self.read)
    }

    /// Adds block `index` to `bytes`. Blocks.
    ///
    /// # Errors
    /// As [`Store::read_block`]; what is in `bytes` then is of no use.
    pub fn append(&self, index: u32, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        if let Some(block) = self.present(index) {
            bytes.extend_from_slice(&block);
            return Ok(());
        }
        let read = self.source.append_block(u64::from(index), bytes);
        read.map_err(|error| self.shared.noticed(self.id, error))
    }

    fn present(&self, index: u32) -> Option<Bytes> {
        self.present
            .get(&self.source.manifest.blocks[index as usize])
    }
}

impl Store {
    /// For many blocks of the matrix `id`, some of which may be in memory.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or the system's.
    pub async fn reader(&self, id: MatrixId, present: &Present) -> Result<BlockReader, StoreError> {
        Ok(BlockReader {
            id,
            source: self.file(id).await?,
            shared: self.shared().clone(),
            present: present.clone(),
            read: Vec::new(),
            held: Bytes::new(),
        })
    }
}
