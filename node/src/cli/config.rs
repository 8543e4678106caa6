//! From the options as typed to a `NodeConfig` in which nothing is missing.

use std::path::{Path, PathBuf};

use crate::config::NodeConfig;
use crate::memory::Shares;

use super::args::ServeArgs;
use super::error::CliError;
use super::text;
use super::values::Address;

/// What is assumed when the system does not say how much memory it has.
const MEMORY_UNKNOWN: u64 = 2 << 30;
/// What is assumed when the system does not say how much disk is free.
const DISK_UNKNOWN: u64 = 4 << 30;
/// Less disk than this is not enough for the smallest jobs.
const DISK_MIN: u64 = 16 << 20;

/// Fills in the defaults: they depend on this device.
///
/// # Errors
/// An option that can not be met, with the fix.
pub fn resolve(args: &ServeArgs) -> Result<NodeConfig, CliError> {
    let data_dir = data_dir(args.data_dir.as_deref())?;
    let threads = args.threads.unwrap_or_else(threads);
    let least = Shares::least(threads);
    let default = || default_memory().max(least);
    let memory = args.memory.map_or_else(default, |size| size.0);
    if memory < least {
        let (count, least) = (text::count(threads.into(), "thread"), least >> 20);
        return Err(CliError::usage(
            format!("--memory {memory} is too little for {count}: it takes at least {least}M"),
            format!(
                "give a node of so many threads at least --memory {least}M, or use fewer --threads"
            ),
        ));
    }
    let disk = args
        .disk
        .map_or_else(|| default_disk(&data_dir), |size| size.0);
    if disk < DISK_MIN {
        return Err(CliError::usage(
            format!("--disk {disk} is too little"),
            "give a node at least 16M, or free some space on the disk of its data directory",
        ));
    }
    Ok(NodeConfig {
        port: args.port,
        bind: args.bind,
        name: args.name.clone().unwrap_or_else(host_name),
        data_dir,
        mesh: args.mesh.clone(),
        peers: args
            .peers
            .iter()
            .map(|Address(address)| address.clone())
            .collect(),
        mdns: !args.no_mdns,
        threads,
        memory,
        disk,
        backups: usize::from(args.backups),
        result_ttl: args.result_ttl,
        tls: args.tls,
        allow_hosts: args.allow_hosts.clone(),
    })
}

/// The processors this program may use.
pub fn threads() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

/// The data directory: as asked for, else where this system keeps the data of a user's programs.
///
/// # Errors
/// When neither is known.
pub fn data_dir(asked: Option<&Path>) -> Result<PathBuf, CliError> {
    let env = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let found = match asked {
        Some(dir) => Some(dir.to_owned()),
        None => default_data_dir(std::env::consts::OS, env),
    };
    let dir = found.ok_or_else(|| {
        CliError::usage(
            "this system does not say where the data of programs belongs".to_owned(),
            "say where with --data-dir DIR",
        )
    })?;
    std::path::absolute(&dir).map_err(|error| {
        CliError::usage(
            format!("--data-dir {}: {error}", dir.display()),
            "give a path",
        )
    })
}

fn default_data_dir(os: &str, env: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let base = match os {
        "windows" => {
            env("LOCALAPPDATA").or_else(|| Some(env("USERPROFILE")?.join("AppData").join("Local")))
        }
        "macos" => Some(env("HOME")?.join("Library").join("Application Support")),
        // Termux sets HOME inside its own area, so the usual place works there too.
        _ => env("XDG_DATA_HOME")
            .filter(|dir| dir.is_absolute())
            .or_else(|| Some(env("HOME")?.join(".local").join("share"))),
    };
    Some(base?.join("gemmesh"))
}

fn host_name() -> String {
    let name = sysinfo::System::host_name().unwrap_or_default();
    let name = super::text::clean(&name);
    let short = name.split('.').next().unwrap_or_default().trim();
    super::values::label(short).unwrap_or_else(|_| "device".to_owned())
}

/// Half of what this program may use; containers may allow less than the machine has.
fn default_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let total = match system.cgroup_limits() {
        Some(limits) if limits.total_memory > 0 => limits.total_memory.min(system.total_memory()),
        _ => system.total_memory(),
    };
    let total = if total == 0 { MEMORY_UNKNOWN } else { total };
    total / 2
}

/// Half of what is free where the data directory is or will be.
fn default_disk(data_dir: &Path) -> u64 {
    free_disk(data_dir).unwrap_or(DISK_UNKNOWN) / 2
}

/// Bytes free on the disk that holds `path` or will hold it.
pub fn free_disk(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|dir| dir.exists())?;
    let existing = existing.canonicalize().ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holds = |disk: &&sysinfo::Disk| existing.starts_with(disk.mount_point());
    let disk = disks
        .iter()
        .filter(holds)
        .max_by_key(|disk| disk.mount_point().as_os_str().len())?;
    Some(disk.available_space())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_is_where_the_system_keeps_such_things() {
        let unix = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/home/ann")),
            _ => None,
        };
        let xdg = |name: &str| match name {
            "XDG_DATA_HOME" => Some(PathBuf::from("/data")),
            other => unix(other),
        };
        let relative = |name: &str| match name {
            "XDG_DATA_HOME" => Some(PathBuf::from("data")),
            other => unix(other),
        };
        check("linux", &unix, Some("/home/ann/.local/share/gemmesh"));
        check("android", &unix, Some("/home/ann/.local/share/gemmesh"));
        check("linux", &xdg, Some("/data/gemmesh"));
        check("linux", &relative, Some("/home/ann/.local/share/gemmesh"));
        check(
            "macos",
            &xdg,
            Some("/home/ann/Library/Application Support/gemmesh"),
        );
        check("windows", &unix, None);
        check("linux", &|_| None, None);
    }

    #[test]
    fn some_space_is_free_where_the_temporary_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_disk(&dir.path().join("not").join("yet"));
        assert!(free.is_none_or(|bytes| bytes > 0), "{free:?}");
    }

    fn check(os: &str, env: &dyn Fn(&str) -> Option<PathBuf>, expected: Option<&str>) {
        assert_eq!(
            default_data_dir(os, env),
            expected.map(PathBuf::from),
            "{os}"
        );
    }
}
