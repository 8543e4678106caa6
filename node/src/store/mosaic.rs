//! Who computed which tile of a job, in the order in which the tiles became durable here. What another node
//! has recorded as accepted, while it coordinated the job, counts before what this one has computed itself.

use std::collections::BTreeMap;

use gemmesh_protocol::id::{DeviceId, JobId};
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::message::{DeviceRecord, Work};
use gemmesh_protocol::tile::Tiling;
use gemmesh_protocol::time::WallTime;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::catalog::unpack;
use super::{Store, StoreError, blocking, damage};

/// Tiles in one answer.
pub const TILES_MAX: u32 = 8_192;

/// Tiles of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Mosaic {
    /// How C is cut.
    pub tiling: Tiling,
    /// When the job was acknowledged.
    pub submitted: WallTime,
    /// Who computed `tiles`, as each called itself; a device that is not on record has no entry.
    pub devices: BTreeMap<DeviceId, DeviceRecord>,
    /// At most [`TILES_MAX`].
    pub tiles: Vec<Piece>,
    /// What to ask for next: tiles after this one.
    pub next: i64,
}

/// One tile that is durable here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its place in the tiling.
    pub tile: u32,
    /// Who computed it.
    pub device: DeviceId,
    /// What that took.
    pub work: Work,
    /// When it became durable here, by this machine's clock; not known of tiles of older versions.
    pub at: Option<WallTime>,
}

impl Store {
    /// The tiles of `job` that became durable after the one with the number `after` (0: all), oldest
    /// first. They are kept until the job's time is over.
    ///
    /// Read beside the writer, which does not wait. Cost: one pass over the rows of the job's tiles.
    ///
    /// # Errors
    /// [`StoreError::NoSuchJob`], or the system's.
    pub async fn mosaic(&self, job: JobId, after: i64) -> Result<Mosaic, StoreError> {
        let path = self.shared().database.clone();
        blocking(move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            damage::add_functions(&connection)?;
            connection.busy_timeout(super::db::BUSY)?;
            read(&connection, job, after)
        })
        .await
    }
}

fn read(connection: &Connection, job: JobId, after: i64) -> Result<Mosaic, StoreError> {
    let header: Option<(Vec<u8>, i64)> = connection
        .query_row(
            "SELECT header, submitted_ms FROM jobs WHERE job = ?1",
            [&job.0[..]],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let (header, submitted) = header.ok_or(StoreError::NoSuchJob(job))?;
    let header: JobHeader = unpack(&header)?;
    let mut mosaic = Mosaic {
        tiling: header.tiling,
        submitted: WallTime(submitted as u64),
        devices: BTreeMap::new(),
        tiles: Vec::new(),
        next: after,
    };
    let mut select = connection.prepare(
        "SELECT tiles.number, tiles.tile, coalesce(recorded.device, tiles.device),
             coalesce(recorded.work, tiles.work), tiles.at_ms
         FROM tiles LEFT JOIN recorded ON recorded.job = tiles.job AND recorded.tile = tiles.tile
         WHERE tiles.job = ?1 AND tiles.number > ?2 ORDER BY tiles.number LIMIT ?3",
    )?;
    let mut rows = select.query(params![&job.0[..], after, TILES_MAX])?;
    while let Some(row) = rows.next()? {
        mosaic.next = row.get(0)?;
        mosaic.tiles.push(Piece {
            tile: row.get(1)?,
            device: DeviceId(row.get(2)?),
            work: unpack(&row.get::<_, Vec<u8>>(3)?)?,
            at: row.get::<_, Option<i64>>(4)?.map(|ms| WallTime(ms as u64)),
        });
    }
    let mut select =
        connection.prepare("SELECT device, record FROM contributors WHERE job = ?1")?;
    let mut rows = select.query([&job.0[..]])?;
    while let Some(row) = rows.next()? {
        let device = DeviceId(row.get(0)?);
        mosaic
            .devices
            .insert(device, unpack(&row.get::<_, Vec<u8>>(1)?)?);
    }
    let helped = mosaic.tiles.iter().map(|piece| piece.device).collect();
    let helped: std::collections::BTreeSet<DeviceId> = helped;
    mosaic.devices.retain(|device, _| helped.contains(device));
    Ok(mosaic)
}
