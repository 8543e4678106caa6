//! The store through its public face: what goes in comes out, also after a crash.

use std::path::PathBuf;

use futures_util::StreamExt as _;
use gemmesh_protocol::id::{DeviceId, JobId};
use gemmesh_protocol::io::DoneTile;
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::message::{DeviceRecord, Work};
use gemmesh_protocol::status::{DeviceKind, DeviceState, JobState, JobStatus, Mode};
use gemmesh_protocol::tile::Tiling;
use gemmesh_protocol::time::Span;

use super::*;

const GIB: u64 = 1 << 30;

#[tokio::test]
async fn a_job_goes_from_files_to_a_result() {
    let place = Place::new();
    let store = place.open();
    let a = store
        .import(&place.npy(600, 300), Format::Npy, ReadOptions::default())
        .await
        .unwrap();
    let b = store
        .import(&place.npy(300, 700), Format::Npy, ReadOptions::default())
        .await
        .unwrap();
    let header = header(&a, &b, 256, 512);
    store
        .insert_job(&header, WallTime(5), "token")
        .await
        .unwrap();
    for tile in 0..header.tiling.len() {
        store
            .write_tile(
                header.job,
                done(tile),
                record(tile),
                tile_bytes(&header, tile),
            )
            .await
            .unwrap();
    }
    let result = store.finish_job(header.job).await.unwrap();
    assert_eq!(
        store.finish_job(header.job).await.unwrap(),
        result,
        "asked again"
    );
    store
        .end_job(&status(&header, JobState::Done))
        .await
        .unwrap();
    check_result(&store, &header, &result).await;
    let csv = export(&store, result.id(), Format::Csv).await;
    assert_eq!(csv.split(|&byte| byte == b'\n').count(), 601);
    assert!(store.check_token(header.job, "token").await.unwrap());
    assert!(!store.check_token(header.job, "Token").await.unwrap());
}

/// A directory of a test.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn open(&self) -> Store {
        Store::open(&self.dir.path().join("data"), GIB, GIB).unwrap()
    }

    /// An `.npy` file of f64 whose element [i, j] is 1000·i + j.
    fn npy(&self, rows: u64, cols: u64) -> PathBuf {
        let path = self.dir.path().join(format!("{rows}x{cols}.npy"));
        let mut bytes = files::npy::write_header("<f8", rows, cols);
        for i in 0..rows {
            for j in 0..cols {
                bytes.extend_from_slice(&((1_000 * i + j) as f64).to_le_bytes());
            }
        }
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn header(a: &Manifest, b: &Manifest, tile_rows: u64, tile_cols: u64) -> JobHeader {
    JobHeader {
        job: JobId([7; 16]),
        name: "a job".to_owned(),
        class: KernelClass::Any,
        a: a.clone(),
        b: b.clone(),
        element: a.element,
        tiling: Tiling {
            rows: a.rows,
            cols: b.cols,
            tile_rows,
            tile_cols,
        },
    }
}

/// A tile of the matrix whose element [i, j] is 10000·i + j + 0.5.
fn tile_bytes(header: &JobHeader, tile: u64) -> Bytes {
    let rect = header.tiling.rect(tile);
    let mut bytes = Vec::new();
    for i in rect.row..rect.row + rect.rows {
        for j in rect.col..rect.col + rect.cols {
            bytes.extend_from_slice(&((10_000 * i + j) as f64 + 0.5).to_le_bytes());
        }
    }
    bytes.into()
}

/// Checks that a stored matrix is made of [`tile_bytes`].
async fn check_result(store: &Store, header: &JobHeader, result: &Manifest) {
    let npy = export(store, result.id(), Format::Npy).await;
    let mut expected = files::npy::write_header("<f8", result.rows, result.cols);
    for i in 0..header.tiling.rows {
        for j in 0..header.tiling.cols {
            expected.extend_from_slice(&((10_000 * i + j) as f64 + 0.5).to_le_bytes());
        }
    }
    assert!(npy == expected, "the exported file is the product");
}

fn done(tile: u64) -> DoneTile {
    DoneTile {
        tile: tile as u32,
        device: DeviceId([tile as u8; 32]),
        work: Work {
            kernel: Span(tile),
            ..Work::default()
        },
    }
}

fn record(tile: u64) -> Option<DeviceRecord> {
    Some(DeviceRecord {
        device: DeviceId([tile as u8; 32]),
        incarnation: 1,
        version: 1,
        name: format!("device {tile}"),
        kind: DeviceKind::Native,
        addresses: vec![],
        via: None,
        slots: 1,
        classes: vec![KernelClass::Any],
        mflops: 1.5,
        state: DeviceState::Ready,
        since: WallTime(3),
        user_agent: String::new(),
    })
}

fn status(header: &JobHeader, state: JobState) -> JobStatus {
    JobStatus {
        job: header.job,
        name: header.name.clone(),
        state,
        rows: header.a.rows,
        inner: header.a.cols,
        cols: header.b.cols,
        dtype: header.element.dtype,
        mode: Mode::Plain,
        tiles_total: header.tiling.len(),
        tiles_done: header.tiling.len(),
        tiles_safe: 0,
        tiles_recomputed: 0,
        coordinator: DeviceId([1; 32]),
        epoch: 1,
        safe_copies: 0,
        submitted: WallTime(5),
        seconds: 0.25,
        predicted_seconds: None,
        bytes_sent: 0,
        bytes_floor: 0,
        bytes_replicated: 0,
        result: None,
        error: None,
        contributions: vec![],
    }
}

async fn export(store: &Store, id: MatrixId, format: Format) -> Vec<u8> {
    let pieces: Vec<_> = store.export(id, format).collect().await;
    pieces
        .into_iter()
        .map(Result::unwrap)
        .collect::<Vec<_>>()
        .concat()
}
