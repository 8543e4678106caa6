//! Reads and writes at a position, without moving a file's cursor.

use std::fs::File;
use std::io;

/// Fills `buffer` from byte `offset` on.
///
/// # Errors
/// Of the system, or `UnexpectedEof`.
#[cfg(unix)]
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Adds `len` bytes from byte `offset` on to `buffer`; where the system can, into memory that was not
/// cleared before.
///
/// # Errors
/// Of the system, or `UnexpectedEof`; `buffer` may have part of them then.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn append_at(file: &File, buffer: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<()> {
    use rustix::buffer::spare_capacity;
    let (start, end) = (buffer.len(), buffer.len() + len);
    buffer.reserve_exact(len);
    while buffer.len() < end {
        let at = offset + (buffer.len() - start) as u64;
        match rustix::io::pread(file, spare_capacity(buffer), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // There may have been room for more.
    buffer.truncate(end);
    Ok(())
}

/// Adds `len` bytes from byte `offset` on to `buffer`.
///
/// # Errors
/// Of the system, or `UnexpectedEof`.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn append_at(file: &File, buffer: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<()> {
    let start = buffer.len();
    buffer.resize(start + len, 0);
    read_at(file, &mut buffer[start..], offset)
}

/// Writes all of `bytes` from byte `offset` on.
///
/// # Errors
/// Of the system.
#[cfg(unix)]
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Fills `buffer` from byte `offset` on.
///
/// # Errors
/// Of the system, or `UnexpectedEof`.
#[cfg(windows)]
pub fn read_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` from byte `offset` on.
///
/// # Errors
/// Of the system.
#[cfg(windows)]
pub fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
