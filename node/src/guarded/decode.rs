//! From answers to tiles of the product.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gemmesh_kernel::KernelError;
use gemmesh_kernel::coding::fixed;
use gemmesh_kernel::coding::residues::Crt;
use gemmesh_protocol::id::JobId;
use gemmesh_protocol::matrix::Dtype;
use gemmesh_protocol::tile::Rect;

use super::{Shared, kernel};
use crate::app::App;
use crate::error::ApiError;
use crate::store::StoreError;

/// The tiles of a product that come from one tile of its shares, by their numbers.
pub(crate) type Tiles = Vec<(u32, Bytes)>;

impl Shared {
    /// Puts together what comes from tile `tile` of these answers, and says how long that took. One at a time.
    ///
    /// # Errors
    /// An answer can not be read.
    pub(crate) async fn decode(
        self: Arc<Self>,
        app: &App,
        tile: u32,
        answers: Vec<(u16, JobId)>,
    ) -> Result<(Tiles, f64), ApiError> {
        let mut numbers = Vec::new();
        let mut read = Vec::new();
        for (number, job) in answers {
            numbers.push(usize::from(number));
            read.push(app.store().read_tile(job, tile).await?);
        }
        let work = tokio::task::spawn_blocking(move || {
            let mut crt = self.crt.blocking_lock();
            // Others that wait for their turn are no work.
            let start = Instant::now();
            let tiles = self.put_together(&mut crt, tile, &numbers, &read)?;
            Ok::<_, KernelError>((tiles, start.elapsed().as_secs_f64()))
        });
        let done = work.await.map_err(|_| StoreError::Closed)?;
        done.map_err(kernel)
    }

    fn put_together(
        &self,
        crt: &mut Crt,
        tile: u32,
        numbers: &[usize],
        answers: &[Bytes],
    ) -> Result<Tiles, KernelError> {
        let [rows, cols] = self.answer;
        let tiling = gemmesh_protocol::tile::Tiling {
            rows,
            cols,
            ..self.header.tiling
        };
        let rect = tiling.rect(u64::from(tile));
        let len = (rect.rows * rect.cols) as usize;
        let width = 2 * self.fields.len();
        let [down, across] = [self.cuts[0].down, self.cuts[1].across];
        let blocks = (down * across) as usize;
        // For each block of C its residues modulo all primes.
        let mut planes = vec![Vec::with_capacity(self.fields.len()); blocks];
        let mut words = vec![vec![0i16; len]; answers.len()];
        for (q, code) in self.codes.iter().enumerate() {
            for (words, bytes) in words.iter_mut().zip(answers) {
                let elements = bytes.chunks_exact(width);
                for (to, element) in words.iter_mut().zip(elements) {
                    *to = i16::from_le_bytes([element[2 * q], element[2 * q + 1]]);
                }
            }
            let decoder = code.decoder(numbers)?;
            let mut decoded = vec![vec![0i16; len]; blocks];
            let from: Vec<&[i16]> = words.iter().map(Vec::as_slice).collect();
            let mut to: Vec<&mut [i16]> = decoded.iter_mut().map(Vec::as_mut_slice).collect();
            decoder.decode(&from, &mut to)?;
            for (planes, plane) in planes.iter_mut().zip(decoded) {
                planes.push(plane);
            }
        }
        let mut tiles = Vec::new();
        for (block, planes) in (0..).zip(planes) {
            let (row, col) = (
                block / across * rows + rect.row,
                block % across * cols + rect.col,
            );
            let whole = &self.header.tiling;
            if row >= whole.rows || col >= whole.cols {
                continue;
            }
            let number = row / whole.tile_rows * whole.grid_cols() + col / whole.tile_cols;
            let to = whole.rect(number);
            assert_eq!((to.row, to.col), (row, col), "parts are whole tiles");
            tiles.push((number as u32, self.tile(crt, rect, to, &planes)?.into()));
        }
        Ok(tiles)
    }

    /// The bytes of the tile `to` from residues of `from`, which is at least as large.
    fn tile(
        &self,
        crt: &mut Crt,
        from: Rect,
        to: Rect,
        planes: &[Vec<i16>],
    ) -> Result<Vec<u8>, KernelError> {
        let element = self.header.element;
        let limbs = match element.dtype {
            Dtype::Int => usize::from(element.limbs),
            // Below 2^127 in magnitude.
            _ => 2,
        };
        let width = from.cols as usize;
        let mut integers = vec![0u64; width * limbs];
        let mut bytes = Vec::with_capacity((to.rows * to.cols * element.bytes()) as usize);
        for row in 0..to.rows as usize {
            let line = |plane: &Vec<i16>| row * width..plane.len().min((row + 1) * width);
            let residues: Vec<&[i16]> = planes.iter().map(|plane| &plane[line(plane)]).collect();
            crt.integers(&residues, limbs, &mut integers)?;
            let used = integers.chunks_exact(limbs).take(to.cols as usize);
            if element.dtype == Dtype::Int {
                for limb in used.flatten() {
                    bytes.extend_from_slice(&limb.to_le_bytes());
                }
                continue;
            }
            let left = self.scales[0][to.row as usize + row];
            for (col, integer) in used.enumerate() {
                let right = self.scales[1][to.col as usize + col];
                let integer = (u128::from(integer[1]) << 64 | u128::from(integer[0])) as i128;
                let x = fixed::from_integer(integer, left, right, self.guard.bits_kept.into());
                if element.dtype == Dtype::F32 {
                    bytes.extend_from_slice(&(x as f32).to_le_bytes());
                } else {
                    bytes.extend_from_slice(&x.to_le_bytes());
                }
            }
        }
        Ok(bytes)
    }
}
