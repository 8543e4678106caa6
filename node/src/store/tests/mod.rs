//! The store through its public face: what goes in comes out, also after a crash.

mod crash;
mod damage;
mod group;
mod limits;
mod mosaic;
mod replication;
mod stacks;
mod transfer;

use std::path::PathBuf;

use futures_util::StreamExt as _;
use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId};
use gemmesh_protocol::io::DoneTile;
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::matrix::Grid;
use gemmesh_protocol::message::{DeviceRecord, Work};
use gemmesh_protocol::replication::{Restored, StoredTile, Taken};
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceKind, DeviceState, JobState, JobStatus, Mode};
use gemmesh_protocol::tile::Tiling;
use gemmesh_protocol::time::{Span, WallTime};

use serde_json::json;

use super::*;

const GIB: u64 = 1 << 30;

#[tokio::test]
async fn a_job_goes_from_files_to_a_result() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    for tile in 0..header.tiling.len() {
        write(&store, &header, tile).await.unwrap();
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

#[tokio::test]
async fn a_job_is_loaded_as_it_was() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    for tile in [3, 0] {
        write(&store, &header, tile).await.unwrap();
    }
    drop(store);
    let store = place.open();
    let expected = Restored {
        taken: taken(&header, "token"),
        elapsed: Span(0),
        epoch: FIRST,
        sequence: 0,
        backups: vec![],
        contributors: vec![record(3).unwrap(), record(0).unwrap()],
        recorded: vec![],
        held: vec![stored(&header, 3), stored(&header, 0)],
        timeline: vec![],
        ending: None,
        ended: None,
    };
    assert_eq!(load(&store).await, std::slice::from_ref(&expected));
    let status = status(&header, JobState::Cancelled);
    store.end_job(&status).await.unwrap();
    let ended = Some(status);
    assert_eq!(load(&store).await, [Restored { ended, ..expected }]);
}

#[tokio::test]
async fn the_same_content_is_stored_once() {
    let place = Place::new();
    let store = place.open();
    let values = json!([[1, 2], [3, 4]]);
    let first = store.import_values(values.clone(), None).await.unwrap();
    let used = store.disk_used();
    let path = place.dir.path().join("same.csv");
    std::fs::write(&path, "1;2\n3;4\n").unwrap();
    let options = ReadOptions::default();
    let again = store.import(&path, Format::Csv, options).await.unwrap();
    assert_eq!((again.id(), store.disk_used()), (first.id(), used));
    assert_eq!(place.block_files().len(), 1);
    let other = store
        .import_values(values.clone(), Some(Dtype::F32))
        .await
        .unwrap();
    assert_ne!(other.id(), first.id());
}

#[tokio::test]
async fn element_types_are_converted() {
    let place = Place::new();
    let store = place.open();
    let check = async |values: serde_json::Value, from, to, expected: Result<&str, &str>| {
        let source = store
            .import_values(values.clone(), Some(from))
            .await
            .unwrap();
        match (store.convert(source.id(), to).await, expected) {
            (Ok(found), Ok(csv)) => {
                assert_eq!(found.element.dtype, to);
                let text = export(&store, found.id(), Format::Csv).await;
                assert_eq!(String::from_utf8(text).unwrap(), csv);
            }
            (Err(error), Err(place)) => {
                assert!(error.message.contains(place), "{}", error.message);
                assert_eq!(error.status, 422);
            }
            (found, _) => panic!("{values} from {from:?} to {to:?}: {found:?}"),
        }
    };
    use Dtype::{F32, F64, Int};
    check(
        json!([[1, -2.0], [1e300, 0]]),
        F64,
        Int,
        Ok(&format!("1,-2\n{:.0},0\n", 1e300)),
    )
    .await;
    check(
        json!([[1, 2], [3, 0.5]]),
        F64,
        Int,
        Err("element [1, 1]: \"0.5\""),
    )
    .await;
    check(
        json!([[1, "NaN"]]),
        F64,
        Int,
        Err("element [0, 1]: \"nan\""),
    )
    .await;
    check(
        json!([["9007199254740993", "36893488147419103233"]]),
        Int,
        F64,
        Ok("9007199254740992,3.6893488147419103e19\n"),
    )
    .await;
    check(json!([[0.1]]), F32, F64, Ok("0.10000000149011612\n")).await;
    check(json!([[0.1, 1e300]]), F64, F32, Ok("0.1,inf\n")).await;
    check(json!([[7]]), F64, F64, Ok("7\n")).await;
}

#[tokio::test]
async fn the_result_of_an_exact_job_has_the_bits_of_its_elements() {
    let place = Place::new();
    let store = place.open();
    let factor = store
        .import_values(json!([[1]]), Some(Dtype::Int))
        .await
        .unwrap();
    let mut header = header(&factor, &factor, 65_536, 1);
    (header.element.limbs, header.class) = (3, KernelClass::Exact);
    take(&store, &header, "").await.unwrap();
    // -2^100 in three limbs.
    let bytes: Vec<u8> = [0, u64::MAX << 36, u64::MAX]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    store
        .write_tile(header.job, done(0), None, None, bytes.into())
        .await
        .unwrap();
    let result = store.finish_job(header.job).await.unwrap();
    assert_eq!((result.bits, result.element.limbs), (101, 3));
    let csv = export(&store, result.id(), Format::Csv).await;
    assert_eq!(csv, b"-1267650600228229401496703205376\n");
    let refused = store
        .check_export(result.id(), Format::Npy)
        .await
        .unwrap_err();
    assert_eq!((refused.status, refused.code), (422, "overflows_npy"));
    let pieces: Vec<_> = store.export(result.id(), Format::Npy).collect().await;
    assert!(matches!(pieces[..], [Err(StoreError::Refused(_))]));
}

#[cfg(unix)]
#[tokio::test]
async fn the_directories_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let _store = place.open();
    for path in [place.data(), place.data().join("blocks")] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    }
}

/// What a node with 1 GiB has.
fn shares() -> Shares {
    Shares::of(GIB, 2).expect("enough")
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

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn open(&self) -> Store {
        Store::open(&self.data(), GIB, &shares()).unwrap()
    }

    /// A store with a 600 × 300 times 300 × 700 job of six tiles.
    async fn with_job(&self) -> (Store, JobHeader) {
        let store = self.open();
        let options = ReadOptions::default();
        let a = store
            .import(&self.npy(600, 300), Format::Npy, options)
            .await
            .unwrap();
        let b = store
            .import(&self.npy(300, 700), Format::Npy, options)
            .await
            .unwrap();
        let header = header(&a, &b, 256, 512);
        take(&store, &header, "token").await.unwrap();
        (store, header)
    }

    fn block_files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.data().join("blocks")).unwrap();
        files.map(|file| file.unwrap().path()).collect()
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
        stack: 1,
        batch: None,
        guard: None,
        share: None,
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

async fn write(store: &Store, header: &JobHeader, tile: u64) -> Result<(), StoreError> {
    let bytes = tile_bytes(header, tile);
    store
        .write_tile(header.job, done(tile), record(tile), None, bytes)
        .await
        .map(|digest| assert_eq!(digest, Some(stored(header, tile).digest)))
}

const ME: DeviceId = DeviceId([1; 32]);
const FIRST: Epoch = Epoch {
    counter: 1,
    device: ME,
};

fn taken(header: &JobHeader, token: &str) -> Taken {
    Taken {
        header: header.clone(),
        submitted: WallTime(5),
        token: BlockId::of(token.as_bytes()),
    }
}

async fn take(store: &Store, header: &JobHeader, token: &str) -> Result<(), StoreError> {
    store.insert_job(&taken(header, token), FIRST).await
}

/// All jobs; how long ago they were taken is not looked at.
async fn load(store: &Store) -> Vec<Restored> {
    let mut jobs = store.load_jobs(ME).await;
    for job in &mut jobs {
        job.elapsed = Span(0);
    }
    jobs
}

/// Tile `tile` of [`tile_bytes`] as it is recorded: its blocks are hashed one by one.
fn stored(header: &JobHeader, tile: u64) -> StoredTile {
    let bytes = tile_bytes(header, tile);
    let rect = header.tiling.rect(tile);
    let grid = Grid::new(header.tiling.rows, header.tiling.cols, header.element);
    let mut hashes = Vec::new();
    for part in grid.parts(rect) {
        let mut block = Vec::new();
        for row in part.dst_row..part.dst_row + part.rows {
            let at = (u64::from(row) * rect.cols + u64::from(part.dst_col)) as usize * 8;
            block.extend_from_slice(&bytes[at..at + part.cols as usize * 8]);
        }
        hashes.extend_from_slice(&BlockId::of(&block).0);
    }
    StoredTile {
        done: done(tile),
        digest: BlockId::of(&hashes),
    }
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
        stacks: true,
        residues: true,
        limits: TileLimits::default(),
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
        sharing: None,
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
        plan: Vec::new(),
        bytes_sent: 0,
        bytes_floor: 0,
        bytes_replicated: 0,
        result: None,
        error: None,
        contributions: vec![],
        backups: vec![],
        timeline: vec![],
        part: None,
        products: None,
        failed: None,
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
