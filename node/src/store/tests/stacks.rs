//! Stacks of matrices, and jobs that are taken together.

use gemmesh_protocol::matrix::{Dtype, ElementType};

use super::*;
use crate::files::memory::Memory;
use crate::store::Piece;

const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};

#[tokio::test]
async fn a_piece_that_can_not_be_read_leaves_zeros_and_the_others_are_there() {
    let place = Place::new();
    let store = place.open();
    let options = ReadOptions::default();
    let path = place.npy(20, 7);
    let whole = store.import(&path, Format::Npy, options).await.unwrap();
    let before = place.block_files();
    let damaged = store
        .import(&place.npy(4, 7), Format::Npy, options)
        .await
        .unwrap();
    let files = place.block_files();
    let file = files.iter().find(|file| !before.contains(file)).unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[9] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let values: Vec<u8> = (0..28).flat_map(|n| f64::from(n).to_le_bytes()).collect();
    let values = Memory::of(4, 7, F64, values);
    let pieces = vec![
        Piece::Stored(whole.id(), 8..12),
        Piece::Stored(damaged.id(), 0..4),
        Piece::Values(values.clone().into()),
        Piece::Stored(MatrixId([9; 32]), 0..4),
        Piece::Stored(whole.id(), 0..4),
    ];
    let stacked = store.stack(pieces, (4, 7), F64).await.unwrap();
    let failed: Vec<usize> = stacked.failed.iter().map(|(at, _)| *at).collect();
    assert_eq!(failed, [1, 3]);
    let id = stacked.manifest.id();
    assert_eq!((stacked.manifest.rows, stacked.manifest.cols), (20, 7));
    let rows = |from: u64| {
        let store = &store;
        async move { store.read_rows(id, from..from + 4).await.unwrap() }
    };
    let original = store.read_rows(whole.id(), 8..12).await.unwrap();
    assert_eq!(rows(0).await.bytes(), original.bytes());
    assert_eq!(rows(4).await.bytes(), vec![0; 4 * 7 * 8]);
    assert_eq!(rows(8).await.bytes(), values.bytes());
    assert_eq!(rows(12).await.bytes(), vec![0; 4 * 7 * 8]);
    let original = store.read_rows(whole.id(), 0..4).await.unwrap();
    assert_eq!(rows(16).await.bytes(), original.bytes());
}

#[tokio::test]
async fn jobs_are_taken_together_or_not_at_all() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let numbered = |number: u8, header: &JobHeader| {
        let mut header = header.clone();
        header.job = JobId([number; 16]);
        taken(&header, "token")
    };
    let mut stranger = header.clone();
    stranger.a.blocks[0] = BlockId([3; 32]);
    let files = place.block_files().len();
    let jobs = vec![numbered(20, &header), numbered(21, &stranger)];
    let refused = store.insert_jobs(jobs, FIRST).await;
    assert!(matches!(refused, Err(StoreError::Missing { .. })));
    assert_eq!(
        place.block_files().len(),
        files,
        "nothing is left of either"
    );
    let jobs = vec![numbered(20, &header), numbered(22, &header)];
    store.insert_jobs(jobs, FIRST).await.unwrap();
    drop(store);
    let there: Vec<u8> = load(&place.open())
        .await
        .iter()
        .map(|restored| restored.taken.header.job.0[0])
        .collect();
    assert_eq!(there, [7, 20, 22]);
}

#[tokio::test]
async fn rows_of_a_result_are_there_when_their_tiles_are() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let row_bytes = (header.tiling.cols * 8) as usize;
    let rows = || store.read_result_rows(header.job, 250..300);
    for tile in 0..2 {
        assert!(rows().await.unwrap().is_none());
        write(&store, &header, tile).await.unwrap();
    }
    // Rows 256 and on are in the next tiles.
    assert!(rows().await.unwrap().is_none());
    let there = store.read_result_rows(header.job, 250..256).await.unwrap();
    let there = there.expect("both tiles are durable");
    let element = |row: usize, col: usize| {
        let at = row * row_bytes + col * 8;
        f64::from_le_bytes(there.bytes()[at..at + 8].try_into().unwrap())
    };
    assert_eq!(element(0, 0), 2_500_000.5);
    assert_eq!(element(5, 699), 2_550_699.5);
    for tile in 2..header.tiling.len() {
        write(&store, &header, tile).await.unwrap();
    }
    assert!(rows().await.unwrap().is_some());
    store.finish_job(header.job).await.unwrap();
    assert!(rows().await.unwrap().is_some());
}
