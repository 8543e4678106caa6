//! What the body of `POST /api/jobs` says.

use gemmesh_protocol::coded::COLLUDERS_MAX;
use gemmesh_protocol::id::MatrixId;
use gemmesh_protocol::matrix::Dtype;
use gemmesh_protocol::status::Mode;
use serde_json::{Map, Value};

use super::call::{self, clip};
use super::matrices;
use crate::app::Guarded;
use crate::error::ApiError;

/// The most characters of a job's name.
const NAME_CHARS_MAX: usize = 200;
/// What the design has and this version has not.
const LATER: [&str; 4] = ["masks", "receipts", "private", "index"];

/// What a submission says.
#[derive(Debug, PartialEq)]
pub struct Submission {
    /// What is to be multiplied.
    pub what: What,
    /// The element type; by default that of the factors.
    pub dtype: Option<Dtype>,
    /// Set when nobody but this node may learn it.
    pub guarded: Option<Guarded>,
    /// The same bits whichever devices compute.
    pub reproducible: bool,
    /// Only say what would become of it.
    pub explain: bool,
    /// A name for people.
    pub name: String,
}

/// What is to be multiplied.
#[derive(Debug, PartialEq)]
pub enum What {
    /// Two matrices.
    One(Box<[Factor; 2]>),
    /// Several products.
    Batch(Vec<[Factor; 2]>),
    /// So many products of two stacks.
    Stacks {
        /// The stack of left factors.
        a: MatrixId,
        /// The stack of right factors.
        b: MatrixId,
        /// How many.
        products: u32,
    },
}

/// A factor of the product.
#[derive(Debug, PartialEq)]
pub enum Factor {
    /// By its id.
    Stored(MatrixId),
    /// As nested arrays.
    Inline(Value),
}

impl Submission {
    /// Reads the body of `POST /api/jobs`.
    ///
    /// # Errors
    /// 400 for what is no JSON object, 422 naming the first field that is wrong.
    pub fn parse(body: &[u8]) -> Result<Submission, ApiError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            ApiError::new(
                400,
                "bad_json",
                format!("the body is no JSON: {error}"),
                "send {\"a\": ID, \"b\": ID}",
            )
        })?;
        let Value::Object(mut fields) = value else {
            return Err(ApiError::new(
                400,
                "bad_json",
                "the body is JSON, but no object",
                "send {\"a\": ID, \"b\": ID}",
            ));
        };
        let batch = fields.remove("batch").filter(|batch| !batch.is_null());
        let factors = match batch {
            None => [factor(&mut fields, "a"), factor(&mut fields, "b")]
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
                .map(|factors| What::One(Box::new(pair(factors)))),
            Some(_) if fields.contains_key("a") || fields.contains_key("b") => {
                return Err(ApiError::new(
                    422,
                    "batch_and_operands",
                    "the job has a batch and operands beside it",
                    "give either batch, or a and b",
                ));
            }
            Some(batch) => products(batch),
        };
        let dtype = match fields.remove("dtype") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(call::dtype(&name)?),
            Some(_) => return Err(wrong_type("dtype", "\"f64\", \"f32\" or \"int\"")),
        };
        let guarded = guarded(&mut fields)?;
        let reproducible = flag(&mut fields, "reproducible")?;
        let explain = flag(&mut fields, "explain")?;
        let name = match fields.remove("name") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(name)) => job_name(&name)?,
            Some(_) => return Err(wrong_type("name", "text")),
        };
        // What is null is not asked for.
        fields.retain(|field, value| !(value.is_null() && LATER.contains(&field.as_str())));
        if let Some(field) = fields.keys().find(|field| LATER.contains(&field.as_str())) {
            return Err(matrices::not_offered(field));
        }
        if let Some(field) = fields.keys().next() {
            return Err(ApiError::new(
                422,
                "unknown_field",
                format!("a job has no field {:?}", clip(field)),
                "the fields are a and b, or batch, and dtype, mode, colluders, stragglers, reproducible, explain and name",
            ));
        }
        Ok(Submission {
            what: factors?,
            dtype,
            guarded,
            reproducible,
            explain,
            name,
        })
    }
}

/// `mode`, `colluders` and `stragglers`.
fn guarded(fields: &mut Map<String, Value>) -> Result<Option<Guarded>, ApiError> {
    let mode = match fields.remove("mode") {
        None | Some(Value::Null) => Mode::Plain,
        Some(Value::String(mode)) => match mode.as_str() {
            "plain" => Mode::Plain,
            "private" => Mode::Private,
            "masked" => Mode::Masked,
            other => {
                return Err(ApiError::new(
                    422,
                    "unknown_mode",
                    format!("there is no mode {:?}", clip(other)),
                    "use plain, masked or private",
                ));
            }
        },
        Some(_) => return Err(wrong_type("mode", "\"plain\", \"masked\" or \"private\"")),
    };
    let colluders = count(fields, "colluders")?;
    let spares = count(fields, "stragglers")?;
    let needless = |field: &str| {
        ApiError::new(
            422,
            "wrong_mode",
            format!("{field} is only for mode private"),
            format!("leave {field} out, or say mode private"),
        )
    };
    match mode {
        Mode::Private => {}
        _ if colluders.is_some() => return Err(needless("colluders")),
        _ if spares.is_some() => return Err(needless("stragglers")),
        _ => {}
    }
    let colluders = colluders.unwrap_or(1);
    if !(1..=COLLUDERS_MAX).contains(&colluders) {
        return Err(ApiError::new(
            422,
            "wrong_type",
            format!("colluders is {colluders}"),
            format!("use a number from 1 to {COLLUDERS_MAX}"),
        ));
    }
    Ok((mode != Mode::Plain).then(|| Guarded {
        mode,
        colluders,
        spares: spares.unwrap_or(0),
    }))
}

fn count(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<u32>, ApiError> {
    let number = match fields.remove(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_u64().filter(|count| *count <= 256),
    };
    let count = number.ok_or_else(|| wrong_type(name, "a number from 0 to 256"))?;
    Ok(Some(count as u32))
}

/// The value of `batch`.
fn products(batch: Value) -> Result<What, ApiError> {
    match batch {
        Value::Array(list) => {
            let read = |(index, value)| {
                product(value).map_err(|mut error: ApiError| {
                    error.message = format!("batch[{index}]: {}", error.message);
                    error
                })
            };
            let list = (0..)
                .zip(list)
                .map(|(index, value): (usize, Value)| read((index, value)));
            list.collect::<Result<_, _>>().map(What::Batch)
        }
        Value::Object(mut stacks) => {
            let products = match stacks.remove("products") {
                Some(count) => count
                    .as_u64()
                    .and_then(|count| u32::try_from(count).ok())
                    .ok_or_else(|| wrong_type("batch.products", "the number of products"))?,
                None => {
                    return Err(ApiError::new(
                        422,
                        "missing_products",
                        "the batch of two stacks does not say how many products it has",
                        "give batch.products: the `stack` that PUT /api/matrices answered",
                    ));
                }
            };
            let factors = [factor(&mut stacks, "a")?, factor(&mut stacks, "b")?];
            check_fields(&stacks)?;
            match factors {
                [Factor::Stored(a), Factor::Stored(b)] => Ok(What::Stacks { a, b, products }),
                _ => Err(wrong_type(
                    "batch.a or batch.b",
                    "an id of a stack of matrices",
                )),
            }
        }
        _ => Err(wrong_type("batch", "a list of {a, b}, or {a, b, products}")),
    }
}

fn product(value: Value) -> Result<[Factor; 2], ApiError> {
    let Value::Object(mut fields) = value else {
        return Err(wrong_type("a product", "an object {a, b}"));
    };
    let factors = [factor(&mut fields, "a")?, factor(&mut fields, "b")?];
    check_fields(&fields)?;
    Ok(factors)
}

/// Whether nothing is left of the fields of a product.
fn check_fields(fields: &Map<String, Value>) -> Result<(), ApiError> {
    match fields.keys().next() {
        None => Ok(()),
        Some(field) => Err(ApiError::new(
            422,
            "unknown_field",
            format!("a product of a batch has no field {:?}", clip(field)),
            "dtype, reproducible and name are of the whole batch",
        )),
    }
}

fn pair(factors: Vec<Factor>) -> [Factor; 2] {
    factors.try_into().expect("there were two")
}

fn flag(fields: &mut Map<String, Value>, name: &'static str) -> Result<bool, ApiError> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(value),
        Some(_) => Err(wrong_type(name, "true or false")),
    }
}

fn factor(fields: &mut Map<String, Value>, name: &str) -> Result<Factor, ApiError> {
    match fields.remove(name) {
        Some(Value::String(id)) => id.parse().map(Factor::Stored).map_err(|error| {
            ApiError::new(
                422,
                "bad_operand",
                format!(
                    "{name} is {:?}, which is no id of a matrix: {error}",
                    clip(&id)
                ),
                "use the id that PUT /api/matrices answered, or nested arrays of numbers",
            )
        }),
        Some(value @ (Value::Array(_) | Value::Object(_))) => Ok(Factor::Inline(value)),
        Some(_) => Err(wrong_type(
            name,
            "an id of a matrix or nested arrays of numbers",
        )),
        None => Err(ApiError::new(
            422,
            "missing_operand",
            format!("the job has no {name}"),
            "give both a and b: ids of matrices or nested arrays of numbers",
        )),
    }
}

/// A name without control characters.
fn job_name(name: &str) -> Result<String, ApiError> {
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(ApiError::new(
            422,
            "name_too_long",
            format!("the name has more than {NAME_CHARS_MAX} characters"),
            "use a shorter one",
        ));
    }
    Ok(name.chars().filter(|c| !c.is_control()).collect())
}

fn wrong_type(field: &str, wanted: &str) -> ApiError {
    ApiError::new(
        422,
        "wrong_type",
        format!("{field} has the wrong type"),
        format!("{field} is {wanted}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

    #[test]
    fn a_whole_submission_is_read() {
        let body = format!(
            r#"{{"a": "{ID}", "b": [[1, 2], [3, 4]], "dtype": "int", "mode": "plain",
                "reproducible": true, "name": "tab\tand \u001b[31mred", "stragglers": null}}"#
        );
        let submission = Submission::parse(body.as_bytes()).expect("it is right");
        let a = Factor::Stored(ID.parse().expect("an id"));
        let b = Factor::Inline(serde_json::json!([[1, 2], [3, 4]]));
        assert_eq!(submission.what, What::One(Box::new([a, b])));
        assert_eq!(submission.dtype, Some(Dtype::Int));
        assert!(submission.reproducible);
        assert_eq!(submission.name, "taband [31mred");
    }

    #[test]
    fn batches_are_lists_or_two_stacks() {
        let what = |body: &str| {
            Submission::parse(body.as_bytes())
                .expect("it is right")
                .what
        };
        let body =
            format!(r#"{{"batch": [{{"a": "{ID}", "b": [[1]]}}, {{"a": [[2]], "b": [[3]]}}]}}"#);
        assert!(matches!(what(&body), What::Batch(list) if list.len() == 2));
        let body =
            format!(r#"{{"batch": {{"a": "{ID}", "b": "{ID}", "products": 5}}, "name": "x"}}"#);
        assert!(matches!(what(&body), What::Stacks { products: 5, .. }));
        for (batch, code) in [
            ("7", "wrong_type"),
            ("[7]", "wrong_type"),
            (r#"[{"a": [[1]]}]"#, "missing_operand"),
            (r#"[{"a": [[1]], "b": [[1]], "c": 1}]"#, "unknown_field"),
            (r#"{"a": [[1]], "b": [[1]]}"#, "missing_products"),
            (r#"{"a": [[1]], "b": [[1]], "products": 2}"#, "wrong_type"),
            (r#"{"a": [[1]], "b": [[1]], "products": -2}"#, "wrong_type"),
        ] {
            check(&format!(r#"{{"batch": {batch}}}"#), 422, code);
        }
        let wrong = Submission::parse(br#"{"batch": [{"a": [[1]], "b": [[1]]}, {"b": [[1]]}]}"#);
        let error = wrong.expect_err("it has no a");
        assert!(error.message.starts_with("batch[1]: "), "{}", error.message);
    }

    #[test]
    fn what_is_wrong_with_a_submission_is_named() {
        check("", 400, "bad_json");
        check("{", 400, "bad_json");
        check("[1, 2]", 400, "bad_json");
        check("\"text\"", 400, "bad_json");
        check(&"[".repeat(100_000), 400, "bad_json");
        check("{}", 422, "missing_operand");
        check(&format!(r#"{{"a": "{ID}"}}"#), 422, "missing_operand");
        check(r#"{"a": "xyz", "b": [[1]]}"#, 422, "bad_operand");
        check(r#"{"a": 5, "b": [[1]]}"#, 422, "wrong_type");
        for (field, status, code) in [
            (r#""dtype": "f16""#, 422, "unknown_dtype"),
            (r#""dtype": 64"#, 422, "wrong_type"),
            (r#""mode": "hidden""#, 422, "unknown_mode"),
            (r#""mode": "private", "colluders": 33"#, 422, "wrong_type"),
            (r#""mode": "private", "stragglers": -1"#, 422, "wrong_type"),
            (r#""mode": 1"#, 422, "wrong_type"),
            (r#""colluders": 1"#, 422, "wrong_mode"),
            (r#""mode": "masked", "stragglers": 0"#, 422, "wrong_mode"),
            (r#""batch": []"#, 422, "batch_and_operands"),
            (r#""name": ["a"]"#, 422, "wrong_type"),
            (r#""sparkle": true"#, 422, "unknown_field"),
        ] {
            check(
                &format!(r#"{{"a": [[1]], "b": [[1]], {field}}}"#),
                status,
                code,
            );
        }
        let name = "x".repeat(201);
        check(
            &format!(r#"{{"a": [[1]], "b": [[1]], "name": "{name}"}}"#),
            422,
            "name_too_long",
        );
    }

    fn check(body: &str, status: u16, code: &str) {
        let error = Submission::parse(body.as_bytes()).expect_err("it is wrong");
        assert_eq!((error.status, error.code), (status, code), "{body:.80}");
        assert!(!error.message.is_empty() && !error.hint.is_empty());
    }
}
