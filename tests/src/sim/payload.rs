//! Bytes as the simulator knows them: not what they are, but what they stand for.

use gemmesh_protocol::id::{BlockId, JobId};
use gemmesh_protocol::job::KernelClass;

/// Variants from here on are wrong, each wrong in another way.
pub const WRONG: u32 = 1 << 16;

/// The bytes of a tile of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The job.
    pub job: JobId,
    /// Its place.
    pub tile: u32,
    /// 0: as written in the books. Below [`WRONG`]: the same product with other last bits, as the
    /// device with that number rounds in class `any`. Else: not the product.
    pub variant: u32,
    /// How many bytes.
    pub len: u64,
}

impl Tile {
    /// The hash of the hashes of its blocks: equal for equal bytes alone.
    pub fn digest(&self) -> BlockId {
        let mut id = [0; 32];
        id[..16].copy_from_slice(&self.job.0);
        id[16..20].copy_from_slice(&self.tile.to_le_bytes());
        id[20..24].copy_from_slice(&self.variant.to_le_bytes());
        BlockId(id)
    }

    /// Whether it is the product of that tile.
    pub fn is_right(&self, job: JobId, tile: u32, class: KernelClass) -> bool {
        let bits = match class {
            KernelClass::Any => self.variant < WRONG,
            KernelClass::Fused | KernelClass::Separate | KernelClass::Exact => self.variant == 0,
        };
        bits && self.job == job && self.tile == tile
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Payload {
    /// Nothing.
    #[default]
    Nothing,
    /// A block of an operand: bytes that hash to `id`.
    Block {
        /// Their hash.
        id: BlockId,
        /// How many.
        len: u64,
    },
    /// A tile.
    Tile(Tile),
}

impl Payload {
    /// The bytes that it stands for.
    pub fn len(&self) -> u64 {
        match self {
            Payload::Nothing => 0,
            Payload::Block { len, .. } => *len,
            Payload::Tile(tile) => tile.len,
        }
    }

    /// It stands for no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tile that it is.
    pub fn tile(&self) -> Option<Tile> {
        match self {
            Payload::Tile(tile) => Some(*tile),
            _ => None,
        }
    }

    /// What is sent in its place.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Payload::Nothing => Vec::new(),
            Payload::Block { id, len } => {
                let mut bytes = vec![1];
                bytes.extend_from_slice(&id.0);
                bytes.extend_from_slice(&len.to_le_bytes());
                bytes
            }
            Payload::Tile(tile) => {
                let mut bytes = vec![2];
                bytes.extend_from_slice(&tile.job.0);
                bytes.extend_from_slice(&tile.tile.to_le_bytes());
                bytes.extend_from_slice(&tile.variant.to_le_bytes());
                bytes.extend_from_slice(&tile.len.to_le_bytes());
                bytes
            }
        }
    }

    /// Reads what [`Payload::to_bytes`] writes.
    ///
    /// # Panics
    /// On anything else.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        match bytes.first() {
            None => Payload::Nothing,
            Some(1) => Payload::Block {
                id: BlockId(bytes[1..33].try_into().expect("a hash")),
                len: u64_at(33),
            },
            Some(_) => Payload::Tile(Tile {
                job: JobId(bytes[1..17].try_into().expect("an id")),
                tile: u32_at(17),
                variant: u32_at(21),
                len: u64_at(25),
            }),
        }
    }
}
