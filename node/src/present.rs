//! The blocks that the own worker keeps in memory, for all on this node who need their bytes: they are not
//! read from the disk, and not hashed, a second time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use gemmesh_protocol::id::BlockId;

/// A handle. What is there is for the worker's cache to say.
#[derive(Debug, Clone, Default)]
pub struct Present(Arc<RwLock<HashMap<BlockId, Bytes>>>);

impl Present {
    /// A block, if it is there; its hash was checked when it came.
    pub fn get(&self, id: &BlockId) -> Option<Bytes> {
        let blocks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        blocks.get(id).cloned()
    }

    /// Keeps a block.
    pub(crate) fn insert(&self, id: BlockId, bytes: Bytes) {
        let mut blocks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        blocks.insert(id, bytes);
    }

    /// Drops a block.
    pub(crate) fn remove(&self, id: &BlockId) {
        let mut blocks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        blocks.remove(id);
    }
}
