//! A reader of MessagePack for pages. It reads what `rmp_serde` reads of our messages, in much less
//! code: each type says what it expects, so that nothing has to be ready for anything, and what is
//! wrong is not described. A phone loads it; nodes read with `rmp_serde`, and tests compare the two.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// The bytes are not what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unexpected;

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field is missing or not what it should be")
    }
}

impl std::error::Error for Unexpected {}

impl de::Error for Unexpected {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Where in the bytes it is, and how deep in lists and maps.
#[derive(Debug)]
pub(super) struct Reader<'de> {
    rest: &'de [u8],
    depth: usize,
}

/// What introduces a value.
enum Mark<'de> {
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

impl<'de> Reader<'de> {
    /// Reads nested values at most `depth` deep.
    pub fn new(bytes: &'de [u8], depth: usize) -> Self {
        Self { rest: bytes, depth }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'de [u8] {
        self.rest
    }

    fn take(&mut self, len: usize) -> Result<&'de [u8], Unexpected> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Unexpected)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A big-endian number of `len` bytes.
    fn number(&mut self, len: usize) -> Result<u64, Unexpected> {
        let bytes = self.take(len)?.iter();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn mark(&mut self) -> Result<Mark<'de>, Unexpected> {
        let first = self.take(1)?[0];
        // Lengths and numbers come in up to four widths, one code after the other.
        let width = |base: u8| 1 << (first - base);
        Ok(match first {
            0x00..=0x7f => Mark::Unsigned(first.into()),
            0x80..=0x8f => Mark::Map((first & 15).into()),
            0x90..=0x9f => Mark::List((first & 15).into()),
            0xa0..=0xbf => Mark::Text(self.take((first & 31).into())?),
            0xc0 => Mark::Nil,
            0xc2 | 0xc3 => Mark::Bool(first == 0xc3),
            0xc4..=0xc6 => {
                let len = self.number(width(0xc4))? as usize;
                Mark::Bytes(self.take(len)?)
            }
            0xca => Mark::Float(f32::from_bits(self.number(4)? as u32).into()),
            0xcb => Mark::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Mark::Unsigned(self.number(width(0xcc))?),
            0xd0..=0xd3 => {
                let width = width(0xd0);
                let unused = 64 - 8 * width;
                Mark::Signed((self.number(width)? << unused) as i64 >> unused)
            }
            0xd9..=0xdb => {
                let len = self.number(width(0xd9))? as usize;
                Mark::Text(self.take(len)?)
            }
            0xdc | 0xdd => Mark::List(self.number(2 * width(0xdc))? as usize),
            0xde | 0xdf => Mark::Map(self.number(2 * width(0xde))? as usize),
            0xe0..=0xff => Mark::Signed((first as i8).into()),
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Unexpected),
        })
    }

    fn text(&mut self) -> Result<&'de str, Unexpected> {
        match self.mark()? {
            Mark::Text(text) => std::str::from_utf8(text).map_err(|_| Unexpected),
            _ => Err(Unexpected),
        }
    }

    /// Reads on, one level deeper.
    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unexpected>,
    ) -> Result<T, Unexpected> {
        self.depth = self.depth.checked_sub(1).ok_or(Unexpected)?;
        let value = read(self);
        self.depth += 1;
        value
    }

    fn items<T>(
        &mut self,
        left: usize,
        read: impl FnOnce(&mut Items<'_, 'de>) -> Result<T, Unexpected>,
    ) -> Result<T, Unexpected> {
        self.nested(|reader| {
            let mut items = Items { reader, left };
            let value = read(&mut items)?;
            if items.left == 0 {
                Ok(value)
            } else {
                Err(Unexpected)
            }
        })
    }

    fn skip(&mut self) -> Result<(), Unexpected> {
        let left = match self.mark()? {
            Mark::List(len) => len,
            Mark::Map(len) => len.checked_mul(2).ok_or(Unexpected)?,
            _ => 0,
        };
        self.nested(|reader| {
            for _ in 0..left {
                reader.skip()?;
            }
            Ok(())
        })
    }
}

macro_rules! integers {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
            match self.mark()? {
                Mark::Unsigned(number) => visitor.visit_u64(number),
                Mark::Signed(number) => visitor.visit_i64(number),
                _ => Err(Unexpected),
            }
        }
    )*};
}

macro_rules! floats {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
            match self.mark()? {
                Mark::Float(number) => visitor.visit_f64(number),
                _ => Err(Unexpected),
            }
        }
    )*};
}

macro_rules! texts {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
            visitor.visit_borrowed_str(self.text()?)
        }
    )*};
}

macro_rules! bytes {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
            match self.mark()? {
                Mark::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
                _ => Err(Unexpected),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Unexpected;

    integers!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);
    integers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64);
    floats!(deserialize_f32 deserialize_f64);
    texts!(deserialize_str deserialize_string deserialize_identifier deserialize_char);
    bytes!(deserialize_bytes deserialize_byte_buf);

    fn is_human_readable(&self) -> bool {
        false
    }

    /// No message holds something that could be anything.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unexpected> {
        Err(Unexpected)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
        match self.mark()? {
            Mark::Bool(value) => visitor.visit_bool(value),
            _ => Err(Unexpected),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
        if self.rest.first() == Some(&0xc0) {
            self.take(1)?;
            return visitor.visit_none();
        }
        self.nested(|reader| visitor.visit_some(reader))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
        match self.mark()? {
            Mark::Nil => visitor.visit_unit(),
            _ => Err(Unexpected),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unexpected> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unexpected> {
        self.nested(|reader| visitor.visit_newtype_struct(reader))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
        match self.mark()? {
            Mark::List(len) => self.items(len, |items| visitor.visit_seq(items)),
            _ => Err(Unexpected),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unexpected> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unexpected> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
        match self.mark()? {
            Mark::Map(len) => self.items(len, |items| visitor.visit_map(items)),
            _ => Err(Unexpected),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unexpected> {
        self.deserialize_map(visitor)
    }

    /// A variant is its name, or a map of its name and what it holds.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unexpected> {
        let first = self.rest.first().copied();
        let holds = first == Some(0x81);
        if holds {
            self.take(1)?;
        }
        self.nested(|reader| visitor.visit_enum(Variant { reader, holds }))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unexpected> {
        self.skip()?;
        visitor.visit_unit()
    }
}

/// What is left of a list or a map.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = Unexpected;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unexpected> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    /// An element has a byte at least.
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.rest.len()))
    }
}

impl<'de> MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = Unexpected;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unexpected> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Unexpected> {
        seed.deserialize(&mut *self.reader)
    }
}

/// A variant, and whether something comes after its name.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
    holds: bool,
}

impl<'de> Variant<'_, 'de> {
    fn held(&mut self) -> Result<&mut Reader<'de>, Unexpected> {
        self.holds.then_some(&mut *self.reader).ok_or(Unexpected)
    }
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Unexpected;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), Unexpected> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Unexpected;

    fn unit_variant(self) -> Result<(), Unexpected> {
        if self.holds { Err(Unexpected) } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        mut self,
        seed: T,
    ) -> Result<T::Value, Unexpected> {
        seed.deserialize(self.held()?)
    }

    fn tuple_variant<V: Visitor<'de>>(
        mut self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unexpected> {
        self.held()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unexpected> {
        self.held()?.deserialize_map(visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{read_header, small};
    use crate::id::{BlockId, DeviceId, Epoch, JobId, LeaseId};
    use crate::job::{JobHeader, KernelClass, Operand};
    use crate::matrix::{Dtype, ElementType, Manifest};
    use crate::message::{self, DeviceRecord, Header, Hello, Message, VERSION};
    use crate::slab::TileLimits;
    use crate::status::{
        Contribution, DeviceKind, DeviceState, Happening, JobState, JobStatus, Mode, Moment,
    };
    use crate::time::{Span, WallTime};

    #[test]
    fn it_reads_what_rmp_serde_reads() {
        let blocks = vec![1; message::FETCH_BLOCKS_MAX];
        let operand = Operand::B;
        let job = JobId([7; 16]);
        let long = Message::Fetch {
            job,
            operand,
            blocks,
            link: Some(7),
        };
        for body in messages().into_iter().chain([long]) {
            let bytes = written(&body);
            let more = [&bytes[..], &[0xc4, 0]].concat();
            for bytes in [&bytes, &more] {
                let small = small::read_header(bytes).expect("our own header");
                assert_eq!(small, read_header(bytes).expect("our own header"));
                assert_eq!(small.0.body, body);
            }
            for len in (0..bytes.len()).step_by(bytes.len().div_ceil(1_000)) {
                assert!(small::read_header(&bytes[..len]).is_err(), "{body:?}");
            }
        }
    }

    #[test]
    fn fields_of_newer_versions_are_passed_over() {
        let mut frame = written(&Message::ping(9));
        // {"from", "to", "body": {"ping": {"nonce"}}}: one more field in the innermost map.
        let at = frame.len() - b"\x81\xa5nonce\x09".len();
        frame[at] = 0x82;
        for value in [
            &b"\xc0"[..],
            b"\xc3",
            b"\xcb\0\0\0\0\0\0\0\0",
            b"\xd9\x02ab",
            b"\xc4\x01a",
            b"\x92\x01\x81\xa1a\x90",
            b"\xdc\x00\x01\xd0\xff",
        ] {
            let more = [&frame[..], b"\xa1x", value].concat();
            let read = small::read_header(&more).expect("a field more");
            assert_eq!(read.0.body, Message::ping(9), "{value:?}");
            assert!(read.1.is_empty());
        }
    }

    #[test]
    fn depth_and_long_lists_are_refused() {
        let deep = vec![0x91; 100_000];
        assert!(small::read_header(&deep).is_err());
        let mut ping = written(&Message::ping(9));
        let at = ping.len() - b"\x81\xa5nonce\x09".len();
        ping[at] = 0x82;
        ping.extend(b"\xa1x");
        ping.extend(deep);
        assert!(small::read_header(&ping).is_err());
        let leases = vec![LeaseId(1); message::LEASES_MAX + 1];
        let job = JobId([7; 16]);
        let failed = false;
        let long = Message::Return {
            job,
            leases,
            failed,
        };
        assert!(small::read_header(&written(&long)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = small::read_header(&bytes);
        }

        /// A byte changed, inserted or gone: the reader of pages may be stricter, but it does not read
        /// anything else.
        #[test]
        fn it_reads_no_other_header(
            message in 0..messages().len(), at in any::<prop::sample::Index>(), byte: u8, how in 0..3,
        ) {
            let mut bytes = written(&messages()[message]);
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
            if let (Ok(read), Ok(small)) = (read_header(&bytes), small::read_header(&bytes)) {
                // NaN is not itself.
                prop_assert_eq!(format!("{read:?}"), format!("{small:?}"));
            }
        }
    }

    /// One of each that a page is told, with numbers of all widths.
    fn messages() -> Vec<Message> {
        let job = JobId([7; 16]);
        let device = DeviceId([200; 32]);
        let record = DeviceRecord {
            device,
            incarnation: 1 << 41,
            version: 300,
            name: "a name that is longer than thirty-one bytes \u{fc}".to_owned(),
            kind: DeviceKind::Native,
            addresses: vec!["192.0.2.1:8080".to_owned(); 17],
            via: None,
            slots: 70_000,
            classes: vec![KernelClass::Any, KernelClass::Separate],
            mflops: 1.5e9,
            state: DeviceState::Ready,
            since: WallTime(1 << 40),
            user_agent: "x".repeat(300),
            stacks: true,
            residues: true,
            limits: TileLimits::default(),
        };
        let page = DeviceRecord {
            kind: DeviceKind::Browser,
            via: Some(DeviceId([1; 32])),
            ..record.clone()
        };
        let hello = Hello {
            version: VERSION,
            mesh: String::new(),
            record: record.clone(),
            attach: true,
        };
        let element = ElementType {
            dtype: Dtype::Int,
            limbs: 3,
        };
        let manifest = Manifest {
            element,
            bits: 130,
            rows: 255,
            cols: 255,
            blocks: (0..300_u32)
                .map(|n| BlockId::of(&n.to_le_bytes()))
                .collect(),
        };
        let epoch = Epoch { counter: 3, device };
        let grant = message::Grant {
            lease: LeaseId(u64::MAX),
            tile: 65_536,
            lasts: Span(0),
        };
        let contribution = Contribution {
            device,
            name: record.name.clone(),
            kind: DeviceKind::Browser,
            slots: 4,
            tiles: 5,
            rows: 6,
            operations: 1 << 60,
            compute_ms: 0.25,
            transfer_ms: 0.0,
            mflops: f64::MAX,
            user_agent: String::new(),
        };
        let moment = Moment {
            at: 12.5,
            event: Happening::TookOver,
            device,
            name: "n".to_owned(),
            tile: Some(128),
            epoch: 2,
        };
        let status = JobStatus {
            job,
            name: "job".to_owned(),
            state: JobState::Running,
            rows: 1,
            inner: 2,
            cols: 3,
            dtype: Dtype::F32,
            mode: Mode::Plain,
            sharing: None,
            tiles_total: 4,
            tiles_done: 3,
            tiles_safe: 2,
            tiles_recomputed: 1,
            coordinator: device,
            epoch: 2,
            safe_copies: 1,
            submitted: WallTime(9),
            seconds: 1.5,
            predicted_seconds: Some(2.5),
            plan: Vec::new(),
            bytes_sent: 1 << 34,
            bytes_floor: 0,
            bytes_replicated: 1,
            result: None,
            error: Some("no".to_owned()),
            contributions: vec![contribution; 20],
            backups: vec![device],
            timeline: vec![moment],
            part: None,
            products: None,
            failed: None,
        };
        let header = JobHeader {
            job,
            name: String::new(),
            class: KernelClass::Exact,
            tiling: crate::plan::tiling(&manifest, &manifest, element, 3),
            a: manifest.clone(),
            b: manifest,
            element,
            stack: 1,
            batch: None,
            guard: None,
            share: None,
        };
        vec![
            Message::Welcome(hello),
            Message::Refuse {
                reason: message::Refusal::DuplicateId,
                text: "no".to_owned(),
            },
            Message::Bye,
            Message::ping(1 << 63),
            Message::Pong { nonce: 200 },
            Message::Gossip {
                devices: vec![record, page],
            },
            Message::Jobs { jobs: vec![status] },
            Message::Open {
                job,
                epoch,
                class: KernelClass::Fused,
                addresses: vec![String::new()],
            },
            Message::Closed { job },
            Message::Job(Box::new(header)),
            Message::Grants {
                job,
                epoch,
                grants: vec![grant; 3],
            },
            Message::Block {
                job,
                operand: Operand::A,
                block: 40_000,
            },
            Message::Verdict {
                job,
                lease: LeaseId(1),
                tile: 2,
                valid: true,
                accepted: true,
            },
        ]
    }

    fn written(body: &Message) -> Vec<u8> {
        rmp_serde::to_vec_named(&header(body.clone())).expect("it serialises")
    }

    fn header(body: Message) -> Header {
        Header {
            from: DeviceId([1; 32]),
            to: DeviceId([2; 32]),
            body,
        }
    }
}
