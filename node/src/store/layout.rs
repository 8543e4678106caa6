//! The store's directory on the disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::os;

/// A directory of block files.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes the directory, readable by its owner alone.
    pub(crate) fn create(path: PathBuf) -> Result<Self, StoreError> {
        let doing =
            |error| StoreError::io(format!("making the directory {}", path.display()), error);
        fs::create_dir_all(&path).map_err(doing)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(doing)?;
        }
        Ok(Self { path })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the names of files durable. Elsewhere than on unix that is the system's matter.
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(unix)]
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }

    /// A new file under a name that no other has had.
    pub(crate) fn new_file(&self, prefix: &str) -> Result<(String, File), StoreError> {
        let doing = |error| StoreError::io("making a file in the data directory", error);
        loop {
            let number = u64::from_le_bytes(os::random());
            let name = format!("{prefix}-{number:016x}");
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(self.file(&name));
            match opened {
                Ok(file) => return Ok((name, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(doing(error)),
            }
        }
    }

    /// Removes a file; it is swept at the next start if that fails.
    pub(crate) fn remove(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.file(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(name, %error, "a file of the store could not be removed");
        }
    }

    /// Whether there is no file.
    pub(crate) fn is_empty(&self) -> Result<bool, StoreError> {
        let doing = |error| StoreError::io("reading the data directory", error);
        Ok(fs::read_dir(&self.path).map_err(doing)?.next().is_none())
    }

    /// Removes all files that `keep` does not name.
    pub(crate) fn sweep(&self, keep: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let doing = |error| StoreError::io("reading the data directory", error);
        for entry in fs::read_dir(&self.path).map_err(doing)? {
            let name = entry.map_err(doing)?.file_name();
            let name = name.to_string_lossy();
            if !keep(&name) {
                self.remove(&name);
            }
        }
        Ok(())
    }
}

/// The lock of a store's directory, held as long as this lives (and not after the process).
#[derive(Debug)]
pub(crate) struct DirectoryLock(#[allow(dead_code, reason = "held, not used")] File);

impl DirectoryLock {
    /// # Errors
    /// [`StoreError::InUse`] when another process has it.
    pub(crate) fn take(directory: &Path) -> Result<Self, StoreError> {
        let doing = |error| StoreError::io("locking the data directory", error);
        let path = directory.join("store.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(doing)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(fs::TryLockError::WouldBlock) => {
                Err(StoreError::InUse(directory.display().to_string()))
            }
            Err(fs::TryLockError::Error(error)) => Err(doing(error)),
        }
    }
}
