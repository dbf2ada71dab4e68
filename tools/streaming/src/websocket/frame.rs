//! WebSocket frames as values, as a server reads and writes them (RFC 6455, section 5.2).
//!
//! ```text
//!  |fin 1|rsv 3|opcode 4| mask 1|length 7 (+16 or +64)| key 32, from clients only | payload …
//! ```
//! Control frames are short and taken whole; a message, which may be of any length, is passed on piece by piece.
//! Pure: no I/O.

use bytes::{Buf as _, Bytes, BytesMut};

/// The longest piece of a message that is passed on at once.
const PIECE: usize = 16 << 10;
/// The longest payload of a control frame.
const LONGEST_CONTROL: u64 = 125;
const FIN: u8 = 0x80;
const MASK: u8 = 0x80;

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Text.
    Text = 1,
    /// Bytes.
    Binary = 2,
}

/// What a frame said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Part of a message.
    Piece {
        /// Its first.
        first: bool,
        /// The bytes; may be empty.
        bytes: Bytes,
        /// Its last.
        last: bool,
    },
    /// To be answered with the same bytes.
    Ping(Bytes),
    /// An answer.
    Pong,
    /// The peer sends nothing more.
    Close,
}

/// Bytes that are no frame; the connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Clients mask what they send.
    #[error("frame without a mask")]
    Unmasked,
    /// An extension that nobody agreed to.
    #[error("frame with reserved bits")]
    Reserved,
    /// An opcode without a meaning.
    #[error("frame of the unknown kind {0}")]
    Unknown(u8),
    /// A control frame that is too long or in parts.
    #[error("control frame of {0} bytes, or in parts")]
    Control(u64),
    /// A length above 63 bits.
    #[error("frame of {0} bytes")]
    Length(u64),
    /// A message within a message, or the rest of none.
    #[error("parts of messages are out of order")]
    Order,
}

/// Cuts a stream of bytes into frames. Its memory is bounded by one read and one control frame.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: BytesMut,
    /// The frame of a message that is half through.
    payload: Option<Payload>,
    /// A message has begun and not ended.
    within: bool,
}

#[derive(Clone, Copy, Debug)]
struct Payload {
    first: bool,
    last: bool,
    left: u64,
    key: u32,
}

struct Head {
    fin: bool,
    opcode: u8,
    length: u64,
    key: u32,
    /// Bytes of the head itself.
    size: usize,
}

impl Decoder {
    /// Where bytes from the peer are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.pending
    }

    /// The next frame, or piece of one; none when more bytes are needed.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(payload) = self.payload {
            return Ok(self.piece(payload));
        }
        let Some(head) = head(&self.pending)? else { return Ok(None) };
        if head.opcode & 0x8 != 0 {
            return self.control(&head);
        }
        let first = match head.opcode {
            0 if self.within => false,
            1 | 2 if !self.within => true,
            0..=2 => return Err(FrameError::Order),
            other => return Err(FrameError::Unknown(other)),
        };
        self.pending.advance(head.size);
        self.within = !head.fin;
        let payload = Payload { first, last: head.fin, left: head.length, key: head.key };
        if payload.left == 0 {
            return Ok(Some(Frame::Piece { first, bytes: Bytes::new(), last: head.fin }));
        }
        self.payload = Some(payload);
        Ok(self.piece(payload))
    }

    fn piece(&mut self, mut payload: Payload) -> Option<Frame> {
        let count = self.pending.len().min(PIECE).min(usize::try_from(payload.left).unwrap_or(PIECE));
        if count == 0 {
            return None;
        }
        let mut bytes = self.pending.split_to(count);
        unmask(payload.key, &mut bytes);
        let first = payload.first;
        payload.key = payload.key.rotate_left(8 * (count % 4) as u32);
        payload.left -= count as u64;
        payload.first = false;
        self.payload = (payload.left > 0).then_some(payload);
        Some(Frame::Piece { first, bytes: bytes.freeze(), last: payload.last && payload.left == 0 })
    }

    fn control(&mut self, head: &Head) -> Result<Option<Frame>, FrameError> {
        if head.length > LONGEST_CONTROL || !head.fin {
            return Err(FrameError::Control(head.length));
        }
        let length = head.length as usize;
        if self.pending.len() < head.size + length {
            return Ok(None);
        }
        self.pending.advance(head.size);
        let mut bytes = self.pending.split_to(length);
        unmask(head.key, &mut bytes);
        match head.opcode {
            8 => Ok(Some(Frame::Close)),
            9 => Ok(Some(Frame::Ping(bytes.freeze()))),
            10 => Ok(Some(Frame::Pong)),
            other => Err(FrameError::Unknown(other)),
        }
    }
}

fn head(pending: &[u8]) -> Result<Option<Head>, FrameError> {
    let Some((&[first, second], rest)) = pending.split_first_chunk::<2>() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    if second & MASK == 0 {
        return Err(FrameError::Unmasked);
    }
    let (length, rest) = match second & !MASK {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    if length > i64::MAX as u64 {
        return Err(FrameError::Length(length));
    }
    let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let (fin, opcode) = (first & FIN != 0, first & 0xf);
    let size = pending.len() - rest.len();
    Ok(Some(Head { fin, opcode, length, key: u32::from_be_bytes(*key), size }))
}

fn unmask(key: u32, bytes: &mut [u8]) {
    let key = key.to_be_bytes();
    let mut chunks = bytes.chunks_exact_mut(4);
    for chunk in &mut chunks {
        chunk.iter_mut().zip(key).for_each(|(byte, mask)| *byte ^= mask);
    }
    chunks.into_remainder().iter_mut().zip(key).for_each(|(byte, mask)| *byte ^= mask);
}

/// A whole message made of `parts`.
pub fn message(kind: Kind, parts: [&[u8]; 2], into: &mut BytesMut) {
    start(kind as u8, parts[0].len() + parts[1].len(), into);
    parts.iter().for_each(|part| into.extend_from_slice(part));
}

/// The answer to a ping, or a sign of life.
pub fn pong(bytes: &[u8], into: &mut BytesMut) {
    start(10, bytes.len(), into);
    into.extend_from_slice(bytes);
}

/// Says that nothing more is sent: it ended well, or the peer broke a rule.
pub fn close(fault: bool, into: &mut BytesMut) {
    start(8, 2, into);
    let code: u16 = if fault { 1002 } else { 1000 };
    into.extend_from_slice(&code.to_be_bytes());
}

fn start(opcode: u8, length: usize, into: &mut BytesMut) {
    let first = FIN | opcode;
    match length {
        0..126 => into.extend_from_slice(&[first, length as u8]),
        126..=0xffff => {
            into.extend_from_slice(&[first, 126]);
            into.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            into.extend_from_slice(&[first, 127]);
            into.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(first: u8, payload: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        start(first & 0xf, payload.len(), &mut bytes);
        bytes[0] = first;
        bytes[1] |= MASK;
        let key = 0x0102_0304_u32;
        bytes.extend_from_slice(&key.to_be_bytes());
        let at = bytes.len();
        bytes.extend_from_slice(payload);
        unmask(key, &mut bytes[at..]);
        bytes
    }

    fn frames(bytes: &[u8], step: usize) -> Result<Vec<Frame>, FrameError> {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for part in bytes.chunks(step) {
            decoder.buffer().extend_from_slice(part);
            while let Some(frame) = decoder.take()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn the_example_of_the_specification_is_understood() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let bytes = Bytes::from_static(b"Hello");
        assert_eq!(frames(&hello, 99).unwrap(), [Frame::Piece { first: true, bytes, last: true }]);
    }

    #[test]
    fn messages_survive_any_cut_and_control_frames_in_their_midst() {
        let text: Vec<u8> = (0..70_000).map(|at| (at % 251) as u8).collect();
        let mut bytes = client(0x02, &text[..300]);
        bytes.extend(client(0x89, b"are you there"));
        bytes.extend(client(0x00, &text[300..301]));
        bytes.extend(client(0x80, &text[301..]));
        bytes.extend(client(0x8a, b""));
        bytes.extend(client(0x88, &[3, 232]));
        for step in [1, 2, 3, 5, 7, 4096, 100_000] {
            let (mut got, mut others, mut firsts, mut lasts) = (Vec::new(), Vec::new(), 0, 0);
            for frame in frames(&bytes, step).unwrap() {
                match frame {
                    Frame::Piece { first, bytes, last } => {
                        assert!(bytes.len() <= PIECE);
                        firsts += usize::from(first);
                        lasts += usize::from(last);
                        got.extend_from_slice(&bytes);
                    }
                    other => others.push(other),
                }
            }
            assert!(got == text && firsts == 1 && lasts == 1, "in steps of {step}");
            let ping = Frame::Ping(Bytes::from_static(b"are you there"));
            assert_eq!(others, [ping, Frame::Pong, Frame::Close]);
        }
    }

    #[test]
    fn greedy_and_broken_frames_are_errors() {
        let refused = |bytes: &[u8]| frames(bytes, bytes.len()).unwrap_err();
        assert_eq!(refused(&[0x82, 1, 0, 0]), FrameError::Unmasked);
        assert_eq!(refused(&[0xc2, 0x81, 0, 0]), FrameError::Reserved);
        assert_eq!(refused(&client(0x83, b"")), FrameError::Unknown(3));
        assert_eq!(refused(&client(0x8b, b"")), FrameError::Unknown(11));
        assert_eq!(refused(&client(0x09, b"")), FrameError::Control(0));
        assert_eq!(refused(&client(0x89, &[0; 126])), FrameError::Control(126));
        assert_eq!(refused(&client(0x80, b"")), FrameError::Order);
        assert_eq!(refused(&[&client(0x02, b"")[..], &client(0x82, b"")[..]].concat()), FrameError::Order);
        assert_eq!(refused(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), FrameError::Length(1 << 63));
    }

    #[test]
    fn frames_of_the_server_have_the_shortest_head() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut bytes = BytesMut::new();
            message(Kind::Binary, [&vec![0; length], &[]], &mut bytes);
            assert_eq!(bytes.len(), head + length);
        }
    }
}
