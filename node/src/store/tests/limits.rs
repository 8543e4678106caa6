//! Room and time: what does not fit is refused, what is over its time goes.

use std::time::Duration;

use super::*;

const HOUR_MS: u64 = 3_600_000;
const TTL: Duration = Duration::from_millis(2 * HOUR_MS);

#[tokio::test]
async fn matrices_expire_and_free_their_room() {
    let place = Place::new();
    let store = place.open();
    let id = store
        .import_values(json!([[1, 2]]), None)
        .await
        .unwrap()
        .id();
    let start = wall();
    assert_eq!(store.expire(later(start, 1), TTL).await, []);
    assert!(store.manifest(id).await.is_ok());
    store.expire(later(start, 3), TTL).await;
    assert_eq!(store.manifest(id).await, Err(Missing::Expired));
    assert_eq!((store.disk_used(), place.block_files().len()), (0, 0));
    drop(store);
    let store = place.open();
    assert_eq!(
        store.manifest(id).await,
        Err(Missing::Expired),
        "after a restart"
    );
    assert_eq!(Missing::Expired.to_api("it").status, 410);
    store.expire(later(start, 26), TTL).await;
    assert!(store.manifest(id).await.is_err());
    store.expire(later(start, 28), TTL).await;
    assert_eq!(
        store.manifest(id).await,
        Err(Missing::Unknown),
        "a day later"
    );
    assert_eq!(Missing::Unknown.to_api("it").status, 404);
    let again = store.import_values(json!([[1, 2]]), None).await.unwrap();
    assert_eq!(again.id(), id);
    assert!(store.manifest(id).await.is_ok());
}

#[tokio::test]
async fn operands_stay_while_a_job_runs_and_results_as_long_as_their_job() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let start = wall();
    assert_eq!(store.expire(later(start, 9), TTL).await, []);
    let (a, b) = (header.a.id(), header.b.id());
    drop(store);
    let store = place.open();
    assert_eq!(
        store.expire(later(start, 9), TTL).await,
        [],
        "pins are back after a restart"
    );
    assert!(store.manifest(a).await.is_ok() && store.manifest(b).await.is_ok());
    for tile in 0..header.tiling.len() {
        write(&store, &header, tile).await.unwrap();
    }
    let result = store.finish_job(header.job).await.unwrap().id();
    store.expire(later(start, 9), TTL).await;
    assert!(
        store.manifest(result).await.is_ok(),
        "its job has not ended"
    );
    store
        .end_job(&status(&header, JobState::Done))
        .await
        .unwrap();
    assert_eq!(
        store.job_missing(header.job),
        Missing::Unknown,
        "it is no tombstone yet"
    );
    assert_eq!(store.expire(later(wall(), 3), TTL).await, [header.job]);
    assert_eq!(store.job_missing(header.job), Missing::Expired);
    for id in [a, b, result] {
        assert_eq!(store.manifest(id).await, Err(Missing::Expired));
    }
    assert_eq!((store.load_jobs(ME).await.len(), store.disk_used()), (0, 0));
    assert!(place.block_files().is_empty());
}

#[tokio::test]
async fn a_download_that_has_begun_goes_on() {
    let place = Place::new();
    let store = place.open();
    let id = store
        .import(&place.npy(3_000, 300), Format::Npy, ReadOptions::default())
        .await
        .unwrap()
        .id();
    let mut pieces = Box::pin(store.export(id, Format::Npy));
    let mut bytes = pieces.next().await.unwrap().unwrap().to_vec();
    store.expire(later(wall(), 3), TTL).await;
    assert_eq!(store.manifest(id).await, Err(Missing::Expired));
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    assert!(bytes == std::fs::read(place.npy(3_000, 300)).unwrap());
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let store = Store::open(&place.data(), 1 << 20, &shares()).unwrap();
    let full = store
        .import(&place.npy(600, 300), Format::Npy, ReadOptions::default())
        .await;
    let full = full.unwrap_err();
    assert_eq!((full.status, full.code), (413, "disk_budget"));
    assert!(
        full.message.contains("1440000") || full.message.contains("144"),
        "{}",
        full.message
    );
    let path = place.dir.path().join("bad.csv");
    std::fs::write(&path, "1\n2\nx\n").unwrap();
    let bad = store
        .import(&path, Format::Csv, ReadOptions::default())
        .await
        .unwrap_err();
    assert_eq!(bad.code, "not_a_number");
    assert_eq!((store.disk_used(), place.block_files().len()), (0, 0));
    let a = store
        .import_values(json!(vec![[1]; 600]), None)
        .await
        .unwrap();
    let b = store
        .import_values(json!([vec![1; 600]]), None)
        .await
        .unwrap();
    let used = store.disk_used();
    let job = take(&store, &header(&a, &b, 256, 256), "").await;
    assert!(matches!(job, Err(StoreError::Full { .. })), "{job:?}");
    assert_eq!((store.disk_used(), place.block_files().len()), (used, 2));
    assert_eq!(store.load_jobs(ME).await, []);
}

#[tokio::test]
async fn memory_for_sorting_is_bounded() {
    let place = Place::new();
    let little = Shares {
        import: 1_000,
        ..shares()
    };
    let store = Store::open(&place.data(), GIB, &little).unwrap();
    let path = place.dir.path().join("many.mtx");
    let banner = "%%MatrixMarket matrix coordinate integer general\n100 100 100\n";
    let entries: String = (1..=100).map(|i| format!("{i} {i} 1\n")).collect();
    std::fs::write(&path, format!("{banner}{entries}")).unwrap();
    let error = store
        .import(&path, Format::Mtx, ReadOptions::default())
        .await
        .unwrap_err();
    assert_eq!((error.status, error.code), (413, "too_large"));
    assert!(error.message.contains("1600 bytes"), "{}", error.message);
}

#[tokio::test]
async fn a_job_needs_its_operands() {
    let place = Place::new();
    let store = place.open();
    let a = store.import_values(json!([[1]]), None).await.unwrap();
    let mut b = a.clone();
    b.blocks[0].0[0] ^= 1;
    let missing = take(&store, &header(&a, &b, 65_536, 1), "").await;
    assert!(matches!(
        missing,
        Err(StoreError::Missing {
            missing: Missing::Unknown,
            ..
        })
    ));
    take(&store, &header(&a, &a, 65_536, 1), "").await.unwrap();
    let twice = take(&store, &header(&a, &a, 65_536, 1), "").await;
    assert!(matches!(twice, Err(StoreError::Database(_))));
    assert_eq!(place.block_files().len(), 2);
}

fn later(start: WallTime, hours: u64) -> WallTime {
    WallTime(start.0 + hours * HOUR_MS)
}
