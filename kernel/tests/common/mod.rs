//! What the tests of tiles share.

use gemmesh_kernel::{Placement, TileProduct, TileSpec};

/// A generator that is enough for operands.
pub struct Draw(pub u64);

impl Draw {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Puts whole row-major operands into a tile as slabs of `depth`, each in four parts.
pub fn compute(tile: &mut TileProduct, a: &[u8], b: &[u8], depth: usize) -> Vec<u8> {
    let TileSpec {
        rows, cols, inner, ..
    } = *tile.spec();
    for start in (0..inner).step_by(depth) {
        let k = depth.min(inner - start);
        tile.begin_slab(k).unwrap();
        let (half_rows, half_cols, half_k) = (rows / 2, cols / 2, k / 2);
        for (row, count) in [(0, half_rows), (half_rows, rows - half_rows)] {
            for (col, width) in [(half_k, k - half_k), (0, half_k)] {
                let part = Placement {
                    src_row_len: inner,
                    src_row: row,
                    src_col: start + col,
                    rows: count,
                    cols: width,
                    dst_row: row,
                    dst_col: col,
                };
                tile.put_a(a, part).unwrap();
            }
        }
        for (row, count) in [(0, half_k), (half_k, k - half_k)] {
            for (col, width) in [(half_cols, cols - half_cols), (0, half_cols)] {
                let part = Placement {
                    src_row_len: cols,
                    src_row: start + row,
                    src_col: col,
                    rows: count,
                    cols: width,
                    dst_row: row,
                    dst_col: col,
                };
                tile.put_b(b, part).unwrap();
            }
        }
        tile.accumulate().unwrap();
    }
    tile.finish().unwrap()
}
