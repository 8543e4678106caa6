//! What backups of a job keep, and what they give.

use futures_util::future;
use gemmesh_protocol::replication::Entry;
use gemmesh_protocol::status::{Happening, Moment, TIMELINE_MAX};

use super::db::TABLES_OF_JOBS;
use super::*;

const SECOND: Epoch = Epoch {
    counter: 2,
    device: DeviceId([2; 32]),
};
const OTHER: DeviceId = DeviceId([3; 32]);

#[tokio::test]
async fn what_the_log_says_is_durable_when_it_is_acknowledged() {
    let place = Place::new();
    let (header, _) = elsewhere().await;
    let store = place.open();
    let job = header.job;
    let taken = taken(&header, "token");
    let contributor = Box::new(record(0).unwrap());
    let entries = vec![
        Entry::Taken(Box::new(taken.clone())),
        Entry::Backups(vec![ME, OTHER]),
        Entry::Contributor(contributor.clone()),
        done_entry(stored(&header, 0)),
        Entry::Held {
            tile: 0,
            holder: OTHER,
        },
        // Nothing is known of it: it is kept, and means nothing.
        Entry::Held {
            tile: 9_999,
            holder: OTHER,
        },
        Entry::Keep {
            tile: 0,
            keeper: OTHER,
        },
        Entry::Moment(moment(1.5)),
    ];
    let mut expected = Restored {
        taken,
        elapsed: Span(0),
        epoch: SECOND,
        sequence: 8,
        backups: vec![ME, OTHER],
        contributors: vec![*contributor],
        recorded: vec![(stored(&header, 0), vec![SECOND.device, OTHER])],
        held: vec![],
        timeline: vec![moment(1.5)],
        ending: None,
        ended: None,
    };
    for _ in 0..2 {
        store.record(job, SECOND, 8, entries.clone()).await.unwrap();
        for store in [&store, &place.image().open()] {
            assert_eq!(load(store).await, std::slice::from_ref(&expected));
        }
    }
    // A higher epoch's log begins afresh; a lower one's moves nothing back.
    let third = Epoch {
        counter: 3,
        device: OTHER,
    };
    store.record(job, third, 0, vec![]).await.unwrap();
    store.record(job, SECOND, 9, vec![]).await.unwrap();
    (expected.epoch, expected.sequence) = (third, 0);
    assert_eq!(load(&store).await, std::slice::from_ref(&expected));
    let last = status(&header, JobState::Done);
    let ended = vec![Entry::Ended(Box::new(last.clone()))];
    store.record(job, third, 1, ended).await.unwrap();
    (expected.sequence, expected.ending) = (1, Some(last));
    let mine = Epoch {
        counter: 4,
        device: ME,
    };
    let claimed = [store.claim(job, mine), store.claim(job, third)];
    future::join_all(claimed)
        .await
        .into_iter()
        .for_each(Result::unwrap);
    store.set_backups(job, vec![OTHER]).await.unwrap();
    (expected.epoch, expected.sequence) = (mine, 0);
    expected.backups = vec![OTHER];
    assert_eq!(load(&place.image().open()).await, [expected]);
}

#[tokio::test]
async fn the_present_coordinators_bytes_of_a_tile_count() {
    let place = Place::new();
    let (store, header) = backup(&place).await;
    let mut other = stored(&header, 0);
    other.digest.0[0] ^= 1;
    for (epoch, sequence, tile, holders) in [
        (FIRST, 2, stored(&header, 0), vec![ME]),
        (SECOND, 1, stored(&header, 0), vec![ME, SECOND.device]),
        (SECOND, 2, other.clone(), vec![SECOND.device]),
    ] {
        let entries = vec![done_entry(tile.clone())];
        store
            .record(header.job, epoch, sequence, entries)
            .await
            .unwrap();
        assert_eq!(load(&store).await[0].recorded, [(tile, holders)]);
    }
}

#[tokio::test]
async fn a_backup_has_the_whole_result_in_the_end() {
    let place = Place::new();
    let (store, header) = backup(&place).await;
    for tile in 0..header.tiling.len() {
        let known = stored(&header, tile);
        let written = store.write_tile(
            header.job,
            known.done,
            None,
            Some(known.digest),
            tile_bytes(&header, tile),
        );
        assert_eq!(written.await.unwrap(), Some(known.digest));
    }
    let check = async |store: &Store| {
        for tile in 0..header.tiling.len() {
            let bytes = store.read_tile(header.job, tile as u32).await.unwrap();
            assert!(bytes == tile_bytes(&header, tile), "tile {tile}");
            let len = store.tile_bytes(header.job, tile as u32).await;
            assert_eq!(len, Some(bytes.len() as u64));
        }
        let beyond = store.read_tile(header.job, 6).await;
        assert!(matches!(beyond, Err(StoreError::Missing { .. })));
        assert_eq!(store.tile_bytes(header.job, 6).await, None);
        let held: Vec<_> = (0..6).map(|tile| stored(&header, tile)).collect();
        assert_eq!(load(store).await[0].held, held);
    };
    check(&store).await;
    let result = store.finish_job(header.job).await.unwrap();
    check(&store).await;
    // A copy that comes late is answered as the others.
    let late = async |expected| {
        let bytes = tile_bytes(&header, 0);
        let written = store.write_tile(header.job, done(0), None, expected, bytes);
        written.await.unwrap()
    };
    let digest = stored(&header, 0).digest;
    assert_eq!(late(Some(digest)).await, Some(digest));
    assert_eq!(late(Some(BlockId([0; 32]))).await, None);
    assert!(!store.has_ended(header.job));
    let ended = status(&header, JobState::Done);
    store.end_job(&ended).await.unwrap();
    assert!(store.has_ended(header.job));
    drop(store);
    let store = place.open();
    check(&store).await;
    check_result(&store, &header, &result).await;
    let restored = load(&store).await.remove(0);
    assert_eq!((restored.ended, restored.recorded), (Some(ended), vec![]));
}

#[tokio::test]
async fn a_result_that_was_copied_as_a_whole_lives_as_long_as_its_job() {
    let (place, other) = (Place::new(), Place::new());
    let (holder, header) = other.with_job().await;
    for tile in 0..header.tiling.len() {
        write(&holder, &header, tile).await.unwrap();
    }
    let result = holder.finish_job(header.job).await.unwrap().id();
    let (store, _) = backup(&place).await;
    let copied = store.import_blocks(holder.export_blocks(result), Some(result));
    copied.await.unwrap();
    let mut ended = status(&header, JobState::Done);
    ended.result = Some(result);
    store.end_job(&ended).await.unwrap();
    assert_eq!(
        store.read_tile(header.job, 3).await.unwrap(),
        tile_bytes(&header, 3)
    );
    drop(store);
    let store = place.open();
    assert_eq!(load(&store).await[0].held, []);
    assert_eq!(
        store.read_tile(header.job, 3).await.unwrap(),
        tile_bytes(&header, 3)
    );
}

#[tokio::test]
async fn a_tile_with_another_hash_is_refused_and_a_recorded_one_replaces_other_bytes() {
    let place = Place::new();
    let (store, header) = backup(&place).await;
    let job = header.job;
    let right = stored(&header, 0).digest;
    let wrong: Bytes = vec![1; tile_bytes(&header, 0).len()].into();
    let write = async |expected: Option<BlockId>, bytes: &Bytes| {
        let written = store.write_tile(job, done(0), None, expected, bytes.clone());
        written.await.unwrap()
    };
    assert_eq!(write(Some(right), &wrong).await, None);
    assert_eq!(load(&store).await[0].held, []);
    let other = write(None, &wrong).await.unwrap();
    assert_ne!(other, right);
    assert_eq!(store.read_tile(job, 0).await.unwrap(), wrong);
    // Without a hash that it should have, what is there stays.
    let bytes = tile_bytes(&header, 0);
    assert_eq!(write(None, &bytes).await, Some(other));
    assert_eq!(write(Some(right), &bytes).await, Some(right));
    for store in [&store, &place.image().open()] {
        assert_eq!(store.read_tile(job, 0).await.unwrap(), bytes);
        assert_eq!(load(store).await[0].held, [stored(&header, 0)]);
    }
    // At the same time, too.
    let (first, second) = future::join(write(Some(right), &bytes), write(None, &wrong)).await;
    assert_eq!((first, second), (Some(right), Some(right)));
}

#[tokio::test]
async fn operands_that_come_later_stay_until_the_job_ends() {
    const YEAR: WallTime = WallTime(1 << 45);
    let ttl = std::time::Duration::from_secs(1);
    for end in ["ended", "dropped", "over"] {
        let place = Place::new();
        let (header, (source, _place)) = elsewhere().await;
        let (store, _) = backup(&place).await;
        assert_eq!(store.operand_bytes(header.job), Some(300 * 700 * 8));
        let operands = [header.a.id(), header.b.id()];
        for id in operands {
            let copied = store.import_blocks(source.export_blocks(id), Some(id));
            copied.await.unwrap();
        }
        assert_eq!(store.expire(YEAR, ttl).await, []);
        drop(store);
        let mut store = place.open();
        assert_eq!(store.expire(YEAR, ttl).await, []);
        for id in operands {
            store.manifest(id).await.unwrap();
        }
        match end {
            "ended" => {
                let status = status(&header, JobState::Failed);
                store.end_job(&status).await.unwrap();
            }
            _ => {
                let for_good = end == "over";
                store.drop_job(header.job, for_good).await.unwrap();
                store.drop_job(header.job, for_good).await.unwrap();
                assert_eq!(load(&store).await, []);
                let missing = match for_good {
                    true => Missing::Expired,
                    false => Missing::Unknown,
                };
                assert_eq!(store.job_missing(header.job), missing);
                drop(store);
                store = place.open();
                assert_eq!(store.job_missing(header.job), missing);
                assert_eq!(store.expired_jobs().len(), usize::from(for_good));
            }
        }
        assert_eq!(place.block_files().len(), 2, "{end}");
        let expired = store.expire(YEAR, ttl).await;
        assert_eq!(expired.len(), usize::from(end == "ended"));
        // A day later the trace of the other is gone.
        assert_eq!(store.expired_jobs(), expired);
        for id in operands {
            assert_eq!(store.manifest(id).await, Err(Missing::Expired));
        }
        assert_eq!((store.disk_used(), place.block_files().len()), (0, 0));
        // What is over does not come back; what was dropped may.
        let entries = vec![Entry::Taken(Box::new(taken(&header, "")))];
        let again = store.record(header.job, FIRST, 1, entries).await;
        assert_eq!(again.is_ok(), end != "ended", "{again:?}");
    }
}

#[tokio::test]
async fn a_result_file_that_is_damaged_costs_only_its_tiles() {
    let place = Place::new();
    let (store, header) = backup(&place).await;
    for tile in 0..header.tiling.len() {
        write(&store, &header, tile).await.unwrap();
    }
    let last = header.tiling.len() - 1;
    type Damage = fn(&std::path::Path);
    let damages: [(Damage, u64); 4] = [
        (|_| {}, last + 1),
        (
            |file| {
                let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
                file.set_len(file.metadata().unwrap().len() - 1).unwrap();
            },
            last,
        ),
        (
            |file| {
                let mut bytes = std::fs::read(file).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(file, bytes).unwrap();
            },
            last,
        ),
        (|file| std::fs::remove_file(file).unwrap(), 0),
    ];
    for (damage, left) in damages {
        let image = place.image();
        let is_result = |file: &PathBuf| file.to_string_lossy().contains("/result-");
        damage(&image.block_files().into_iter().find(is_result).unwrap());
        let store = image.open();
        let held: Vec<_> = (0..left).map(|tile| stored(&header, tile)).collect();
        assert_eq!(load(&store).await[0].held, held);
        for tile in left..=last {
            let lost = store.read_tile(header.job, tile as u32).await;
            assert!(matches!(lost, Err(StoreError::Missing { .. })));
            write(&store, &header, tile).await.unwrap();
        }
        let result = store.finish_job(header.job).await.unwrap();
        check_result(&store, &header, &result).await;
    }
}

#[tokio::test]
async fn a_damaged_tile_is_not_given_away() {
    let place = Place::new();
    let (store, header) = backup(&place).await;
    write(&store, &header, 0).await.unwrap();
    write(&store, &header, 1).await.unwrap();
    let file = &place.block_files()[0];
    let mut bytes = std::fs::read(file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let error = store.read_tile(header.job, 0).await.unwrap_err();
    assert_eq!(ApiError::from(error).code, "corrupt");
    store.read_tile(header.job, 1).await.unwrap();
}

#[tokio::test]
async fn a_log_that_can_not_be_kept_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let (header, _) = elsewhere().await;
    let store = place.open();
    let refused_at = async |epoch: Epoch, entries: Vec<Entry>| {
        let result = store.record(header.job, epoch, 1, entries).await;
        assert_eq!(load(&store).await, []);
        assert_eq!((store.disk_used(), place.block_files().len()), (0, 0));
        result.unwrap_err()
    };
    let refused = async |entries| refused_at(FIRST, entries).await;
    for entries in [vec![], vec![Entry::Backups(vec![])]] {
        assert!(matches!(refused(entries).await, StoreError::NoSuchJob(_)));
    }
    let mut unaligned = taken(&header, "");
    unaligned.header.tiling.tile_rows = 100;
    let mut empty = taken(&header, "");
    empty.header.tiling.tile_cols = 0;
    let mut another = taken(&header, "");
    another.header.job = JobId([9; 16]);
    for taken in [unaligned, empty, another] {
        let error = refused(vec![Entry::Taken(Box::new(taken))]).await;
        assert_eq!(ApiError::from(error).code, "bad_job");
    }
    // Nor what comes after entries that were not kept.
    let good = Entry::Taken(Box::new(taken(&header, "")));
    let late = store.record(header.job, FIRST, 2, vec![good]).await;
    assert_eq!(ApiError::from(late.unwrap_err()).code, "bad_job");
    assert_eq!(load(&store).await, []);
    // A good beginning does not make the rest good.
    let good = Entry::Taken(Box::new(taken(&header, "")));
    let beyond = Epoch {
        counter: u64::MAX,
        device: ME,
    };
    let error = refused_at(beyond, vec![good.clone()]).await;
    assert_eq!(ApiError::from(error).code, "bad_job");
    drop(store);
    let small = Store::open(&place.data(), 1 << 20, &shares()).unwrap();
    let error = small.record(header.job, FIRST, 1, vec![good]).await;
    assert!(matches!(error, Err(StoreError::Full { .. })), "{error:?}");
    assert!(place.block_files().is_empty());
}

#[tokio::test]
async fn changes_that_wait_share_a_transaction_and_one_that_fails_spoils_none() {
    let place = Place::new();
    let (header, _) = elsewhere().await;
    let store = place.open();
    let job = header.job;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let hold = tokio::spawn(
        store
            .inner
            .writer
            .post_run(move |_| Ok(held.recv().is_ok())),
    );
    // Queued in this order, whoever is asked first.
    let taken = Entry::Taken(Box::new(taken(&header, "")));
    let first = store.record(job, FIRST, 1, vec![taken]);
    let unknown = store.record(JobId([9; 16]), FIRST, 1, vec![]);
    let second = store.record(job, FIRST, 2, vec![Entry::Backups(vec![OTHER])]);
    let third = store.set_backups(job, vec![ME]);
    // Both wait for the row.
    let tile = future::join(write(&store, &header, 0), store.tile_bytes(job, 5));
    release.send(()).unwrap();
    let ((tile, bytes), third, second) = future::join3(tile, third, second).await;
    let (first, unknown) = future::join(first, unknown).await;
    assert!(hold.await.unwrap().unwrap());
    assert!(matches!(unknown, Err(StoreError::NoSuchJob(_))));
    [tile, third, second, first]
        .into_iter()
        .for_each(Result::unwrap);
    assert_eq!(bytes, Some(88 * 188 * 8));
    let restored = load(&store).await.remove(0);
    assert_eq!((restored.sequence, restored.backups), (2, vec![ME]));
    assert_eq!(restored.held, [stored(&header, 0)]);
}

#[tokio::test]
async fn the_last_moments_are_kept_in_the_order_of_their_time() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let moments: Vec<Moment> = (0..TIMELINE_MAX + 6).map(|at| moment(at as f64)).collect();
    for moment in moments.iter().rev().chain(&moments) {
        store.add_moment(header.job, moment.clone()).await.unwrap();
    }
    assert_eq!(load(&store).await[0].timeline, moments[6..]);
}

#[tokio::test]
async fn a_database_of_the_version_before_goes_on() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let finished = JobHeader {
        job: JobId([8; 16]),
        ..header.clone()
    };
    take(&store, &finished, "other").await.unwrap();
    for tile in 0..header.tiling.len() {
        write(&store, &finished, tile).await.unwrap();
    }
    store.finish_job(finished.job).await.unwrap();
    write(&store, &header, 2).await.unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(place.data().join("store.db")).unwrap();
    for table in TABLES_OF_JOBS.iter().chain(&["matrices", "tombstones"]) {
        let sql = format!("DROP INDEX {table}_sum");
        connection.execute_batch(&sql).unwrap();
    }
    for column in [
        "counter",
        "coordinator",
        "sequence",
        "backups",
        "ending",
        "tiles",
    ] {
        let sql = format!("ALTER TABLE jobs DROP COLUMN {column}");
        connection.execute_batch(&sql).unwrap();
    }
    connection
        .execute_batch(
            "ALTER TABLE tiles DROP COLUMN digest; ALTER TABLE tiles DROP COLUMN at_ms;
             DROP TABLE recorded; DROP TABLE holders;
             DROP TABLE moments; DROP TABLE private; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(connection);
    let store = place.open();
    let mut jobs = load(&store).await;
    jobs.sort_by_key(|restored| restored.taken.header.job);
    assert_eq!(
        jobs.iter().map(|job| job.epoch).collect::<Vec<_>>(),
        [FIRST; 2]
    );
    assert_eq!(jobs[0].held, [stored(&header, 2)]);
    let all: Vec<_> = (0..6).map(|tile| stored(&header, tile)).collect();
    assert_eq!(jobs[1].held, all, "of a result that is a matrix");
    let entries = vec![done_entry(stored(&header, 5))];
    store.record(header.job, SECOND, 1, entries).await.unwrap();
    for tile in [0, 1, 3, 4, 5] {
        write(&store, &header, tile).await.unwrap();
    }
    let result = store.finish_job(header.job).await.unwrap();
    check_result(&store, &header, &result).await;
}

/// A job of another node, and that node.
async fn elsewhere() -> (JobHeader, (Store, Place)) {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    (header, (store, place))
}

/// A store with the first entry of a job of six tiles, and nothing else.
async fn backup(place: &Place) -> (Store, JobHeader) {
    let (header, _) = elsewhere().await;
    let store = place.open();
    let entries = vec![Entry::Taken(Box::new(taken(&header, "token")))];
    store.record(header.job, FIRST, 1, entries).await.unwrap();
    (store, header)
}

fn done_entry(stored: StoredTile) -> Entry {
    Entry::Done {
        stored,
        keeper: Some(OTHER),
    }
}

fn moment(at: f64) -> Moment {
    Moment {
        at,
        event: Happening::Reassigned,
        device: OTHER,
        name: "a device".to_owned(),
        tile: Some(3),
        epoch: 1,
    }
}
