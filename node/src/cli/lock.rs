//! One node for each data directory, and how other commands find it.
//!
//! `lock` is held by an advisory lock for as long as the node runs, so a crash leaves nothing
//! stale. `node.json` beside it says where the node listens; it is a file of its own because
//! Windows does not let others read a locked file.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::CliError;

/// Others look at the lock for an instant; a node that starts then tries again this often.
const TRIES: u32 = 10;
/// The time between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// What `node.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The process.
    pub pid: u32,
    /// `HOST:PORT` where this device reaches it.
    pub address: String,
}

/// Holds a data directory until dropped.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
    note: PathBuf,
}

impl DataDirLock {
    /// Takes a data directory, making it if need be.
    ///
    /// # Errors
    /// Another node has it, or it can not be written.
    pub fn acquire(dir: &Path) -> Result<Self, CliError> {
        let unusable = |error: io::Error| {
            CliError::usage(
                format!(
                    "the data directory {} can not be used: {error}",
                    dir.display()
                ),
                "choose another with --data-dir, or mend its permissions or disk",
            )
        };
        fs::create_dir_all(dir).map_err(unusable)?;
        let note = dir.join("node.json");
        let file = open(dir).map_err(unusable)?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < TRIES => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(taken(dir, read(&note).as_ref())),
                // Some file systems have no locks; a node there is still better than none.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    tracing::warn!(dir = %dir.display(), "no locks on this file system");
                    break;
                }
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
        }
        // What a node that was killed left behind.
        let _ = fs::remove_file(&note);
        Ok(Self { _file: file, note })
    }

    /// Says where the node listens.
    ///
    /// # Errors
    /// The directory can not be written.
    pub fn publish(&self, address: &str) -> io::Result<()> {
        let running = Running {
            pid: std::process::id(),
            address: address.to_owned(),
        };
        let text = serde_json::to_string(&running).expect("plain fields are printable");
        let draft = self.note.with_extension("json.new");
        fs::write(&draft, text)?;
        fs::rename(&draft, &self.note)
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.note);
    }
}

/// The node that has a data directory, if one runs.
pub fn find(dir: &Path) -> Option<Running> {
    let file = File::open(dir.join("lock")).ok()?;
    match file.try_lock_shared() {
        // Nobody holds it: whatever the note says is stale.
        Ok(()) => None,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => read(&dir.join("node.json")),
    }
}

fn open(dir: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
}

fn read(note: &Path) -> Option<Running> {
    serde_json::from_str(&fs::read_to_string(note).ok()?).ok()
}

fn taken(dir: &Path, running: Option<&Running>) -> CliError {
    let who = running.map_or_else(String::new, |running| {
        format!(" (process {}, http://{})", running.pid, running.address)
    });
    CliError::usage(
        format!(
            "another node is using the data directory {}{who}",
            dir.display()
        ),
        "use that node, stop it, or start a second one with --data-dir DIR and --port PORT",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_has_a_directory_and_others_find_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new");
        assert_eq!(find(&dir), None);
        let lock = DataDirLock::acquire(&dir).unwrap();
        assert_eq!(find(&dir), None, "it does not listen yet");
        lock.publish("127.0.0.1:9").unwrap();
        let running = Running {
            pid: std::process::id(),
            address: "127.0.0.1:9".to_owned(),
        };
        assert_eq!(find(&dir), Some(running));
        let refused = DataDirLock::acquire(&dir).unwrap_err();
        assert!(
            refused.message.contains("http://127.0.0.1:9"),
            "{}",
            refused.message
        );
        drop(lock);
        assert_eq!(find(&dir), None);
    }

    #[test]
    fn what_a_killed_node_left_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lock"), "").unwrap();
        fs::write(
            dir.path().join("node.json"),
            r#"{"pid":1,"address":"127.0.0.1:9"}"#,
        )
        .unwrap();
        assert_eq!(find(dir.path()), None);
        let lock = DataDirLock::acquire(dir.path()).unwrap();
        assert_eq!(find(dir.path()), None, "the old address is gone");
        drop(lock);
    }

    #[test]
    fn a_directory_that_is_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let error = DataDirLock::acquire(&path).unwrap_err();
        assert!(error.message.contains("file"), "{}", error.message);
    }
}
