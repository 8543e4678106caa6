//! Flipped bits of the database: it opens as it was, or not at all.

use std::path::Path;

use gemmesh_protocol::replication::Entry;

use super::*;

/// What is read back of a store; used times and the like do not matter.
async fn contents(store: &Store) -> (Vec<Restored>, Vec<JobId>, u64) {
    let (jobs, expired) = (load(store).await, store.expired_jobs());
    (jobs, expired, store.disk_used())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// A store with a job, some of its tiles, and what another node recorded of it.
async fn filled(place: &Place) -> Store {
    let (store, header) = place.with_job().await;
    for tile in [0, 3] {
        write(&store, &header, tile).await.unwrap();
    }
    let done = Entry::Done {
        stored: stored(&header, 1),
        keeper: None,
    };
    let entries = vec![done, Entry::Backups(vec![ME])];
    store.record(header.job, FIRST, 2, entries).await.unwrap();
    store
}

#[tokio::test]
async fn a_flipped_bit_of_the_database_is_noticed_or_does_not_matter() {
    let place = Place::new();
    drop(filled(&place).await);
    // Nothing is left in the log.
    let before = contents(&place.image().open()).await;
    let file = place.data().join("store.db");
    let bytes = std::fs::read(&file).unwrap();
    // Most of a page is empty.
    let used = (0..bytes.len()).filter(|at| bytes[*at] != 0);
    let (mut noticed, mut opened) = (0, 0);
    for at in used.step_by(101) {
        let image = place.image();
        flip(&image.data().join("store.db"), at);
        match Store::open(&image.data(), GIB, &shares()) {
            Err(StoreError::Damaged(_) | StoreError::Database(_)) => noticed += 1,
            Err(error) => panic!("byte {at}: {error}"),
            Ok(store) => {
                assert_eq!(contents(&store).await, before, "byte {at}");
                opened += 1;
            }
        }
    }
    assert!(noticed > 10, "{noticed} of {}", noticed + opened);
}

#[tokio::test]
async fn a_flipped_bit_of_a_record_is_noticed() {
    let place = Place::new();
    let store = filled(&place).await;
    let digest = load(&store).await[0].held[1].digest;
    drop(store);
    let file = place.data().join("store.db");
    let bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(32).position(|window| *window == digest.0);
    flip(&file, at.expect("the digest is in the database") + 5);
    let error = Store::open(&place.data(), GIB, &shares())
        .map(|_| ())
        .unwrap_err();
    let error = ApiError::from(error);
    assert_eq!(error.code, "database_damaged");
    assert!(error.message.contains("store.db"), "{}", error.message);
    assert!(error.hint.contains("blocks"), "{}", error.hint);
    assert_eq!(place.block_files().len(), 3, "nothing is removed");
}

#[tokio::test]
async fn a_flipped_bit_of_the_log_costs_at_most_the_last_transaction() {
    let place = Place::new();
    let store = filled(&place).await;
    let before = contents(&store).await;
    let log = place.data().join("store.db-wal");
    let all = std::fs::metadata(&log).unwrap().len() as usize;
    let job = before.0[0].taken.header.job;
    store.set_backups(job, vec![]).await.unwrap();
    let after = contents(&store).await;
    assert_ne!(before, after);
    let length = std::fs::metadata(&log).unwrap().len() as usize;
    assert!(all < length, "the log grows");
    let (mut noticed, mut lost) = (0, 0);
    for at in (0..length).step_by(1_409) {
        let image = place.image();
        flip(&image.data().join("store.db-wal"), at);
        match Store::open(&image.data(), GIB, &shares()) {
            Err(StoreError::Damaged(_)) => noticed += 1,
            Err(error) => panic!("byte {at}: {error}"),
            Ok(store) => {
                assert!(at >= all, "byte {at} of {length}");
                assert_eq!(contents(&store).await, before, "byte {at}");
                lost += 1;
            }
        }
    }
    assert!(noticed > 10 && lost > 0, "{noticed}, {lost}");
    // As after a crash in the middle of a write.
    for cut in [1, 3_000] {
        let image = place.image();
        let file = image.data().join("store.db-wal");
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(length as u64 - cut).unwrap();
        assert_eq!(contents(&image.open()).await, before);
    }
    assert_eq!(contents(&place.image().open()).await, after);
}
