//! One element: read from text, converted between element types, encoded little-endian.

use std::borrow::Cow;

use gemmesh_protocol::matrix::{Dtype, ElementType, LIMBS_MAX};
use num_bigint::{BigInt, Sign};

/// The most decimal digits of an integer within [`LIMBS_MAX`] limbs: ⌈65,536·log₁₀2⌉.
pub const DIGITS_MAX: usize = 19_729;
/// The most bytes of one number in a text file: sign, digits, point, exponent, and room.
pub const NUMBER_BYTES_MAX: usize = DIGITS_MAX + 271;

/// An element of any type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of dtype f64.
    F64(f64),
    /// Of dtype f32.
    F32(f32),
    /// Of dtype int, the usual case.
    Int(i64),
    /// Of dtype int, beyond 64 bits (or at least computed so).
    Big(BigInt),
}

/// Why a number can not be an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberError {
    /// The text is no number.
    NotANumber,
    /// An integer is wanted; this has a fraction.
    NotIntegral,
    /// An integer is wanted; this is NaN or infinite.
    NotFinite,
    /// Beyond [`LIMBS_MAX`] limbs.
    TooLarge,
}

/// Finds out whether text that names no element type must be read as integers to keep its digits.
#[derive(Debug)]
pub struct Digits {
    /// All elements so far are a sign and digits; the form that they need as integers.
    whole: Option<Width>,
    /// f64 does not hold one of them.
    lost: bool,
}

impl Digits {
    /// Looks at the elements when `wanted`, else says that the text is f64.
    pub fn new(wanted: bool) -> Self {
        Self {
            whole: wanted.then(Width::default),
            lost: false,
        }
    }

    /// Takes the element `text` into account. Cost: nothing once an element was no integer.
    pub fn see(&mut self, text: &[u8]) {
        let Some(width) = &mut self.whole else {
            return;
        };
        let text = text.trim_ascii();
        let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+"));
        let plain = digits.unwrap_or(text).iter().all(u8::is_ascii_digit);
        let Some(value) = parse(text, Dtype::Int).ok().filter(|_| plain) else {
            self.whole = None;
            return;
        };
        width.see(&value);
        let float = convert(value.clone(), Dtype::F64);
        let back = float.and_then(|float| convert(float, Dtype::Int));
        self.lost |= back.map(small) != Ok(value);
    }

    /// The form of the elements.
    pub fn element(&self) -> ElementType {
        let limbs = self.whole.filter(|_| self.lost).and_then(Width::limbs);
        match limbs {
            Some(limbs) => ElementType {
                dtype: Dtype::Int,
                limbs,
            },
            None => ElementType {
                dtype: Dtype::F64,
                limbs: 1,
            },
        }
    }
}

/// Tracks which form integers need.
#[derive(Debug, Clone, Copy, Default)]
pub struct Width {
    /// Bits of two's complement that the widest needs, sign included.
    signed: u64,
}

impl Width {
    /// Takes `value` (an integer) into account.
    pub fn see(&mut self, value: &Value) {
        let signed = match value {
            Value::Int(value) => {
                let folded = if *value < 0 { !*value } else { *value };
                65 - u64::from(folded.leading_zeros())
            }
            Value::Big(value) if value.sign() == Sign::Minus => (-value - 1u32).bits() + 1,
            Value::Big(value) => value.bits() + 1,
            Value::F64(_) | Value::F32(_) => unreachable!("widths are of integers"),
        };
        self.signed = self.signed.max(signed);
    }

    /// The smallest number of 64-bit limbs; `None` beyond [`LIMBS_MAX`].
    pub fn limbs(self) -> Option<u16> {
        let limbs = self.signed.div_ceil(64).max(1);
        u16::try_from(limbs)
            .ok()
            .filter(|&limbs| limbs <= LIMBS_MAX)
    }
}

/// Whether `value` can be encoded as `element`.
pub fn fits(value: &Value, element: ElementType) -> bool {
    match value {
        Value::F64(_) | Value::F32(_) => true,
        integer => {
            let mut width = Width::default();
            width.see(integer);
            width.limbs().is_some_and(|needed| needed <= element.limbs)
        }
    }
}

/// Appends `value`, which must be of the form `element`, little-endian.
///
/// # Panics
/// When the type differs or an integer does not fit: the width was to be found first.
pub fn encode(value: &Value, element: ElementType, out: &mut Vec<u8>) {
    match (value, element.dtype) {
        (Value::F64(value), Dtype::F64) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::F32(value), Dtype::F32) => out.extend_from_slice(&value.to_le_bytes()),
        (Value::Int(value), Dtype::Int) => {
            out.extend_from_slice(&value.to_le_bytes());
            let fill = if *value < 0 { 0xff } else { 0 };
            out.resize(out.len() + 8 * (usize::from(element.limbs) - 1), fill);
        }
        (Value::Big(value), Dtype::Int) => {
            let bytes = value.to_signed_bytes_le();
            let width = 8 * usize::from(element.limbs);
            assert!(
                bytes.len() <= width,
                "the width of integers was found before"
            );
            let fill = if value.sign() == Sign::Minus { 0xff } else { 0 };
            let end = out.len() + width;
            out.extend_from_slice(&bytes);
            out.resize(end, fill);
        }
        _ => unreachable!("{value:?} as {element:?}"),
    }
}

/// The element that `bytes` are.
///
/// # Panics
/// When there are not as many bytes as an element has.
pub fn decode(bytes: &[u8], element: ElementType) -> Value {
    assert_eq!(bytes.len() as u64, element.bytes(), "one element");
    let word = || u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    match element.dtype {
        Dtype::F64 => Value::F64(f64::from_bits(word())),
        Dtype::F32 => Value::F32(f32::from_le_bytes(bytes.try_into().expect("four bytes"))),
        // For whoever looks at shares: the first residue.
        Dtype::Residues => Value::Int(i64::from(i16::from_le_bytes([bytes[0], bytes[1]]))),
        Dtype::Int => {
            let low = word() as i64;
            let fill = if low < 0 { 0xff } else { 0 };
            if bytes[8..].iter().all(|&byte| byte == fill) {
                Value::Int(low)
            } else {
                Value::Big(BigInt::from_signed_bytes_le(bytes))
            }
        }
    }
}

/// Bit length of the largest magnitude among integers of `limbs` limbs; 0 when all are zero.
/// Cost: one pass, no allocation.
pub fn magnitude_bits(bytes: &[u8], limbs: u16) -> u32 {
    let width = 8 * usize::from(limbs);
    if limbs == 1 {
        let widest = bytes
            .chunks_exact(8)
            .map(|word| i64::from_le_bytes(word.try_into().expect("eight bytes")).unsigned_abs())
            .fold(0, |all, magnitude| all | magnitude);
        return 64 - widest.leading_zeros();
    }
    bytes
        .chunks_exact(width)
        .map(element_bits)
        .max()
        .unwrap_or(0)
}

fn element_bits(element: &[u8]) -> u32 {
    let negative = element.last().is_some_and(|&byte| byte >= 0x80);
    let fill = if negative { u64::MAX } else { 0 };
    let limb =
        |i: usize| u64::from_le_bytes(element[8 * i..8 * i + 8].try_into().expect("eight bytes"));
    let Some(top) = (0..element.len() / 8).rev().find(|&i| limb(i) != fill) else {
        return u32::from(negative);
    };
    let folded = limb(top) ^ fill;
    let bits = 64 * top as u32 + 64 - folded.leading_zeros();
    // |x| = !x + 1 for negative x: one bit longer when x is minus a power of two.
    let power = negative && folded & folded.wrapping_add(1) == 0 && (0..top).all(|i| limb(i) == 0);
    bits + u32::from(power)
}

/// `value` as an element of type `to`. Integers become the nearest float, ties to even; f64
/// becomes the nearest f32; floats become integers only when integral and finite.
///
/// # Errors
/// See [`NumberError`].
pub fn convert(value: Value, to: Dtype) -> Result<Value, NumberError> {
    Ok(match (value, to) {
        (value @ Value::F64(_), Dtype::F64)
        | (value @ Value::F32(_), Dtype::F32)
        | (value @ (Value::Int(_) | Value::Big(_)), Dtype::Int) => value,
        (_, Dtype::Residues) => return Err(NumberError::NotANumber),
        (Value::F32(value), Dtype::F64) => Value::F64(f64::from(value)),
        (Value::F64(value), Dtype::F32) => Value::F32(value as f32),
        (Value::Int(value), Dtype::F64) => Value::F64(value as f64),
        (Value::Int(value), Dtype::F32) => Value::F32(value as f32),
        // Decimal text is the one correctly rounding way from big integers to floats.
        (Value::Big(value), Dtype::F64) => {
            Value::F64(value.to_string().parse().expect("digits are a float"))
        }
        (Value::Big(value), Dtype::F32) => {
            Value::F32(value.to_string().parse().expect("digits are a float"))
        }
        (Value::F64(value), Dtype::Int) => integral(value)?,
        (Value::F32(value), Dtype::Int) => integral(f64::from(value))?,
    })
}

fn integral(value: f64) -> Result<Value, NumberError> {
    if !value.is_finite() {
        return Err(NumberError::NotFinite);
    }
    if value.fract() != 0.0 {
        return Err(NumberError::NotIntegral);
    }
    // 2^63 as f64; below it the cast is exact.
    if value.abs() < 9_223_372_036_854_775_808.0 {
        return Ok(Value::Int(value as i64));
    }
    let exponent = (value.to_bits() >> 52 & 0x7ff) as u32;
    let fraction = value.to_bits() & ((1 << 52) - 1) | 1 << 52;
    let magnitude = BigInt::from(fraction) << (exponent - 1_075);
    Ok(Value::Big(if value < 0.0 { -magnitude } else { magnitude }))
}

/// The element of type `dtype` that `text` says, blanks around it ignored. Floats are correctly
/// rounded (f32 directly, not by way of f64) and may be `nan`, `inf` or `infinity`; integers may
/// have any number of digits up to [`DIGITS_MAX`], and a point or an exponent when they are
/// integral all the same (`3.0`, `1e3`).
///
/// # Errors
/// See [`NumberError`].
pub fn parse(text: &[u8], dtype: Dtype) -> Result<Value, NumberError> {
    let text = text.trim_ascii();
    let text = std::str::from_utf8(text).map_err(|_| NumberError::NotANumber)?;
    match dtype {
        Dtype::F64 => text
            .parse()
            .map(Value::F64)
            .map_err(|_| NumberError::NotANumber),
        Dtype::F32 => text
            .parse()
            .map(Value::F32)
            .map_err(|_| NumberError::NotANumber),
        Dtype::Residues => Err(NumberError::NotANumber),
        Dtype::Int => match text.parse::<i64>() {
            Ok(value) => Ok(Value::Int(value)),
            Err(_) => parse_integer(text),
        },
    }
}

/// Decimal text with any number of digits, an optional point and an optional exponent, exactly.
fn parse_integer(text: &str) -> Result<Value, NumberError> {
    if text
        .parse::<f64>()
        .map_err(|_| NumberError::NotANumber)?
        .is_nan()
    {
        return Err(NumberError::NotFinite);
    }
    let (negative, unsigned) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if unsigned.starts_with(['i', 'I']) {
        return Err(NumberError::NotFinite);
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits: Cow<'_, str> = match fraction {
        "" => whole.into(),
        _ => [whole, fraction].concat().into(),
    };
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(Value::Int(0));
    }
    // A float with such an exponent is legal text; as an integer it is out of bounds, or a
    // fraction, long before.
    let exponent: i64 = match exponent {
        None => 0,
        Some(text) => text.parse().unwrap_or(if text.starts_with('-') {
            i64::MIN / 2
        } else {
            i64::MAX / 2
        }),
    };
    let shift = exponent.saturating_sub(fraction.len() as i64);
    let digits: Cow<'_, str> = if shift >= 0 {
        if shift > DIGITS_MAX as i64 || digits.len() + shift as usize > DIGITS_MAX {
            return Err(NumberError::TooLarge);
        }
        match shift {
            0 => digits.into(),
            _ => [digits, &"0".repeat(shift as usize)].concat().into(),
        }
    } else {
        let zeros = (digits.len() - digits.trim_end_matches('0').len()) as i64;
        if zeros < shift.saturating_neg() {
            return Err(NumberError::NotIntegral);
        }
        digits[..digits.len() - shift.unsigned_abs() as usize].into()
    };
    if digits.len() > DIGITS_MAX {
        return Err(NumberError::TooLarge);
    }
    let magnitude = BigInt::parse_bytes(digits.as_bytes(), 10).ok_or(NumberError::NotANumber)?;
    let value = if negative { -magnitude } else { magnitude };
    let mut width = Width::default();
    let value = Value::Big(value);
    width.see(&value);
    match width.limbs() {
        None => Err(NumberError::TooLarge),
        Some(1) => Ok(small(value)),
        Some(_) => Ok(value),
    }
}

fn small(value: Value) -> Value {
    match value {
        Value::Big(big) => match i64::try_from(&big) {
            Ok(small) => Value::Int(small),
            Err(_) => Value::Big(big),
        },
        value => value,
    }
}

/// Appends `value` with the shortest digits that read back the same: `58`, `0.1`, `1e300`, `nan`,
/// `inf`, `-inf`.
pub fn print(value: &Value, out: &mut Vec<u8>) {
    use std::io::Write as _;
    match value {
        Value::F64(value) => print_float(*value, value.is_nan(), out),
        // The exponents of f32 lie within those of f64, so one range of plain digits serves both.
        Value::F32(value) => print_float(*value, value.is_nan(), out),
        Value::Int(value) => write!(out, "{value}").expect("memory"),
        Value::Big(value) => write!(out, "{value}").expect("memory"),
    }
}

fn print_float<T>(value: T, nan: bool, out: &mut Vec<u8>)
where
    T: Copy + Into<f64> + std::fmt::Display + std::fmt::LowerExp,
{
    use std::io::Write as _;
    let magnitude = value.into().abs();
    if nan {
        out.extend_from_slice(b"nan");
    } else if magnitude == 0.0 || !magnitude.is_finite() || (1e-5..1e16).contains(&magnitude) {
        write!(out, "{value}").expect("memory");
    } else {
        write!(out, "{value:e}").expect("memory");
    }
}
