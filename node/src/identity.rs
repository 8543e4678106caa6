//! Who this device is: an Ed25519 key made at the first start. The device's id is the BLAKE3 hash
//! of its public half, so that it can be proved later without being changed.

use std::io;
use std::path::Path;

use ed25519_dalek::SigningKey;
use gemmesh_protocol::id::DeviceId;

use crate::os;

/// Reads the key in `data_dir`, making it when there is none, and returns the device's id.
///
/// # Errors
/// When the file can not be read or written, or is not a key.
pub fn load(data_dir: &Path) -> io::Result<DeviceId> {
    let path = data_dir.join("identity.key");
    let secret: [u8; 32] = match std::fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|_| {
            let message = format!(
                "{} is not a key of 32 bytes; remove it to get a new identity",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = os::random();
            write_private(&path, &secret)?;
            secret
        }
        Err(error) => return Err(error),
    };
    let public = SigningKey::from_bytes(&secret).verifying_key();
    Ok(DeviceId(*blake3::hash(public.as_bytes()).as_bytes()))
}

/// Writes a file that only its owner can read, all of it or nothing.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let directory = path.parent().expect("a file in a directory");
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stays_across_starts_and_differs_between_devices() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = load(one.path()).unwrap();
        assert_eq!(load(one.path()).unwrap(), id);
        assert_ne!(load(other.path()).unwrap(), id);
    }

    #[test]
    fn a_damaged_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("identity.key"), b"short").unwrap();
        assert!(
            load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("identity.key")
        );
    }
}
