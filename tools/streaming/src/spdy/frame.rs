//! SPDY/3.1 frames as values.
//!
//! ```text
//!  control  |1| version 15 | type 16 | flags 8 | length 24 | body …
//!  data     |0| stream 31            | flags 8 | length 24 | payload …
//! ```
//! Control frames are short and taken whole; a data frame, which may claim 16 MiB, is passed on piece by piece as it
//! comes, so that the memory of a connection does not depend on what its peer claims. Pure: no I/O.

use bytes::{Buf as _, Bytes, BytesMut};

use super::headers::{Headers, Packer, Unpacker};

/// Bytes before a body.
const HEADER: usize = 8;
/// The longest body of a control frame.
const LONGEST: usize = 32 << 10;
/// The most settings in a frame.
const MOST_SETTINGS: u32 = 64;
/// The longest piece of a data frame that is passed on at once.
const PIECE: usize = 16 << 10;
const VERSION: u16 = 3;
const FIN: u8 = 1;
const INITIAL_WINDOW: u32 = 7;

/// What a frame said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The peer opens a stream.
    SynStream {
        /// Its number.
        stream: u32,
        /// Its headers.
        headers: Headers,
        /// Nothing will follow on it.
        fin: bool,
    },
    /// The peer takes a stream of ours.
    SynReply {
        /// Its number.
        stream: u32,
    },
    /// A stream is over in both directions.
    RstStream {
        /// Its number.
        stream: u32,
    },
    /// How much may be on its way to the peer on a new stream, if the peer says so.
    Settings {
        /// Bytes.
        initial_window: Option<u32>,
    },
    /// To be answered, or an answer.
    Ping(u32),
    /// The peer opens no more streams.
    GoAway,
    /// More headers, which nobody here has a use for.
    Headers {
        /// Of which stream.
        stream: u32,
        /// Nothing will follow on it.
        fin: bool,
    },
    /// The peer has room for more.
    WindowUpdate {
        /// On which stream; none for the connection.
        stream: u32,
        /// Bytes.
        delta: u32,
    },
    /// Part of a stream.
    Data {
        /// Of which.
        stream: u32,
        /// The bytes.
        bytes: Bytes,
        /// Nothing will follow on it.
        fin: bool,
    },
    /// A type that the version does not know, to be ignored.
    Unknown,
}

/// Bytes that are no frame; the connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another protocol.
    #[error("control frame of SPDY version {0}, not 3")]
    Version(u16),
    /// A control frame that nobody would need.
    #[error("control frame of {0} bytes is too long")]
    TooLong(usize),
    /// A body that does not fit its type.
    #[error("control frame of type {0} with a body that is none")]
    Body(u16),
    /// A stream without a number.
    #[error("frame of stream 0")]
    NoStream,
    /// Too many settings.
    #[error("settings frame with {0} entries is too long")]
    TooManySettings(u32),
    /// A header block that is none.
    #[error("broken header block")]
    Headers,
    /// Too many headers.
    #[error("{0} headers are too many")]
    TooManyHeaders(usize),
    /// Headers that are too long once unpacked.
    #[error("headers are too long")]
    TooLongHeaders,
}

/// Cuts a stream of bytes into frames. Its memory is bounded by one control frame.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: BytesMut,
    unpacker: Unpacker,
    /// The data frame that is half through.
    data: Option<Data>,
}

#[derive(Clone, Copy, Debug)]
struct Data {
    stream: u32,
    left: usize,
    fin: bool,
}

impl Decoder {
    /// Where bytes from the peer are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.pending
    }

    /// The next frame, or piece of one; none when more bytes are needed.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(data) = self.data {
            return Ok(self.piece(data));
        }
        let Some(&[a, b, c, d, flags, high, middle, low]) = self.pending.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            if stream == 0 {
                return Err(FrameError::NoStream);
            }
            self.pending.advance(HEADER);
            let data = Data { stream, left: length, fin: flags & FIN != 0 };
            if length == 0 {
                return Ok(Some(Frame::Data { stream, bytes: Bytes::new(), fin: data.fin }));
            }
            self.data = Some(data);
            return Ok(self.piece(data));
        }
        let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > LONGEST {
            return Err(FrameError::TooLong(length));
        }
        if self.pending.len() < HEADER + length {
            return Ok(None);
        }
        self.pending.advance(HEADER);
        let body = self.pending.split_to(length);
        control(kind, flags, &body, &mut self.unpacker).map(Some)
    }

    fn piece(&mut self, mut data: Data) -> Option<Frame> {
        let count = data.left.min(self.pending.len()).min(PIECE);
        if count == 0 {
            return None;
        }
        let bytes = self.pending.split_to(count).freeze();
        data.left -= count;
        self.data = (data.left > 0).then_some(data);
        Some(Frame::Data { stream: data.stream, bytes, fin: data.fin && data.left == 0 })
    }
}

fn control(kind: u16, flags: u8, body: &[u8], unpacker: &mut Unpacker) -> Result<Frame, FrameError> {
    let fin = flags & FIN != 0;
    let word = |at: usize| -> Result<u32, FrameError> {
        let bytes = body.get(at..at + 4).and_then(<[u8]>::first_chunk).ok_or(FrameError::Body(kind))?;
        Ok(u32::from_be_bytes(*bytes))
    };
    let stream = || match word(0)? & 0x7fff_ffff {
        0 => Err(FrameError::NoStream),
        stream => Ok(stream),
    };
    let rest = |at: usize| body.get(at..).ok_or(FrameError::Body(kind));
    match kind {
        1 => {
            let headers = unpacker.unpack(rest(10)?)?;
            Ok(Frame::SynStream { stream: stream()?, headers, fin })
        }
        2 => {
            // The zlib stream goes through every block, also those that nobody reads.
            unpacker.unpack(rest(4)?)?;
            Ok(Frame::SynReply { stream: stream()? })
        }
        3 => Ok(Frame::RstStream { stream: stream()? }),
        4 => settings(body),
        6 => Ok(Frame::Ping(word(0)?)),
        7 => Ok(Frame::GoAway),
        8 => {
            unpacker.unpack(rest(4)?)?;
            Ok(Frame::Headers { stream: stream()?, fin })
        }
        9 => Ok(Frame::WindowUpdate { stream: word(0)? & 0x7fff_ffff, delta: word(4)? & 0x7fff_ffff }),
        _ => Ok(Frame::Unknown),
    }
}

fn settings(body: &[u8]) -> Result<Frame, FrameError> {
    let (count, entries) = body.split_first_chunk::<4>().ok_or(FrameError::Body(4))?;
    let count = u32::from_be_bytes(*count);
    if count > MOST_SETTINGS {
        return Err(FrameError::TooManySettings(count));
    }
    if entries.len() != count as usize * 8 {
        return Err(FrameError::Body(4));
    }
    let mut initial_window = None;
    for entry in entries.chunks_exact(8) {
        let Some(&[_, a, b, c, value @ ..]) = entry.first_chunk::<8>() else { continue };
        if u32::from_be_bytes([0, a, b, c]) == INITIAL_WINDOW {
            initial_window = Some(u32::from_be_bytes(value) & 0x7fff_ffff);
        }
    }
    Ok(Frame::Settings { initial_window })
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reset {
    /// The peer broke a rule.
    Protocol = 1,
    /// It was not begun.
    Refused = 3,
    /// It is no more needed.
    Cancel = 5,
}

/// Turns our side of a connection into bytes.
#[derive(Debug, Default)]
pub struct Encoder(Packer);

impl Encoder {
    /// Opens a stream, as clients do.
    pub fn open(&mut self, stream: u32, headers: &Headers, into: &mut BytesMut) {
        let block = self.0.pack(headers);
        start(1, 0, 10 + block.len(), into);
        into.extend_from_slice(&stream.to_be_bytes());
        into.extend_from_slice(&[0; 6]);
        into.extend_from_slice(&block);
    }

    /// Takes a stream.
    pub fn reply(&mut self, stream: u32, into: &mut BytesMut) {
        let block = self.0.pack(&Headers::default());
        start(2, 0, 4 + block.len(), into);
        into.extend_from_slice(&stream.to_be_bytes());
        into.extend_from_slice(&block);
    }
}

fn start(kind: u16, flags: u8, length: usize, into: &mut BytesMut) {
    into.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    into.extend_from_slice(&kind.to_be_bytes());
    into.extend_from_slice(&(length as u32 | u32::from(flags) << 24).to_be_bytes());
}

fn words(kind: u16, words: &[u32], into: &mut BytesMut) {
    start(kind, 0, words.len() * 4, into);
    words.iter().for_each(|word| into.extend_from_slice(&word.to_be_bytes()));
}

/// Ends a stream in both directions.
pub fn reset(stream: u32, why: Reset, into: &mut BytesMut) {
    words(3, &[stream, why as u32], into);
}

/// Says how much may be on its way to us on a new stream.
pub fn initial_window(bytes: u32, into: &mut BytesMut) {
    words(4, &[1, INITIAL_WINDOW, bytes], into);
}

/// Answers a ping, or asks.
pub fn ping(number: u32, into: &mut BytesMut) {
    words(6, &[number], into);
}

/// Says that no more streams are taken, and how the connection ends: 0 well, 1 by the peer's fault.
pub fn go_away(last: u32, status: u32, into: &mut BytesMut) {
    words(7, &[last, status], into);
}

/// Gives the peer room for more; stream 0 is the connection.
pub fn window_update(stream: u32, delta: u32, into: &mut BytesMut) {
    words(9, &[stream, delta], into);
}

/// Part of a stream; `bytes` is shorter than 16 MiB.
pub fn data(stream: u32, bytes: &[u8], fin: bool, into: &mut BytesMut) {
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(&(bytes.len() as u32 | u32::from(fin) << 24).to_be_bytes());
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn frames_survive_any_cut() {
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        let headers = Headers::new([("streamtype", "error")]);
        initial_window(70_000, &mut bytes);
        encoder.open(1, &headers, &mut bytes);
        encoder.reply(1, &mut bytes);
        window_update(0, 9, &mut bytes);
        ping(7, &mut bytes);
        data(1, b"", true, &mut bytes);
        reset(1, Reset::Cancel, &mut bytes);
        go_away(1, 0, &mut bytes);
        let expected = [
            Frame::Settings { initial_window: Some(70_000) },
            Frame::SynStream { stream: 1, headers, fin: false },
            Frame::SynReply { stream: 1 },
            Frame::WindowUpdate { stream: 0, delta: 9 },
            Frame::Ping(7),
            Frame::Data { stream: 1, bytes: Bytes::new(), fin: true },
            Frame::RstStream { stream: 1 },
            Frame::GoAway,
        ];
        for step in 1..=bytes.len() {
            assert_eq!(frames(&bytes, step).unwrap(), expected, "in steps of {step}");
        }
    }

    /// Written by moby/spdystream 0.5.1, which every kubectl carries.
    #[test]
    fn what_kubectl_writes_is_understood() {
        let bytes = include_bytes!("../../../../fuzz/corpus/spdy/spdystream");
        let open = |stream, kind, number| Frame::SynStream {
            stream,
            headers: Headers::new([("port", "8080"), ("requestid", number), ("streamtype", kind)]),
            fin: false,
        };
        let mut got = frames(bytes, 1).unwrap();
        for frame in &mut got {
            if let Frame::SynStream { headers, .. } = frame {
                headers.sort();
            }
        }
        let expected = [
            open(1, "error", "0"),
            open(3, "stdin", "1"),
            open(5, "stdout", "2"),
            open(7, "resize", "3"),
            Frame::Settings { initial_window: Some(65_536) },
            Frame::Data { stream: 3, bytes: Bytes::from_static(b"h"), fin: false },
            Frame::Data { stream: 3, bytes: Bytes::from_static(b"e"), fin: false },
            Frame::Data { stream: 3, bytes: Bytes::from_static(b"l"), fin: false },
            Frame::Data { stream: 3, bytes: Bytes::from_static(b"l"), fin: false },
            Frame::Data { stream: 3, bytes: Bytes::from_static(b"o"), fin: false },
            Frame::Data { stream: 3, bytes: Bytes::from_static(b"\n"), fin: false },
            Frame::Data { stream: 3, bytes: Bytes::new(), fin: true },
            Frame::Ping(5),
            Frame::WindowUpdate { stream: 5, delta: 100 },
            Frame::RstStream { stream: 7 },
            Frame::SynReply { stream: 2 },
            Frame::Headers { stream: 1, fin: false },
            Frame::GoAway,
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn a_data_frame_is_passed_on_as_it_comes() {
        let mut bytes = BytesMut::new();
        data(3, &vec![7; 100_000], true, &mut bytes);
        let mut total = 0;
        let pieces = frames(&bytes, 5000).unwrap();
        for (number, piece) in pieces.iter().enumerate() {
            let Frame::Data { stream: 3, bytes, fin } = piece else { panic!("{piece:?}") };
            assert!(bytes.len() <= PIECE && !bytes.is_empty());
            assert_eq!(*fin, number + 1 == pieces.len());
            total += bytes.len();
        }
        assert_eq!(total, 100_000);
    }

    #[test]
    fn greedy_and_broken_frames_are_errors() {
        let refused = |bytes: &[u8]| frames(bytes, bytes.len()).unwrap_err();
        assert_eq!(refused(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]), FrameError::Version(2));
        assert_eq!(refused(&[0x80, 3, 0, 4, 0, 0xff, 0xff, 0xff]), FrameError::TooLong(0xff_ffff));
        assert_eq!(
            refused(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0, 0, 0]),
            FrameError::TooManySettings(0xff00_0000)
        );
        assert_eq!(refused(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1]), FrameError::Body(4));
        assert_eq!(refused(&[0x80, 3, 0, 6, 0, 0, 0, 0]), FrameError::Body(6));
        assert_eq!(refused(&[0x80, 3, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0]), FrameError::NoStream);
        assert_eq!(refused(&[0, 0, 0, 0, 0, 0, 0, 0]), FrameError::NoStream);
        assert_eq!(refused(&[0x80, 3, 0, 1, 0, 0, 0, 3, 0, 0, 0]), FrameError::Body(1));
    }
}
