//! `/mesh/jobs/{job}/tiles/{tile}`: durable tiles, for other nodes that lack them.

use futures_util::stream;
use gemmesh_protocol::id::JobId;
use warp::reply::Response;

use super::call::{self, Call, clip};
use super::reply;
use crate::error::ApiError;
use crate::store::StoreError;

/// Bytes sent in one piece.
const PIECE_BYTES: usize = 256 << 10;

/// `GET`: the bytes of a tile, row-major and little-endian, their hashes checked.
pub async fn one(call: Call, job: &str, tile: &str) -> Result<Response, ApiError> {
    if !call.reads() {
        return Err(call.refuse_method(&["GET"]));
    }
    let job: JobId = call::id(job, "job")?;
    let tile: u32 = tile.parse().map_err(|_| {
        ApiError::new(
            404,
            "not_found",
            format!("{:?} is no number of a tile", clip(tile)),
            "tiles are numbered from 0",
        )
    })?;
    if call.app().store().is_bound(job) {
        return Err(ApiError::new(
            404,
            "not_found",
            format!("there is no tile {tile} of job {job} for others"),
            "tiles of private and masked products stay at their coordinator",
        ));
    }
    let mut bytes = call.app().store().read_tile(job, tile).await?;
    let pieces = std::iter::from_fn(move || {
        let len = bytes.len().min(PIECE_BYTES);
        (len > 0).then(|| Ok::<_, StoreError>(bytes.split_to(len)))
    });
    Ok(reply::stream(
        "application/octet-stream",
        stream::iter(pieces),
    ))
}
