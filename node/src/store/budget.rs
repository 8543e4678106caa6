//! The disk budget: whatever takes room reserves it first and gives it back when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;

/// What a file costs besides its bytes: an inode, a row, an entry in memory.
const FILE_BYTES: u64 = 4 << 10;

/// The bytes that the store may take.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
        })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Room for a file of `bytes` bytes.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, StoreError> {
        let mut reservation = Reservation {
            budget: self.clone(),
            bytes: 0,
        };
        reservation.grow(bytes.saturating_add(FILE_BYTES))?;
        Ok(reservation)
    }

    /// Room for a file that is there already, whatever the limit.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> Reservation {
        let bytes = bytes.saturating_add(FILE_BYTES);
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation {
            budget: self.clone(),
            bytes,
        }
    }
}

/// Reserved room; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    /// Reserves `bytes` more.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), StoreError> {
        let limit = self.budget.limit;
        self.budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&used| used <= limit)
            })
            .map_err(|used| StoreError::Full {
                needed: bytes,
                free: limit.saturating_sub(used),
                budget: limit,
            })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
