//! `GET /api/matrices/{id}/picture`: a window of a matrix as few cells, whatever its size, and its summary.

use gemmesh_protocol::id::MatrixId;
use gemmesh_protocol::tile::Rect;
use tokio::sync::Semaphore;
use warp::http::header::{self, HeaderValue};
use warp::reply::Response;

use super::call::{self, Call, clip};
use super::{matrices, peers};
use crate::error::ApiError;
use crate::files::export::print_json;
use crate::files::number::Value;
use crate::files::picture::Picture;
use crate::store::Missing;

/// Cells of an edge at most.
const EDGE_MAX: u64 = 256;
/// Cells of an edge if nobody says.
const EDGE: u64 = 128;
/// Elements of a window at most: reading them takes seconds.
const ELEMENTS_MAX: u128 = 1 << 29;
/// Pictures drawn at a time; each reads the disk and takes a core.
static DRAWING: Semaphore = Semaphore::const_new(2);

/// The window `?row=&col=&rows=&cols=` (all of the matrix by default) in `?height=` × `?width=` cells:
/// `{row, col, rows, cols, height, width, dtype, min, max, norm, nan, cells}`; see [`crate::files::picture`].
///
/// # Errors
/// No node that can be reached has the matrix; 422 for a window that is not inside it or too large.
pub async fn one(call: Call, id: &str) -> Result<Response, ApiError> {
    if !call.reads() {
        return Err(call.refuse_method(&["GET"]));
    }
    let id: MatrixId = call::id(id, "matrix")?;
    matrices::check_token(&call, id)?;
    let store = call.app().store();
    let manifest = match store.manifest(id).await {
        Ok(manifest) => manifest,
        Err(missing) if call.is_hop() => return Err(matrices::missing_matrix(id, &missing)),
        Err(Missing::Corrupt(_)) if peers::heal(call.app(), id).await => {
            let healed = store.manifest(id).await;
            healed.map_err(|missing| matrices::missing_matrix(id, &missing))?
        }
        Err(missing) => {
            let found = peers::any(call.app(), call.method.clone(), &call.target).await?;
            return found.map_err(|other| matrices::missing_matrix(id, &missing.or(other)));
        }
    };
    let window = Rect {
        row: number(&call, "row", 0)?,
        col: number(&call, "col", 0)?,
        rows: number(&call, "rows", manifest.rows)?,
        cols: number(&call, "cols", manifest.cols)?,
    };
    let inside = |first: u64, many: u64, all: u64| {
        many > 0 && first.checked_add(many).is_some_and(|end| end <= all)
    };
    if !inside(window.row, window.rows, manifest.rows)
        || !inside(window.col, window.cols, manifest.cols)
    {
        return Err(ApiError::new(
            422,
            "bad_window",
            format!(
                "{} rows from {} and {} columns from {} are not a window of a matrix of {} × {}",
                window.rows, window.row, window.cols, window.col, manifest.rows, manifest.cols
            ),
            "rows and columns are counted from 0, and a window has at least one of each",
        ));
    }
    if u128::from(window.rows) * u128::from(window.cols) > ELEMENTS_MAX {
        return Err(ApiError::new(
            422,
            "window_too_large",
            format!(
                "the window has {} × {} elements; {ELEMENTS_MAX} is the most",
                window.rows, window.cols
            ),
            "ask for a smaller window with row, col, rows and cols",
        ));
    }
    let edge = |name| number(&call, name, EDGE).map(|edge| edge.clamp(1, EDGE_MAX) as usize);
    let (height, width) = (edge("height")?, edge("width")?);
    let mut response = Response::default();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if call.method == warp::http::Method::HEAD {
        return Ok(response);
    }
    let _turn = DRAWING.acquire().await.expect("it is never closed");
    let picture = store.picture(id, window, height, width).await?;
    *response.body_mut() = json(&picture, window, manifest.element.dtype.name()).into();
    Ok(response)
}

fn number(call: &Call, name: &str, default: u64) -> Result<u64, ApiError> {
    let Some(text) = call.query.get(name) else {
        return Ok(default);
    };
    text.parse().map_err(|_| {
        ApiError::new(
            422,
            "bad_window",
            format!("{name} is {:?}, which is no whole number", clip(text)),
            "give digits only, or leave it out",
        )
    })
}

/// Elements are JSON already, with all of their digits.
fn json(picture: &Picture, window: Rect, dtype: &str) -> Vec<u8> {
    let Picture { cells, summary } = picture;
    let (height, width) = (cells.len(), cells[0].len());
    let Rect {
        row,
        col,
        rows,
        cols,
    } = window;
    let nan = summary.nan;
    let mut out = format!(
        "{{\"row\":{row},\"col\":{col},\"rows\":{rows},\"cols\":{cols},\
         \"height\":{height},\"width\":{width},\"dtype\":\"{dtype}\",\"nan\":{nan}"
    )
    .into_bytes();
    let figures = [
        ("min", summary.min),
        ("max", summary.max),
        ("norm", Some(summary.norm)),
    ];
    for (name, figure) in figures {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        match figure {
            Some(figure) => print_json(&Value::F64(figure), &mut out),
            None => out.extend_from_slice(b"null"),
        }
    }
    let lines: Vec<String> = cells.iter().map(|line| line.join(",")).collect();
    out.extend_from_slice(format!(",\"cells\":[[{}]]}}", lines.join("],[")).as_bytes());
    out
}
