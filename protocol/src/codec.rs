//! Frames: one binary WebSocket message is a MessagePack array of two, the header (maps with field
//! names, so that versions can differ) and the payload as `bin`. The payload comes last, so a
//! receiver slices it off without copying.

#[cfg(any(test, target_arch = "wasm32"))]
mod read;

use crate::message::{Header, Message};

/// The most bytes of a header: the manifests of both operands at their largest, and room.
pub const HEADER_BYTES_MAX: usize = 10 << 20;
/// The most bytes of a payload: twice the largest tile.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// The most bytes of a frame before its sender has said Hello.
pub const HELLO_BYTES_MAX: usize = 64 << 10;
/// How deep a header may nest.
const DEPTH_MAX: usize = 32;

/// Why a frame was refused. The sender is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not an array of header and payload.
    #[error("the frame is not an array of a header and a payload")]
    Shape,
    /// The header does not decode.
    #[error("the header does not decode: {0}")]
    Header(String),
    /// Too long.
    #[error("the frame is longer than allowed")]
    TooLong,
    /// A payload where none belongs, or none where one does.
    #[error("the payload does not belong to this message")]
    Payload,
}

/// The bytes of a frame up to its payload: the payload's `payload_len` bytes follow directly.
pub fn encode_header(header: &Header, payload_len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_ROOM);
    begin(&mut bytes, header, payload_len);
    bytes
}

/// Room that most headers fit in.
pub const HEADER_ROOM: usize = 256;

/// Adds a frame up to its payload to `bytes`, for who reads the payload to where it belongs.
pub fn begin(bytes: &mut Vec<u8>, header: &Header, payload_len: usize) {
    bytes.push(0x92);
    rmp_serde::encode::write_named(bytes, header).expect("a header serialises to memory");
    let len = u32::try_from(payload_len).expect("payloads are bounded");
    bytes.push(0xc6);
    bytes.extend_from_slice(&len.to_be_bytes());
}

/// A whole frame. Cost: one copy of the payload.
pub fn encode(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_ROOM + payload.len());
    begin(&mut bytes, header, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

/// The header of a frame and where its payload starts (it reaches to the end).
///
/// # Errors
/// [`FrameError`]: the sender does not speak this protocol.
pub fn decode(frame: &[u8]) -> Result<(Header, usize), FrameError> {
    if frame.len() > HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    let rest = frame.strip_prefix(&[0x92]).ok_or(FrameError::Shape)?;
    let (header, bin) = read_header(rest)?;
    let (len, start) = match *bin {
        [0xc4, len, ..] => (usize::from(len), 2),
        [0xc5, a, b, ..] => (usize::from(u16::from_be_bytes([a, b])), 3),
        [0xc6, a, b, c, d, ..] => (u32::from_be_bytes([a, b, c, d]) as usize, 5),
        _ => return Err(FrameError::Shape),
    };
    if bin.len() - start != len {
        return Err(FrameError::Shape);
    }
    if len > PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    let carries = matches!(header.body, Message::Block { .. } | Message::Result { .. });
    if carries != (len > 0) {
        return Err(FrameError::Payload);
    }
    Ok((header, frame.len() - len))
}

/// A header, and what comes after it.
#[cfg(not(target_arch = "wasm32"))]
fn read_header(mut bytes: &[u8]) -> Result<(Header, &[u8]), FrameError> {
    let mut deserializer = rmp_serde::Deserializer::new(&mut bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    let header = serde::Deserialize::deserialize(&mut deserializer)
        .map_err(|error| FrameError::Header(error.to_string()))?;
    Ok((header, bytes))
}

/// As above, in little code.
#[cfg(any(test, target_arch = "wasm32"))]
mod small {
    use super::*;

    pub fn read_header(bytes: &[u8]) -> Result<(Header, &[u8]), FrameError> {
        let mut reader = read::Reader::new(bytes, DEPTH_MAX);
        let header = serde::Deserialize::deserialize(&mut reader)
            .map_err(|error| FrameError::Header(error.to_string()))?;
        Ok((header, reader.rest()))
    }
}
#[cfg(target_arch = "wasm32")]
use small::read_header;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{DeviceId, JobId};
    use crate::job::Operand;
    use crate::message;

    #[test]
    fn a_frame_reads_back() {
        let block = Message::Block {
            job: JobId([7; 16]),
            operand: Operand::B,
            block: 3,
        };
        check(block, &[1, 2, 3]);
        check(Message::ping(u64::MAX), &[]);
    }

    #[test]
    fn a_control_message_with_a_payload_is_refused() {
        let frame = encode(&header(Message::Bye), &[1]);
        assert_eq!(decode(&frame), Err(FrameError::Payload));
    }

    #[test]
    fn a_frame_cut_short_or_too_long_is_refused() {
        let frame = encode(&header(Message::ping(1)), &[]);
        for len in 0..frame.len() {
            assert!(
                decode(&frame[..len]).is_err(),
                "{len} bytes of {}",
                frame.len()
            );
        }
        assert_eq!(decode(&[&frame[..], &[0]].concat()), Err(FrameError::Shape));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut frame = vec![0x91; 100_000];
        frame[0] = 0x92;
        assert!(matches!(decode(&frame), Err(FrameError::Header(_))));
    }

    #[test]
    fn a_short_frame_does_not_become_a_long_list() {
        let job = JobId([7; 16]);
        let leases = |count| Message::Return {
            job,
            leases: vec![crate::id::LeaseId(1); count],
            failed: false,
        };
        let fetch = |count| Message::Fetch {
            job,
            operand: Operand::A,
            blocks: vec![1; count],
            link: Some(7),
        };
        check(leases(message::LEASES_MAX), &[]);
        check(fetch(message::FETCH_BLOCKS_MAX), &[]);
        for body in [
            leases(message::LEASES_MAX + 1),
            fetch(message::FETCH_BLOCKS_MAX + 1),
        ] {
            let frame = encode(&header(body), &[]);
            assert!(matches!(decode(&frame), Err(FrameError::Header(_))));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode(&bytes);
            let _ = decode(&[&[0x92], &bytes[..]].concat());
        }
    }

    fn header(body: Message) -> Header {
        Header {
            from: DeviceId([1; 32]),
            to: DeviceId([2; 32]),
            body,
        }
    }

    fn check(body: Message, payload: &[u8]) {
        let header = header(body);
        let frame = encode(&header, payload);
        let (read, start) = decode(&frame).expect("our own frame");
        assert_eq!(read, header);
        assert_eq!(&frame[start..], payload);
    }
}
