//! Plain JavaScript objects in and out, field by field. No text in between: a parser and a printer of
//! JSON, floats above all, would be a part of what a phone has to load.

use gemmesh_kernel::Placement;
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::matrix::{Dtype, ElementType};
use js_sys::{Array, Reflect};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::session::Start;
use crate::task::TaskSpec;

/// Any serialisable value as a plain JavaScript value. For small values; bulk bytes go beside it.
pub(crate) fn plain(value: &impl Serialize) -> JsValue {
    let plain = value.serialize(&serde_wasm_bindgen::Serializer::json_compatible());
    plain.expect("plain data serialises")
}

/// What a page says of itself.
///
/// # Errors
/// A field is missing or of another type.
pub(crate) fn start(object: &JsValue) -> Result<Start, JsError> {
    Ok(Start {
        node: text(object, "node")?,
        others: texts(object, "others"),
        mesh: text(object, "mesh")?,
        time: number(object, "time")? as u64,
        name: text(object, "name")?,
        slots: number(object, "slots")? as u32,
        mflops: number(object, "mflops")?,
        fuses: field(object, "fuses").is_truthy(),
        user_agent: text(object, "user_agent")?,
        cache_bytes: number(object, "cache_bytes")? as u64,
        paused: field(object, "paused").is_truthy(),
    })
}

/// A slab's `spec`.
///
/// # Errors
/// A field is missing or of another type.
pub(crate) fn task_spec(object: &JsValue) -> Result<TaskSpec, JsError> {
    let class = match text(object, "class")?.as_str() {
        "any" => KernelClass::Any,
        "fused" => KernelClass::Fused,
        "separate" => KernelClass::Separate,
        "exact" => KernelClass::Exact,
        _ => return Err(wrong("class")),
    };
    Ok(TaskSpec {
        class,
        rows: number(object, "rows")? as u64,
        cols: number(object, "cols")? as u64,
        inner: number(object, "inner")? as u64,
        a: element(&field(object, "a"))?,
        a_bits: number(object, "a_bits")? as u32,
        b: element(&field(object, "b"))?,
        b_bits: number(object, "b_bits")? as u32,
        c: element(&field(object, "c"))?,
        each: number(object, "each")? as u64,
        skip: number(object, "skip")? as u64,
    })
}

fn element(object: &JsValue) -> Result<ElementType, JsError> {
    let dtype = match text(object, "dtype")?.as_str() {
        "f64" => Dtype::F64,
        "f32" => Dtype::F32,
        "int" => Dtype::Int,
        "residues" => Dtype::Residues,
        _ => return Err(wrong("dtype")),
    };
    let limbs = number(object, "limbs")? as u16;
    Ok(ElementType { dtype, limbs })
}

/// A slab's `part` in the kernel's words.
///
/// # Errors
/// A field is missing or of another type.
pub(crate) fn placement(object: &JsValue) -> Result<Placement, JsError> {
    let size = |name: &str| number(object, name).map(|number| number as usize);
    Ok(Placement {
        src_row_len: size("block_cols")?,
        src_row: size("src_row")?,
        src_col: size("src_col")?,
        rows: size("rows")?,
        cols: size("cols")?,
        dst_row: size("dst_row")?,
        dst_col: size("dst_col")?,
    })
}

fn field(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

fn text(object: &JsValue, name: &str) -> Result<String, JsError> {
    field(object, name).as_string().ok_or_else(|| wrong(name))
}

/// The texts in a list; none when there is no list.
fn texts(object: &JsValue, name: &str) -> Vec<String> {
    let list = field(object, name);
    let list = list.dyn_ref::<Array>().into_iter();
    list.flat_map(Array::iter)
        .filter_map(|text| text.as_string())
        .collect()
}

fn number(object: &JsValue, name: &str) -> Result<f64, JsError> {
    field(object, name).as_f64().ok_or_else(|| wrong(name))
}

fn wrong(name: &str) -> JsError {
    JsError::new(&["a message of the page without ", name].concat())
}
