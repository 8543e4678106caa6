//! Nested arrays of JSON. A number beyond 2^53 that must be exact is written as a string, as are
//! `NaN`, `Infinity` and `-Infinity`: JSON's own numbers are those of f64 for most readers.

use std::fs::File;
use std::path::Path;

use gemmesh_protocol::matrix::{Dtype, ElementType};
use num_bigint::BigInt;
use serde_json::Value as Json;

use super::bands::RowWriter;
use super::number::{self, NUMBER_BYTES_MAX, NumberError, Value, Width};
use super::{ReadOptions, Sink, check_shape, io_error, number_error, unprocessable};
use crate::error::ApiError;

/// Memory that parsed JSON takes per byte of text, at worst: `[1],` becomes a vector of four
/// values.
const MEMORY_PER_BYTE: u64 = 48;

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
    let dtype = options.dtype.or(own).unwrap_or(Dtype::F64);
    let rows = data
        .as_array()
        .ok_or_else(|| not_nested("it is no array"))?;
    let mut cols = 0;
    let mut width = Width::default();
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
            let value = element(item, dtype, i, j)?;
            if dtype == Dtype::Int {
                width.see(&value);
            }
        }
    }
    let limbs = width.limbs().expect("each number is bounded");
    let element_type = ElementType { dtype, limbs };
    let (count, cols) = (rows.len() as u64, cols as u64);
    check_shape(count, cols, element_type)?;
    let mut out = RowWriter::new(sink, count, cols, element_type)?;
    for (i, row) in rows.iter().enumerate() {
        for (j, item) in row.as_array().expect("checked above").iter().enumerate() {
            out.push(&element(item, dtype, i, j)?)?;
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

/// The element that `item` says.
fn element(item: &Json, dtype: Dtype, row: usize, col: usize) -> Result<Value, ApiError> {
    let place = || format!("element [{row}, {col}]");
    let (value, text) = match item {
        Json::String(text) if text.len() > NUMBER_BYTES_MAX => {
            return Err(unprocessable(
                "number_too_long",
                format!(
                    "{}: it has more than {NUMBER_BYTES_MAX} characters",
                    place()
                ),
                "use dtype f64, or scale the elements",
            ));
        }
        Json::String(text) => (number::parse(text.as_bytes(), dtype), text.clone()),
        Json::Number(number) => (convert(number, dtype), number.to_string()),
        other => (Err(NumberError::NotANumber), other.to_string()),
    };
    value.map_err(|error| match error {
        NumberError::NotIntegral if inexact(item) => unprocessable(
            "not_integral",
            format!(
                "{}: {text} was read as a float and may not be exact",
                place()
            ),
            "write integers beyond 64 bits as strings: \"123456789012345678901\"",
        ),
        error => number_error(error, &place(), text.as_bytes()),
    })
}

/// A number in JSON that is a float beyond what f64 holds exactly: its digits are lost.
fn inexact(item: &Json) -> bool {
    item.is_f64()
        && item
            .as_f64()
            .is_some_and(|value| value.abs() > 9_007_199_254_740_992.0)
}

fn convert(number: &serde_json::Number, dtype: Dtype) -> Result<Value, NumberError> {
    let value = match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Value::Int(value),
        (None, Some(value)) => Value::Big(BigInt::from(value)),
        (None, None) => {
            let value = number
                .as_f64()
                .expect("a number of JSON is one of the three");
            if dtype == Dtype::Int && inexact(&Json::Number(number.clone())) {
                return Err(NumberError::NotIntegral);
            }
            Value::F64(value)
        }
    };
    number::convert(value, dtype)
}
