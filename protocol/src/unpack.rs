//! MessagePack into types that serde describes, in little code: the page's module is downloaded by
//! phones, and a reader that decodes each marker once for every type is a seventh of it.
//!
//! Reads what [`rmp_serde`] writes with field names: structs are maps, variants are a name or a map of
//! one name and its content. Lists are no structs here, and there are no extension types.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

/// Why bytes do not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// The bytes end in the middle of a value.
    #[error("it ends too early")]
    Short,
    /// Nested deeper than allowed.
    #[error("it is nested too deeply")]
    Deep,
    /// A value of another type than expected, or one that its type does not allow.
    #[error("a value is not of the expected form")]
    Value,
    /// A list or a map longer than allowed, or not read to its end.
    #[error("a list is not of the expected length")]
    Length,
    /// A variant that this version does not know.
    #[error("an unknown variant")]
    Variant,
    /// A field that has to be there.
    #[error("no field {0}")]
    Missing(&'static str),
}

// The messages hold no values: printing any of them, floats above all, takes more code than reading.
impl Error for UnpackError {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Value
    }
    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::Value
    }
    fn invalid_value(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::Value
    }
    fn invalid_length(_: usize, _: &dyn Expected) -> Self {
        Self::Length
    }
    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::Variant
    }
    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::Value
    }
    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
    fn duplicate_field(_: &'static str) -> Self {
        Self::Value
    }
}

/// One value, or the beginning of a list or a map of so many.
enum Item<'de> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'de [u8]),
    Bytes(&'de [u8]),
    List(usize),
    Map(usize),
}

/// A reader of `bytes`.
pub(crate) struct Unpacker<'de> {
    bytes: &'de [u8],
    depth: usize,
}

impl<'de> Unpacker<'de> {
    /// Of values nested at most `depth` deep.
    pub(crate) fn new(bytes: &'de [u8], depth: usize) -> Self {
        Self { bytes, depth }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'de [u8] {
        self.bytes
    }

    fn take(&mut self, len: usize) -> Result<&'de [u8], UnpackError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(UnpackError::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A big-endian number of `len` bytes, at most eight.
    fn number(&mut self, len: usize) -> Result<u64, UnpackError> {
        let bytes = self.take(len)?;
        Ok(bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn signed(&mut self, len: usize) -> Result<Item<'de>, UnpackError> {
        let unused = 64 - 8 * len as u32;
        let number = (self.number(len)? << unused) as i64 >> unused;
        Ok(Item::Signed(number))
    }

    fn length(&mut self, len: usize) -> Result<usize, UnpackError> {
        Ok(self.number(len)? as usize)
    }

    // Never inlined: once for all types is the point.
    #[inline(never)]
    fn item(&mut self) -> Result<Item<'de>, UnpackError> {
        let marker = self.take(1)?[0];
        let low = usize::from(marker);
        Ok(match marker {
            0x00..=0x7f => Item::Unsigned(marker.into()),
            0x80..=0x8f => Item::Map(low & 15),
            0x90..=0x9f => Item::List(low & 15),
            0xa0..=0xbf => Item::Text(self.take(low & 31)?),
            0xc0 => Item::Nil,
            0xc2 | 0xc3 => Item::Bool(marker == 0xc3),
            0xc4..=0xc6 => {
                let len = self.length(1 << (low - 0xc4))?;
                Item::Bytes(self.take(len)?)
            }
            0xca => Item::Float(f32::from_bits(self.number(4)? as u32).into()),
            0xcb => Item::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Item::Unsigned(self.number(1 << (low - 0xcc))?),
            0xd0..=0xd3 => self.signed(1 << (low - 0xd0))?,
            0xd9..=0xdb => {
                let len = self.length(1 << (low - 0xd9))?;
                Item::Text(self.take(len)?)
            }
            0xdc | 0xdd => Item::List(self.length(2 << (low - 0xdc))?),
            0xde | 0xdf => Item::Map(self.length(2 << (low - 0xde))?),
            0xe0..=0xff => Item::Signed((marker as i8).into()),
            // 0xc1 is never used, 0xc7..=0xc9 and 0xd4..=0xd8 are extensions.
            _ => return Err(UnpackError::Value),
        })
    }

    fn is_next(&self, test: impl Fn(u8) -> bool) -> bool {
        self.bytes.first().is_some_and(|&marker| test(marker))
    }

    fn enter(&mut self) -> Result<(), UnpackError> {
        self.depth = self.depth.checked_sub(1).ok_or(UnpackError::Deep)?;
        Ok(())
    }

    #[inline(never)]
    fn text(&mut self) -> Result<&'de str, UnpackError> {
        match self.item()? {
            Item::Text(text) => core::str::from_utf8(text).map_err(|_| UnpackError::Value),
            _ => Err(UnpackError::Value),
        }
    }

    #[inline(never)]
    fn list(&mut self) -> Result<usize, UnpackError> {
        match self.item()? {
            Item::List(len) => self.enter().map(|()| len),
            _ => Err(UnpackError::Value),
        }
    }

    #[inline(never)]
    fn map(&mut self) -> Result<usize, UnpackError> {
        match self.item()? {
            Item::Map(len) => self.enter().map(|()| len),
            _ => Err(UnpackError::Value),
        }
    }

    #[inline(never)]
    fn skip(&mut self) -> Result<(), UnpackError> {
        let count = match self.item()? {
            Item::List(len) => len,
            Item::Map(len) => len.checked_mul(2).ok_or(UnpackError::Short)?,
            _ => return Ok(()),
        };
        self.enter()?;
        for _ in 0..count {
            self.skip()?;
        }
        self.depth += 1;
        Ok(())
    }
}

/// The elements of a list, or the keys and values of a map.
struct Elements<'a, 'de> {
    unpacker: &'a mut Unpacker<'de>,
    left: usize,
}

impl Elements<'_, '_> {
    fn end(self) -> Result<(), UnpackError> {
        self.unpacker.depth += 1;
        if self.left == 0 {
            Ok(())
        } else {
            Err(UnpackError::Length)
        }
    }

    fn next(&mut self) -> bool {
        let is_there = self.left > 0;
        self.left -= usize::from(is_there);
        is_there
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = UnpackError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, UnpackError> {
        if self.next() {
            seed.deserialize(&mut *self.unpacker).map(Some)
        } else {
            Ok(None)
        }
    }

    fn size_hint(&self) -> Option<usize> {
        // An element takes a byte at least.
        Some(self.left.min(self.unpacker.bytes.len()))
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = UnpackError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, UnpackError> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, UnpackError> {
        seed.deserialize(&mut *self.unpacker)
    }
}

/// A variant: its name, then its content if it `has` one.
struct Variant<'a, 'de> {
    unpacker: &'a mut Unpacker<'de>,
    has: bool,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = UnpackError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), UnpackError> {
        let name = seed.deserialize(&mut *self.unpacker)?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = UnpackError;

    fn unit_variant(self) -> Result<(), UnpackError> {
        if self.has {
            self.unpacker.skip()
        } else {
            Ok(())
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, UnpackError> {
        if self.has {
            seed.deserialize(self.unpacker)
        } else {
            Err(UnpackError::Value)
        }
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, UnpackError> {
        if self.has {
            self.unpacker.deserialize_tuple(len, visitor)
        } else {
            Err(UnpackError::Value)
        }
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, UnpackError> {
        if self.has {
            self.unpacker.deserialize_map(visitor)
        } else {
            Err(UnpackError::Value)
        }
    }
}

/// Methods that only differ in what serde calls the number.
macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
            match self.item()? {
                Item::Unsigned(number) => visitor.visit_u64(number),
                Item::Signed(number) => visitor.visit_i64(number),
                _ => Err(UnpackError::Value),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Unpacker<'de> {
    type Error = UnpackError;

    numbers! {
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    /// For values whose type only they know: none of ours.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, UnpackError> {
        Err(UnpackError::Value)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        match self.item()? {
            Item::Bool(value) => visitor.visit_bool(value),
            _ => Err(UnpackError::Value),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        match self.item()? {
            Item::Float(number) => visitor.visit_f64(number),
            Item::Unsigned(number) => visitor.visit_f64(number as f64),
            Item::Signed(number) => visitor.visit_f64(number as f64),
            _ => Err(UnpackError::Value),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        let text = self.text()?;
        visitor.visit_str(text)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        match self.item()? {
            Item::Bytes(bytes) => visitor.visit_bytes(bytes),
            _ => Err(UnpackError::Value),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        if self.is_next(|marker| marker == 0xc0) {
            self.item()?;
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        match self.item()? {
            Item::Nil => visitor.visit_unit(),
            _ => Err(UnpackError::Value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, UnpackError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        let left = self.list()?;
        let mut elements = Elements {
            unpacker: self,
            left,
        };
        let value = visitor.visit_seq(&mut elements)?;
        elements.end().map(|()| value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, UnpackError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, UnpackError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        let left = self.map()?;
        let mut elements = Elements {
            unpacker: self,
            left,
        };
        let value = visitor.visit_map(&mut elements)?;
        elements.end().map(|()| value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, UnpackError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, UnpackError> {
        let has = self.is_next(|marker| matches!(marker, 0x80..=0x8f | 0xde | 0xdf));
        if !has {
            return visitor.visit_enum(Variant {
                unpacker: self,
                has,
            });
        }
        if self.map()? != 1 {
            return Err(UnpackError::Length);
        }
        let value = visitor.visit_enum(Variant {
            unpacker: self,
            has,
        })?;
        self.depth += 1;
        Ok(value)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UnpackError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, UnpackError> {
        self.deserialize_unit(visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::id::{BlockId, DeviceId, Epoch, JobId, LeaseId};
    use crate::job::{JobHeader, KernelClass, Operand};
    use crate::matrix::{Dtype, ElementType, Manifest};
    use crate::message::{DeviceRecord, Grant, Header, Hello, Message, Refusal, Work};
    use crate::status::{Contribution, DeviceKind, DeviceState, JobState, JobStatus, Mode};
    use crate::tile::Tiling;
    use crate::time::{Span, WallTime};

    const DEPTH: usize = 32;

    #[test]
    fn every_message_reads_back() {
        for header in headers() {
            let bytes = rmp_serde::to_vec_named(&header).expect("memory takes it");
            assert_eq!(unpack::<Header>(&bytes), Ok(header));
        }
    }

    #[test]
    fn messages_cut_short_are_refused() {
        for header in headers() {
            let bytes = rmp_serde::to_vec_named(&header).expect("memory takes it");
            for len in 0..bytes.len() {
                assert!(unpack::<Header>(&bytes[..len]).is_err(), "{len} bytes");
            }
        }
    }

    #[test]
    fn what_is_read_from_damaged_messages_is_what_another_reader_reads() {
        for header in headers() {
            let bytes = rmp_serde::to_vec_named(&header).expect("memory takes it");
            for at in 0..bytes.len() {
                for flip in [0x01, 0x02, 0x04, 0x10, 0x20, 0x40, 0x80, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= flip;
                    compare::<Header>(&bytes);
                }
            }
        }
    }

    #[test]
    fn every_width_of_a_number_is_read() {
        for bits in 0..=64u32 {
            for near in [0, 1, u64::MAX] {
                let number = 1u64.checked_shl(bits).unwrap_or(0).wrapping_add(near);
                same(number);
                same(number as i64);
                same(number as u32);
                same(number as u16);
                same(number as u8);
                same(f64::from_bits(number | 1 << 52));
            }
        }
        // As other writers shorten them.
        assert_eq!(unpack::<f64>(&[0x07]), Ok(7.0));
        assert_eq!(unpack::<f64>(&[0xca, 0x3f, 0x80, 0, 0]), Ok(1.0));
        assert_eq!(unpack::<u8>(&[0xd1, 0, 200]), Ok(200));
        assert_eq!(unpack::<u8>(&[0xcd, 1, 0]), Err(UnpackError::Value));
        assert_eq!(unpack::<u64>(&[0xff]), Err(UnpackError::Value));
    }

    #[test]
    fn every_width_of_a_length_is_read() {
        for len in [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            same("x".repeat(len));
            same(vec![1u8; len]);
            same(serde_bytes::ByteBuf::from(vec![7; len]));
        }
    }

    #[test]
    fn fields_that_this_version_does_not_know_are_skipped_up_to_the_depth() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Old {
            known: u8,
        }
        let unknown: [&[u8]; 8] = [
            &[0xc0],
            &[0xc2],
            &[0xcb, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0xa2, b'n', b'o'],
            &[0xc4, 1, 9],
            &[0x92, 1, 0x91, 2],
            &[0x81, 0xa1, b'x', 0x90],
            &[0xdc, 0, 1, 0xc0],
        ];
        let with = |value: &[u8]| [b"\x82\xa3new", value, b"\xa5known\x05"].concat();
        for value in unknown {
            assert_eq!(
                unpack::<Old>(&with(value)),
                Ok(Old { known: 5 }),
                "{value:?}"
            );
        }
        let nested = |depth| [&vec![0x91; depth][..], &[0xc0]].concat();
        assert_eq!(
            unpack::<Old>(&with(&nested(DEPTH - 1))),
            Ok(Old { known: 5 })
        );
        assert_eq!(unpack::<Old>(&with(&nested(DEPTH))), Err(UnpackError::Deep));
        assert_eq!(
            unpack::<Old>(&with(&nested(1_000_000))),
            Err(UnpackError::Deep)
        );
        assert_eq!(
            unpack::<Old>(&with(&[0xdd, 0xff, 0xff, 0xff, 0xff])),
            Err(UnpackError::Short)
        );
        assert_eq!(unpack::<Old>(b"\x80"), Err(UnpackError::Missing("known")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_as_by_another_reader(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            compare::<Header>(&bytes);
            compare::<Vec<Option<u64>>>(&bytes);
        }
    }

    fn unpack<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, UnpackError> {
        T::deserialize(&mut Unpacker::new(bytes, DEPTH))
    }

    /// What is read here is read by `rmp_serde` too, as the same. It reads more: lists as structs.
    fn compare<'de, T: Deserialize<'de> + fmt::Debug>(bytes: &'de [u8]) {
        if let Ok(read) = unpack::<T>(bytes) {
            let other = T::deserialize(&mut rmp_serde::Deserializer::from_read_ref(bytes));
            // As text, since a NaN differs from itself.
            assert_eq!(
                format!("{read:?}"),
                format!("{:?}", other.expect("it reads that"))
            );
        }
    }

    fn same<T: Serialize + for<'de> Deserialize<'de> + fmt::Debug>(value: T) {
        let bytes = rmp_serde::to_vec_named(&value).expect("memory takes it");
        let read = unpack::<T>(&bytes).expect("it was written");
        // As text, since a NaN differs from itself.
        assert_eq!(format!("{read:?}"), format!("{value:?}"));
    }

    fn headers() -> Vec<Header> {
        let (job, device) = (JobId([7; 16]), DeviceId([9; 32]));
        let epoch = Epoch { counter: 1, device };
        let record = DeviceRecord {
            device,
            incarnation: u64::MAX / 3,
            version: 1 << 40,
            name: "the näme".to_owned(),
            kind: DeviceKind::Browser,
            addresses: vec!["192.0.2.1:8080".to_owned(), String::new()],
            via: Some(DeviceId([255; 32])),
            slots: 300,
            classes: vec![KernelClass::Any, KernelClass::Separate, KernelClass::Exact],
            mflops: -0.0,
            state: DeviceState::Busy,
            since: WallTime(1_795_189_199_999),
            user_agent: "x".repeat(300),
        };
        let hello = Hello {
            version: 1,
            mesh: "home".to_owned(),
            record: record.clone(),
            attach: true,
        };
        let element = ElementType {
            dtype: Dtype::Int,
            limbs: 2,
        };
        let manifest = Manifest {
            element,
            bits: 127,
            rows: 1 << 33,
            cols: 3,
            blocks: vec![BlockId([1; 32]), BlockId([2; 32])],
        };
        let status = JobStatus {
            job,
            name: String::new(),
            state: JobState::Failed,
            rows: 1,
            inner: 70_000,
            cols: 200,
            dtype: Dtype::F32,
            mode: Mode::Plain,
            tiles_total: 4,
            tiles_done: 3,
            tiles_safe: 2,
            tiles_recomputed: 0,
            coordinator: device,
            epoch: 1,
            safe_copies: 0,
            submitted: WallTime(0),
            seconds: 0.1,
            predicted_seconds: None,
            bytes_sent: 1,
            bytes_floor: 2,
            bytes_replicated: 3,
            result: Some(crate::id::MatrixId([3; 32])),
            error: Some("it failed".to_owned()),
            contributions: vec![Contribution {
                device,
                name: "n".to_owned(),
                kind: DeviceKind::Native,
                slots: 2,
                tiles: 3,
                rows: 4,
                operations: u64::MAX,
                compute_ms: f64::MIN_POSITIVE,
                transfer_ms: 1e300,
                mflops: 25_000.0,
                user_agent: String::new(),
            }],
        };
        let lease = LeaseId(u64::MAX);
        let bodies = vec![
            Message::Hello(hello.clone()),
            Message::Welcome(hello),
            Message::Refuse {
                reason: Refusal::DuplicateId,
                text: "no".to_owned(),
            },
            Message::Bye,
            Message::Ping { nonce: 200 },
            Message::Pong { nonce: u64::MAX },
            Message::Gossip {
                devices: vec![record.clone(), record.clone()],
            },
            Message::Jobs { jobs: vec![status] },
            Message::Record(record),
            Message::Open {
                job,
                epoch,
                class: KernelClass::Fused,
                addresses: vec![],
            },
            Message::Closed { job },
            Message::Pull {
                job,
                leases: 2,
                header: true,
            },
            Message::Job(Box::new(JobHeader {
                job,
                name: "a job".to_owned(),
                class: KernelClass::Exact,
                a: manifest.clone(),
                b: manifest,
                element,
                tiling: Tiling {
                    rows: 1,
                    cols: 2,
                    tile_rows: 3,
                    tile_cols: 4,
                },
            })),
            Message::Grants {
                job,
                epoch,
                grants: vec![Grant {
                    lease,
                    tile: 1,
                    lasts: Span(1_000_000),
                }],
            },
            Message::Return {
                job,
                leases: vec![lease; 20],
                failed: true,
            },
            Message::Fetch {
                job,
                operand: Operand::A,
                blocks: (0..300).collect(),
            },
            Message::Block {
                job,
                operand: Operand::B,
                block: 65_536,
            },
            Message::Result {
                job,
                epoch,
                lease,
                tile: 0,
                work: Work::default(),
            },
            Message::Verdict {
                job,
                lease,
                tile: 3,
                valid: true,
                accepted: false,
            },
        ];
        let header = |body| Header {
            from: device,
            to: DeviceId([0; 32]),
            body,
        };
        bodies.into_iter().map(header).collect()
    }
}
