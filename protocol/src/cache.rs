//! Which blocks the shell keeps for the worker. Only ids and sizes: the bytes are the shell's.

use std::collections::BTreeMap;

use crate::id::BlockId;

/// The books of the block cache: present, pinned, least recently used.
#[derive(Debug)]
pub struct BlockCache {
    bytes_max: u64,
    bytes: u64,
    pinned: u64,
    clock: u64,
    entries: BTreeMap<BlockId, Entry>,
    /// Unpinned blocks by last use.
    idle: BTreeMap<u64, BlockId>,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    pins: u32,
    used: u64,
}

impl BlockCache {
    /// An empty cache that should hold at most `bytes_max`; pinned blocks may exceed it.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            pinned: 0,
            clock: 0,
            entries: BTreeMap::new(),
            idle: BTreeMap::new(),
        }
    }

    /// What it should hold at most.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes of blocks that are pinned.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Whether the block is there.
    pub fn contains(&self, id: &BlockId) -> bool {
        self.entries.contains_key(id)
    }

    /// The shell has the block now.
    pub fn insert(&mut self, id: BlockId, bytes: u64) {
        if self.entries.contains_key(&id) {
            return;
        }
        self.clock += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.idle.insert(self.clock, id);
        let used = self.clock;
        self.entries.insert(
            id,
            Entry {
                bytes,
                pins: 0,
                used,
            },
        );
    }

    /// Keeps a block that is there until as many calls of [`BlockCache::unpin`].
    ///
    /// # Panics
    /// When it is not there.
    pub fn pin(&mut self, id: &BlockId) {
        let entry = self.entries.get_mut(id).expect("a present block is pinned");
        if entry.pins == 0 {
            self.pinned += entry.bytes;
            self.idle.remove(&entry.used);
        }
        entry.pins += 1;
    }

    /// Takes one pin back.
    ///
    /// # Panics
    /// When it is not pinned.
    pub fn unpin(&mut self, id: &BlockId) {
        let entry = self
            .entries
            .get_mut(id)
            .expect("a pinned block is not evicted");
        assert!(entry.pins > 0, "as many unpins as pins");
        entry.pins -= 1;
        if entry.pins == 0 {
            self.pinned -= entry.bytes;
            self.clock += 1;
            entry.used = self.clock;
            self.idle.insert(self.clock, *id);
        }
    }

    /// Takes out the least recently used block while there is too much; the shell must drop it.
    pub fn evict(&mut self) -> Option<BlockId> {
        if self.bytes <= self.bytes_max {
            return None;
        }
        let (_, id) = self.idle.pop_first()?;
        let entry = self.entries.remove(&id).expect("idle blocks are entries");
        self.bytes -= entry.bytes;
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_unpinned_block_goes_first() {
        let id = |n| BlockId([n; 32]);
        let mut cache = BlockCache::new(20);
        for n in 1..=3 {
            cache.insert(id(n), 10);
        }
        cache.pin(&id(1));
        assert_eq!(cache.evict(), Some(id(2)));
        assert_eq!(cache.evict(), None);
        cache.insert(id(4), 10);
        cache.insert(id(5), 10);
        cache.unpin(&id(1));
        assert_eq!(cache.evict(), Some(id(3)));
        assert_eq!(cache.evict(), Some(id(4)));
        assert_eq!(cache.evict(), None);
        assert!(cache.contains(&id(1)) && cache.contains(&id(5)));
    }
}
