//! Damage of the database that SQLite does not look for.
//!
//! Its pages have no checksums. Each table therefore has an index on a checksum of its rows
//! ([`ROW_SUM`], a function of SQL; the schema names the columns). SQLite keeps it, and
//! `PRAGMA integrity_check` compares it with the rows.
//!
//! Frames of the write-ahead log have checksums, but SQLite takes the first that is wrong for the
//! end of the log, as it is after a crash. [`check_log`] tells both apart: what was synced is
//! followed by the frames of a later transaction.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

use super::StoreError;

/// The name of the function that the schema uses.
pub(crate) const ROW_SUM: &str = "row_sum";

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit says in which order the bytes of checksummed words are.
const MAGIC: u32 = 0x377f_0682;

/// Offers [`ROW_SUM`] to the schema.
pub(crate) fn add_functions(connection: &Connection) -> Result<(), StoreError> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    Ok(connection.create_scalar_function(ROW_SUM, -1, flags, row_sum)?)
}

/// The first eight bytes of BLAKE3 over the values, each after its type and its length.
fn row_sum(values: &Context<'_>) -> rusqlite::Result<i64> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |kind: u8, bytes: &[u8]| {
        hasher.update(&[kind]);
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for index in 0..values.len() {
        match values.get_raw(index) {
            ValueRef::Null => add(0, &[]),
            ValueRef::Integer(value) => add(1, &value.to_le_bytes()),
            ValueRef::Real(value) => add(2, &value.to_bits().to_le_bytes()),
            ValueRef::Text(text) => add(3, text),
            ValueRef::Blob(blob) => add(4, blob),
        }
    }
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes");
    Ok(i64::from_le_bytes(*first))
}

/// Checks the database with all its indexes. Cost: all of it is read.
pub(crate) fn check_rows(connection: &Connection) -> Result<(), StoreError> {
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(StoreError::Damaged(verdict)),
    }
}

/// Checks the write-ahead log at `path`, if there is one, before SQLite opens it. A transaction
/// that was being written when the process or the machine died is no damage; nor is it noticed
/// when the last transaction alone is damaged.
pub(crate) fn check_log(path: &Path) -> Result<(), StoreError> {
    let doing = |error| StoreError::io("reading the database's log", error);
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(doing(error)),
        Ok(file) => match is_whole(BufReader::new(file)).map_err(doing)? {
            true => Ok(()),
            false => Err(StoreError::Damaged(
                "what it has committed last (store.db-wal) has wrong checksums".to_owned(),
            )),
        },
    }
}

fn is_whole(mut log: impl Read) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut log, &mut header)? || header == [0; HEADER_BYTES] {
        return Ok(true);
    }
    let magic = word(&header, 0);
    let big = magic & 1 == 1;
    let page = word(&header, 8) as usize;
    let mut sum = add(big, (0, 0), &header[..24]);
    let right = (word(&header, 24), word(&header, 28));
    if magic & !1 != MAGIC || sum != right || !(512..=65_536).contains(&page) {
        return Ok(false);
    }
    let salt = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER_BYTES + page];
    let (mut broken, mut committed) = (false, false);
    while fill(&mut log, &mut frame)? {
        let is_of_this_log = frame[8..16] == *salt;
        if committed && is_of_this_log {
            // Written after a commit, and so after the sync of what comes before that.
            return Ok(false);
        }
        if !broken {
            sum = add(big, sum, &frame[..8]);
            sum = add(big, sum, &frame[FRAME_HEADER_BYTES..]);
            broken = !is_of_this_log || sum != (word(&frame, 16), word(&frame, 20));
        }
        committed |= broken && is_of_this_log && word(&frame, 4) != 0;
    }
    Ok(true)
}

/// `false` at the end.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The checksum of the log's format, of more bytes (a multiple of eight).
fn add(big: bool, (mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |bytes: &[u8; 4]| match big {
        true => u32::from_be_bytes(*bytes),
        false => u32::from_le_bytes(*bytes),
    };
    let (words, _) = bytes.as_chunks::<4>();
    for [x, y] in words.as_chunks::<2>().0 {
        a = a.wrapping_add(word(x)).wrapping_add(b);
        b = b.wrapping_add(word(y)).wrapping_add(a);
    }
    (a, b)
}
