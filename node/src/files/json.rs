//! Nested arrays of JSON. Numbers are read digit by digit, so integers of any size are exact; they
//! may be strings too, as `NaN`, `Infinity` and `-Infinity` must be. Written are integers beyond
//! 2^53 as strings: JSON's own numbers are those of f64 for most readers.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use gemmesh_protocol::matrix::{Dtype, ElementType};
use serde_json::Value as Json;

use super::bands::RowWriter;
use super::number::{self, Digits, NUMBER_BYTES_MAX, NumberError, Value, Width};
use super::{ReadOptions, Sink, check_shape, io_error, number_error, unprocessable};
use crate::error::ApiError;

/// Memory that parsed JSON takes per byte of text, at worst: `[1],` becomes a vector of four
/// values and the text of a number.
const MEMORY_PER_BYTE: u64 = 56;
/// What one value takes, parsed: itself, the text of a number, and what vectors hold back.
const VALUE_BYTES: u64 = 112;

/// Refuses text whose values would take more than `memory` bytes; each takes some, whatever it says.
///
/// # Errors
/// `too_large`.
pub fn check_memory(text: &[u8], memory: u64) -> Result<(), ApiError> {
    let begins = |byte: &&u8| matches!(byte, b',' | b'[' | b'{' | b':');
    let values = text.iter().filter(begins).count() as u64 + 1;
    let needed = values * VALUE_BYTES + 2 * text.len() as u64;
    if needed > memory {
        return Err(ApiError::new(
            413,
            "too_large",
            format!("reading this JSON takes {needed} bytes of memory, of which {memory} are free"),
            "send the matrices as .npy, .csv or .mtx with PUT /api/matrices, or give the node more with --memory",
        ));
    }
    Ok(())
}

/// Reads a file of JSON into `sink`. It is parsed in memory, of which it may take `memory` bytes.
///
/// # Errors
/// `bad_json`, `too_large`, and those of [`read`].
pub fn read_file(
    path: &Path,
    options: ReadOptions,
    memory: u64,
    sink: &mut dyn Sink,
) -> Result<(), ApiError> {
    let reading = |error| io_error("reading the .json file", &error);
    let file = File::open(path).map_err(reading)?;
    let needed = file
        .metadata()
        .map_err(reading)?
        .len()
        .saturating_mul(MEMORY_PER_BYTE);
    if needed > memory {
        return Err(ApiError::new(
            413,
            "too_large",
            format!("reading this JSON takes {needed} bytes of memory, of which {memory} are free"),
            "write the matrix as .npy, .csv or .mtx, or give the node more with --memory",
        ));
    }
    let value: Json = serde_json::from_reader(std::io::BufReader::new(file)).map_err(|error| {
        if error.is_io() {
            return io_error("reading the .json file", &error.into());
        }
        ApiError::new(
            400,
            "bad_json",
            format!("this is not JSON: {error}"),
            "write the matrix as nested arrays: [[1, 2], [3, 4]]",
        )
    })?;
    read(&value, options, sink)
}

/// Reads `[[…], …]`, or an object with such `data` and perhaps a `dtype`, into `sink`; elements
/// are f64 unless that or `options` say otherwise.
///
/// # Errors
/// `ragged_json`, `not_a_number`, `not_integral`, `not_finite`, `integer_too_large`,
/// `number_too_long`, `empty_matrix`, `too_large`, and the sink's.
pub fn read(value: &Json, options: ReadOptions, sink: &mut dyn Sink) -> Result<(), ApiError> {
    let (data, own) = match value {
        Json::Object(object) => {
            let own = match object
                .get("dtype")
                .map(|dtype| dtype.as_str().unwrap_or(""))
            {
                None => None,
                Some("f64") => Some(Dtype::F64),
                Some("f32") => Some(Dtype::F32),
                Some("int") => Some(Dtype::Int),
                Some(_) => return Err(not_nested("its dtype is none of f64, f32 and int")),
            };
            (
                object
                    .get("data")
                    .ok_or_else(|| not_nested("the object has no data"))?,
                own,
            )
        }
        value => (value, None),
    };
    let wanted = options.dtype.or(own);
    let rows = data
        .as_array()
        .ok_or_else(|| not_nested("it is no array"))?;
    let mut cols = 0;
    let mut width = Width::default();
    let mut digits = Digits::new(wanted.is_none() && options.keep_digits);
    for (i, row) in rows.iter().enumerate() {
        let row = row
            .as_array()
            .ok_or_else(|| not_nested(format!("row {i} is no array")))?;
        if i == 0 {
            cols = row.len();
        } else if row.len() != cols {
            return Err(unprocessable(
                "ragged_json",
                format!("row {i} has {} elements, row 0 has {cols}", row.len()),
                "every row needs the same number of elements",
            ));
        }
        for (j, item) in row.iter().enumerate() {
            let (text, value) = element(item, wanted.unwrap_or(Dtype::F64), i, j)?;
            if wanted == Some(Dtype::Int) {
                width.see(&value);
            }
            digits.see(text.as_bytes());
        }
    }
    let limbs = width.limbs().expect("each number is bounded");
    let element_type = match wanted {
        Some(dtype) => ElementType { dtype, limbs },
        None => digits.element(),
    };
    let (count, cols) = (rows.len() as u64, cols as u64);
    check_shape(count, cols, element_type)?;
    let mut out = RowWriter::new(sink, count, cols, element_type)?;
    for (i, row) in rows.iter().enumerate() {
        for (j, item) in row.as_array().expect("checked above").iter().enumerate() {
            out.push(&element(item, element_type.dtype, i, j)?.1)?;
        }
    }
    Ok(())
}

fn not_nested(what: impl std::fmt::Display) -> ApiError {
    unprocessable(
        "ragged_json",
        format!("the matrix is not given as nested arrays: {what}"),
        "write it as nested arrays: [[1, 2], [3, 4]]",
    )
}

/// The text and the element that `item` says.
fn element(
    item: &Json,
    dtype: Dtype,
    row: usize,
    col: usize,
) -> Result<(Cow<'_, str>, Value), ApiError> {
    let place = || format!("element [{row}, {col}]");
    let (text, number): (Cow<'_, str>, bool) = match item {
        Json::String(text) => (text.into(), false),
        Json::Number(number) => (number.as_str().into(), true),
        other => {
            let text = other.to_string();
            let error = NumberError::NotANumber;
            return Err(number_error(error, &place(), text.as_bytes()));
        }
    };
    if text.len() > NUMBER_BYTES_MAX {
        return Err(unprocessable(
            "number_too_long",
            format!(
                "{}: it has more than {NUMBER_BYTES_MAX} characters",
                place()
            ),
            "use dtype f64, or scale the elements",
        ));
    }
    match number::parse(text.as_bytes(), dtype) {
        // JSON has no infinities; digits that mean one are a mistake.
        Ok(Value::F64(value)) if number && value.is_infinite() => Err(unprocessable(
            "not_finite",
            format!("{}: {text} is beyond the largest f64", place()),
            "write \"Infinity\" if that is meant, or scale the elements",
        )),
        Ok(value) => Ok((text, value)),
        Err(error) => Err(number_error(error, &place(), text.as_bytes())),
    }
}
