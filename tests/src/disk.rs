//! A small file system of its own, and damage to files. Needs root. Nothing outside a temporary
//! directory is touched.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// What the names of mount points begin with; the process id follows.
const PREFIX: &str = "gemmesh-disk-";

/// Whether tests with a file system of their own run; if not, it says so.
///
/// # Panics
/// When they can not run here and the person has not asked to leave them out.
pub fn available() -> bool {
    if std::env::var_os("GEMMESH_SKIP_MOUNT").is_some_and(|value| value == "1") {
        eprintln!("left out, because GEMMESH_SKIP_MOUNT=1: this test mounts a file system");
        return false;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts a file system, which takes root: run as root, or leave it out with \
         GEMMESH_SKIP_MOUNT=1"
    );
    true
}

/// A file system in memory of so many bytes. It goes when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
    ballast: PathBuf,
}

impl SmallDisk {
    /// Makes one.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn new(bytes: u64) -> Self {
        unmount_abandoned();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let directory = TempDir::with_prefix(prefix).expect("a temporary directory");
        let size = std::ffi::CString::new(format!("size={bytes}")).expect("digits");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", directory.path(), "tmpfs", flags, &*size).expect("root may mount");
        let ballast = directory.path().join("ballast");
        Self { directory, ballast }
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes all room but `free` bytes.
    ///
    /// # Panics
    /// When it has less.
    pub fn fill(&self, free: u64) {
        let mut file = File::create(&self.ballast).expect("a file");
        let piece = vec![0x5a; 4096];
        let mut written = 0;
        let error = loop {
            match file.write(&piece) {
                Ok(bytes) => written += bytes as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        assert!(written >= free, "there were only {written} bytes");
        file.set_len(written - free).expect("a shorter file");
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Panics
    /// When it took nothing.
    pub fn relieve(&self) {
        fs::remove_file(&self.ballast).expect("the file is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

/// Unmounts what test runs that were killed have left.
fn unmount_abandoned() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let name = Path::new(point).file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let pid = rest.split('-').next().unwrap_or_default();
        if !PathBuf::from("/proc").join(pid).exists() {
            let _ = unmount(point, UnmountFlags::DETACH);
            let _ = fs::remove_dir(point);
        }
    }
}

/// The files of a node's matrices whose names begin so: `matrix-` as they came, `result-` as they were
/// computed.
///
/// # Panics
/// When the data directory has none.
pub fn block_files(data: &Path, prefix: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(data.join("blocks")).expect("a store");
    let mut paths: Vec<PathBuf> = files
        .map(|file| file.expect("a readable directory").path())
        .collect();
    let name = |path: &PathBuf| {
        path.file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    paths.retain(|path| name(path).starts_with(prefix));
    assert!(!paths.is_empty(), "no {prefix} in {}", data.display());
    paths
}

/// How a disk damages a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Bits of bytes all over it change.
    Flip,
    /// Its second half is gone.
    Cut,
}

impl Damage {
    /// Damages a file where it is: who has it open sees it too.
    ///
    /// # Panics
    /// When it can not be written.
    pub fn of(self, path: &Path) {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.expect("a file");
        let length = file.metadata().expect("a file").len();
        match self {
            Damage::Flip => {
                for at in (0..length).step_by(50_021) {
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at).expect("it is there");
                    file.write_all_at(&[byte[0] ^ 0x08], at)
                        .expect("it is there");
                }
            }
            Damage::Cut => file.set_len(length / 2).expect("a shorter file"),
        }
    }
}
