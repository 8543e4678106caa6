//! `GET /api/jobs/{job}/tiles`: who computed which tile, for the page's map and task stream.

use std::time::Duration;

use gemmesh_protocol::id::{DeviceId, JobId};
use gemmesh_protocol::status::DeviceKind;
use serde::Serialize;
use warp::http::StatusCode;
use warp::reply::Response;

use super::call::{self, Call, clip};
use super::jobs::{self, Place};
use super::reply;
use crate::error::ApiError;
use crate::store::{Mosaic, StoreError};

#[derive(Serialize)]
struct Answer<'a> {
    job: JobId,
    /// Who answers: `next` counts the tiles of this node.
    node: DeviceId,
    rows: u64,
    cols: u64,
    tile_rows: u64,
    tile_cols: u64,
    devices: Vec<Device<'a>>,
    /// Tile, place in `devices`, milliseconds from the job's acknowledgement until it was durable,
    /// microseconds of kernel time, and of waiting for blocks.
    tiles: Vec<(u32, usize, Option<u64>, u64, u64)>,
    next: i64,
}

#[derive(Serialize)]
struct Device<'a> {
    device: DeviceId,
    name: &'a str,
    kind: Option<DeviceKind>,
    slots: u32,
}

/// The tiles that became durable after those of an earlier answer, whose `next` is `?after=`; at most
/// 8,192, oldest first. Of a job that has ended they are told until its time is over.
///
/// # Errors
/// The job is unknown, its time is over, or it is a batch, whose parts are cut each for itself; 503 when the
/// node that ran it can not be reached.
pub async fn tiles(call: Call, job: String) -> Result<Response, ApiError> {
    if !call.reads() {
        return Err(call.refuse_method(&["GET"]));
    }
    let job: JobId = call::id(&job, "job")?;
    let after = match call.query.get("after") {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            ApiError::new(
                422,
                "bad_after",
                format!("after is {:?}, which is no whole number", clip(text)),
                "use the `next` of the answer before, or leave it out for all tiles",
            )
        })?,
    };
    // Only who ran it knows what was accepted from whom. Others have tiles, too, some of which they
    // computed although another's was faster.
    let app = call.app();
    let (ran, told) = match jobs::locate(&call, job).await? {
        Place::Here => (app.job(job).map(|status| status.coordinator), None),
        Place::Lost(status) => (Some(status.coordinator), None),
        Place::There(address) => (None, Some(address)),
    };
    if ran != Some(app.device()) {
        let address = told.or_else(|| app.address_of(ran?));
        let address = address.filter(|_| !call.is_hop());
        let address = address.ok_or_else(|| absent(job))?;
        return jobs::forward(&call, &address, Duration::ZERO).await;
    }
    match call.app().store().mosaic(job, after).await {
        Ok(mosaic) => Ok(reply::json(
            StatusCode::OK,
            &answer(job, call.app().device(), &mosaic),
        )),
        Err(StoreError::NoSuchJob(_)) => Err(none(job)),
        Err(error) => Err(error.into()),
    }
}

fn absent(job: JobId) -> ApiError {
    ApiError::new(
        503,
        "coordinator_lost",
        format!(
            "the node that ran job {job} can not be reached, and it alone knows who computed which tile"
        ),
        "try again when it is back; the job's contributions say how much each device computed",
    )
}

fn none(job: JobId) -> ApiError {
    ApiError::new(
        404,
        "no_tiles",
        format!("there are no tiles of job {job}"),
        "GET /api/jobs lists the jobs of the mesh; a batch has no tiles of its own",
    )
}

fn answer(job: JobId, node: DeviceId, mosaic: &Mosaic) -> Answer<'_> {
    let mut places = std::collections::BTreeMap::new();
    let mut devices = Vec::new();
    let mut tiles = Vec::with_capacity(mosaic.tiles.len());
    for piece in &mosaic.tiles {
        let place = *places.entry(piece.device).or_insert_with(|| {
            let record = mosaic.devices.get(&piece.device);
            devices.push(Device {
                device: piece.device,
                name: record.map_or("", |record| &record.name),
                kind: record.map(|record| record.kind),
                slots: record.map_or(0, |record| record.slots),
            });
            devices.len() - 1
        });
        let at = piece.at.map(|at| at.0.saturating_sub(mosaic.submitted.0));
        let work = piece.work;
        tiles.push((piece.tile, place, at, work.kernel.0, work.transfer.0));
    }
    Answer {
        job,
        node,
        rows: mosaic.tiling.rows,
        cols: mosaic.tiling.cols,
        tile_rows: mosaic.tiling.tile_rows,
        tile_cols: mosaic.tiling.tile_cols,
        devices,
        tiles,
        next: mosaic.next,
    }
}
