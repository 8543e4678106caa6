//! The store after a process that ended without a word, and on a disk that forgets.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Tells the process that is to be killed where to write.
const DIRECTORY: &str = "GEMMESH_TEST_DIRECTORY";

#[tokio::test]
async fn whatever_was_acknowledged_is_there_after_a_crash() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let total = header.tiling.len();
    for durable in 0..=total {
        let crashed = place.image();
        let after = crashed.open();
        let jobs = after.load_jobs(ME).await;
        let held: Vec<_> = (0..durable).map(|tile| stored(&header, tile)).collect();
        assert_eq!(jobs[0].held, held);
        assert_eq!(crashed.block_files().len(), 3, "what is half done is swept");
        if durable < total {
            let error = after.finish_job(header.job).await.unwrap_err();
            assert!(matches!(error, StoreError::Incomplete { done, .. } if done == durable));
        }
        for tile in durable..total {
            write(&after, &header, tile).await.unwrap();
        }
        let result = after.finish_job(header.job).await.unwrap();
        check_result(&after, &header, &result).await;
        if durable < total {
            write(&store, &header, durable).await.unwrap();
        }
    }
    let result = store.finish_job(header.job).await.unwrap();
    let after = place.image();
    let after = after.open();
    assert_eq!(
        after.finish_job(header.job).await.unwrap(),
        result,
        "between finish and end"
    );
    after
        .end_job(&status(&header, JobState::Done))
        .await
        .unwrap();
    check_result(&after, &header, &result).await;
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    for kill_after in [1, 4, 9] {
        let place = Place::new();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::crash::writes_until_it_is_killed",
                "--ignored",
            ])
            .arg("--nocapture")
            .env(DIRECTORY, place.dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let acknowledged: Vec<u64> = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .filter_map(|line| line.strip_prefix("durable ")?.parse().ok())
            .take(kill_after)
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(acknowledged.len(), kill_after);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = place.open();
            let job = store.load_jobs(ME).await.remove(0);
            let there: Vec<u64> = job
                .held
                .iter()
                .map(|tile| u64::from(tile.done.tile))
                .collect();
            for tile in &acknowledged {
                assert!(there.contains(tile), "tile {tile} of {there:?}");
            }
            for tile in (0..job.taken.header.tiling.len()).filter(|tile| !there.contains(tile)) {
                write(&store, &job.taken.header, tile).await.unwrap();
            }
            let result = store.finish_job(job.taken.header.job).await.unwrap();
            check_result(&store, &job.taken.header, &result).await;
        });
    }
}

#[tokio::test]
#[ignore = "a process for the test above to kill"]
async fn writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let store = Store::open(&directory.join("data"), GIB, &shares()).unwrap();
    let column = json!((0..600).map(|i| [i]).collect::<Vec<_>>());
    let a = store.import_values(column, Some(Dtype::F64)).await.unwrap();
    let row = json!([(0..2_000).collect::<Vec<_>>()]);
    let b = store.import_values(row, Some(Dtype::F64)).await.unwrap();
    let header = header(&a, &b, 256, 256);
    take(&store, &header, "").await.unwrap();
    let tiles = (0..header.tiling.len()).map(|tile| {
        let (store, header) = (&store, &header);
        async move {
            write(store, header, tile).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "\ndurable {tile}").unwrap();
            out.flush().unwrap();
        }
    });
    futures_util::stream::iter(tiles)
        .buffer_unordered(3)
        .collect::<Vec<()>>()
        .await;
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_damaged_block_is_noticed_and_an_upload_heals_it() {
    let damages: [fn(&Path); 3] = [
        |file| {
            let mut bytes = std::fs::read(file).unwrap();
            bytes[300_000] ^= 1;
            std::fs::write(file, bytes).unwrap();
        },
        |file| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(10)
                .unwrap()
        },
        |file| std::fs::remove_file(file).unwrap(),
    ];
    for damage in damages {
        let place = Place::new();
        let path = place.npy(256, 256);
        let options = ReadOptions::default();
        let id = place
            .open()
            .import(&path, Format::Npy, options)
            .await
            .unwrap()
            .id();
        damage(&place.block_files()[0]);
        let store = place.open();
        let error = store.read_block(id, 0).await.unwrap_err();
        let missing = Missing::Corrupt(String::new());
        let is_corrupt =
            |found: &Missing| std::mem::discriminant(found) == std::mem::discriminant(&missing);
        assert!(matches!(&error, StoreError::Missing { missing, .. } if is_corrupt(missing)));
        assert!(is_corrupt(&store.manifest(id).await.unwrap_err()));
        assert_eq!(ApiError::from(error).code, "corrupt");
        let healed = store.import(&path, Format::Npy, options).await.unwrap();
        assert_eq!(healed.id(), id);
        assert_eq!(store.read_block(id, 0).await.unwrap().len(), 256 * 256 * 8);
        assert_eq!(place.block_files().len(), 1, "the damaged file is gone");
    }
}

#[tokio::test]
async fn a_damaged_matrix_is_not_exported_as_if_it_were_whole() {
    let place = Place::new();
    let id = place
        .open()
        .import(&place.npy(600, 300), Format::Npy, ReadOptions::default())
        .await
        .unwrap()
        .id();
    let file = &place.block_files()[0];
    let mut bytes = std::fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(file, bytes).unwrap();
    for format in [Format::Npy, Format::Csv, Format::Mtx, Format::Json] {
        let store = place.open();
        let pieces: Vec<_> = store.export(id, format).collect().await;
        assert!(
            matches!(pieces.last(), Some(Err(StoreError::Missing { .. }))),
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn what_nobody_refers_to_is_swept() {
    let place = Place::new();
    let kept = place
        .open()
        .import_values(json!([[1]]), None)
        .await
        .unwrap();
    for name in ["matrix-0123456789abcdef", "result-0123456789abcdef", "else"] {
        std::fs::write(place.data().join("blocks").join(name), b"half a matrix").unwrap();
    }
    let store = place.open();
    assert_eq!(place.block_files().len(), 1);
    assert_eq!(export(&store, kept.id(), Format::Csv).await, b"1\n");
}

#[test]
fn a_directory_that_can_not_be_used_is_refused() {
    let place = Place::new();
    let open = || Store::open(&place.data(), GIB, &shares()).map(|_| ());
    let first = place.open();
    assert!(matches!(open(), Err(StoreError::InUse(_))));
    drop(first);
    open().unwrap();
    let connection = rusqlite::Connection::open(place.data().join("store.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(matches!(open(), Err(StoreError::Database(why)) if why.contains("newer")));
    std::fs::write(
        place.data().join("store.db"),
        b"this is no database".repeat(100),
    )
    .unwrap();
    assert!(matches!(open(), Err(StoreError::Damaged(_))));
}

#[tokio::test]
async fn a_database_that_was_cut_to_nothing_is_refused_and_no_block_is_removed() {
    let place = Place::new();
    let store = place.open();
    store.import_values(json!([[1]]), None).await.unwrap();
    drop(store);
    std::fs::write(place.data().join("store.db"), b"").unwrap();
    for attempt in 0..2 {
        let opened = Store::open(&place.data(), GIB, &shares()).map(|_| ());
        let refused = matches!(opened, Err(StoreError::Database(why)) if why.contains("empty"));
        assert!(refused, "attempt {attempt}");
        assert_eq!(place.block_files().len(), 1, "attempt {attempt}");
    }
}

impl Place {
    /// What a crash at this moment leaves, with the file of an import that was under way.
    pub(super) fn image(&self) -> Place {
        let image = Place::new();
        copy(&self.data(), &image.data());
        std::fs::write(image.data().join("blocks/matrix-00"), b"half a matrix").unwrap();
        image
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
