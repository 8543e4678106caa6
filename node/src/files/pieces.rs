//! How much of a file is held at a time: the less, the more files are being sent. Nobody waits for who reads
//! slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::PIECE_BYTES;

/// However many files there are, each has pieces of this size.
const PIECE_MIN: u64 = 64 << 10;

/// The bytes of the pieces of all files that are being sent.
#[derive(Debug, Clone)]
pub struct Pieces(Arc<AtomicU64>);

/// The pieces of one file; given back when dropped.
#[derive(Debug)]
pub struct Piece {
    bytes: u64,
    taken: u64,
    pieces: Pieces,
}

impl Pieces {
    /// Pieces of so many bytes in all.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// The pieces of one more file, which holds `count` at a time: together at most half of what is left,
    /// or the least that there can be.
    pub fn take(&self, count: u64) -> Piece {
        let size = |left: u64| (left / 2 / count).min(PIECE_BYTES);
        let took = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                let bytes = size(left);
                (bytes >= PIECE_MIN).then(|| left - count * bytes)
            });
        let (bytes, taken) = match took {
            Ok(left) => (size(left), count * size(left)),
            Err(_) => (PIECE_MIN, 0),
        };
        let pieces = self.clone();
        Piece {
            bytes,
            taken,
            pieces,
        }
    }
}

impl Piece {
    /// The pieces of a file of a small matrix, which counts nowhere.
    pub fn alone() -> Self {
        Pieces::new(4 * PIECE_MIN).take(2)
    }

    /// The bytes of one.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.pieces.0.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_hold_little_more_than_one() {
        let pieces = Pieces::new(16 << 20);
        let taken: Vec<Piece> = (0..100).map(|n| pieces.take([2, 8][n % 2])).collect();
        assert_eq!(taken[0].bytes(), PIECE_BYTES);
        assert!(
            taken
                .windows(3)
                .all(|piece| piece[0].bytes() >= piece[2].bytes())
        );
        assert_eq!(taken[99].bytes(), PIECE_MIN);
        assert!(taken.iter().map(|piece| piece.taken).sum::<u64>() <= 16 << 20);
        drop(taken);
        assert_eq!(pieces.take(2).bytes(), PIECE_BYTES);
    }
}
