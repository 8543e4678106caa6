//! Tiles written at the same time.

use futures_util::future;

use super::*;

#[tokio::test]
async fn tiles_that_wait_share_one_sync_and_one_transaction() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let total = header.tiling.len();
    // The writer is held until all tiles wait for it.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let hold = store.inner.writer.post_run(move |_| {
        begin.send(()).expect("the test waits");
        Ok(held.recv().is_ok())
    });
    begun.recv().unwrap();
    let writes = future::join_all((0..total).map(|tile| write(&store, &header, tile)));
    let release = async {
        while store.inner.writer.waiting() < total as usize {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
    };
    let (held, written, ()) = future::join3(hold, writes, release).await;
    assert!(held.unwrap());
    written.into_iter().for_each(Result::unwrap);
    let stats = store.stats();
    assert_eq!((stats.tiles, stats.groups, stats.syncs), (total, 1, 1));
    assert_eq!(stats.tile_bytes, 600 * 700 * 8);
    assert!(stats.files > Duration::ZERO && stats.database > Duration::ZERO);
    let result = store.finish_job(header.job).await.unwrap();
    check_result(&store, &header, &result).await;
}

#[tokio::test]
async fn a_tile_that_is_durable_stays_as_it_is() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    for tile in 0..header.tiling.len() {
        write(&store, &header, tile).await.unwrap();
    }
    let other = vec![0; tile_bytes(&header, 0).len()];
    store
        .write_tile(header.job, done(0), None, None, other.into())
        .await
        .unwrap();
    assert_eq!(
        store.load_jobs(ME).await[0].held.len() as u64,
        header.tiling.len()
    );
    let result = store.finish_job(header.job).await.unwrap();
    check_result(&store, &header, &result).await;
}

#[tokio::test]
async fn a_bad_tile_does_not_spoil_its_group() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let short = store.write_tile(
        header.job,
        done(0),
        None,
        None,
        Bytes::from_static(b"short"),
    );
    let none = store.write_tile(header.job, done(6), None, None, tile_bytes(&header, 0));
    let unknown = store.write_tile(JobId([9; 16]), done(0), None, None, tile_bytes(&header, 0));
    let good = write(&store, &header, 0);
    let (short, none, unknown, good) = future::join4(short, none, unknown, good).await;
    assert!(matches!(short, Err(StoreError::BadTile { .. })));
    assert!(matches!(none, Err(StoreError::BadTile { .. })));
    assert!(matches!(unknown, Err(StoreError::NoSuchJob(_))));
    good.unwrap();
    assert_eq!(store.load_jobs(ME).await[0].held, [stored(&header, 0)]);
}

#[tokio::test]
async fn a_job_that_ended_takes_no_more_tiles() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    write(&store, &header, 0).await.unwrap();
    store.cancel_job_files(header.job).await;
    assert_eq!(place.block_files().len(), 2, "only the operands");
    let late = write(&store, &header, 1).await;
    assert!(matches!(late, Err(StoreError::NoSuchJob(_))));
    store
        .end_job(&status(&header, JobState::Cancelled))
        .await
        .unwrap();
    store
        .end_job(&status(&header, JobState::Cancelled))
        .await
        .unwrap();
    assert!(matches!(
        store.finish_job(header.job).await,
        Err(StoreError::NoSuchJob(_))
    ));
    drop(store);
    assert!(place.open().load_jobs(ME).await[0].ended.is_some());
}
