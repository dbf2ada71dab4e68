//! The frames of a connection: a decoder that is fed bytes, and an encoder. No socket, no clock.
//!
//! ```text
//!  0        4        8     9      10
//!  | length | stream | type | flags | data … |      length and stream big-endian, length ≤ 4 MiB
//! ```
//! A longer frame is skipped, not an error of the connection: its stream alone fails (`ResourceExhausted`).

use crate::{Code, Status};

/// Bytes of a header.
pub const HEADER: usize = 10;
/// The longest data of a frame, in bytes.
pub const MAX_DATA: usize = 4 << 20;
/// Memory is taken as the data arrives, not as the header promises it.
const FIRST_ALLOCATION: usize = 64 << 10;

/// Flag of requests and data: the sender sends no more on this stream.
pub const REMOTE_CLOSED: u8 = 0x1;
/// Flag of requests: data frames follow.
pub const REMOTE_OPEN: u8 = 0x2;
/// Flag of data: there is none, not even an empty message.
pub const NO_DATA: u8 = 0x4;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// Opens a stream.
    Request,
    /// Ends a stream.
    Response,
    /// A message within a stream.
    Data,
    /// Of a future version; receivers ignore it.
    Other(u8),
}

/// One whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The stream that it belongs to; odd when the client opened it.
    pub stream: u32,
    /// What it is for.
    pub kind: FrameType,
    /// The flags, whose meaning depends on the kind.
    pub flags: u8,
    /// The data.
    pub data: Vec<u8>,
}

/// What the decoder found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A frame, complete.
    Frame(Frame),
    /// A frame longer than [`MAX_DATA`], told when its header is read; its data will be skipped.
    Oversize {
        /// Its stream.
        stream: u32,
        /// Its announced length in bytes.
        length: u32,
    },
}

/// Cuts a stream of bytes into frames. Its memory is bounded by one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    have: usize,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Data {
        frame: Frame,
        missing: usize,
    },
    Skip {
        left: usize,
    },
}

impl Decoder {
    /// Takes in `bytes`, all of them, and appends what they complete to `events`.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Header => self.take_header(bytes, events),
                State::Data { frame, missing } => {
                    let taken = bytes.len().min(*missing);
                    frame.data.extend_from_slice(&bytes[..taken]);
                    *missing -= taken;
                    if *missing == 0 {
                        self.finish(events);
                    }
                    taken
                }
                State::Skip { left } => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::Header;
                    }
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
    }

    /// Whether the bytes so far end between two frames; if not, an end of input here cuts a frame off.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Header) && self.have == 0
    }

    fn take_header(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> usize {
        let taken = bytes.len().min(HEADER - self.have);
        self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        if self.have == HEADER {
            self.have = 0;
            self.begin(events);
        }
        taken
    }

    fn begin(&mut self, events: &mut Vec<Event>) {
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = self.header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let missing = length as usize;
        if missing > MAX_DATA {
            events.push(Event::Oversize { stream, length });
            self.state = State::Skip { left: missing };
            return;
        }
        let data = Vec::with_capacity(missing.min(FIRST_ALLOCATION));
        self.state = State::Data { frame: Frame { stream, kind: kind.into(), flags, data }, missing };
        if missing == 0 {
            self.finish(events);
        }
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        if let State::Data { frame, .. } = std::mem::take(&mut self.state) {
            events.push(Event::Frame(frame));
        }
    }
}

/// The bytes of one frame. The caller has seen to it that `data` is no longer than [`MAX_DATA`].
pub fn encode(stream: u32, kind: FrameType, flags: u8, data: &[u8]) -> Vec<u8> {
    debug_assert!(data.len() <= MAX_DATA, "the caller checks the length");
    let mut bytes = Vec::with_capacity(HEADER + data.len());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.push(kind.into());
    bytes.push(flags);
    bytes.extend_from_slice(data);
    bytes
}

/// The status for a message of `length` bytes, in the words that Go's implementation uses.
pub fn oversize(length: usize) -> Status {
    let message = format!("message length {length} exceed maximum message size of {MAX_DATA}");
    Status::new(Code::ResourceExhausted, message)
}

impl From<u8> for FrameType {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Data,
            other => Self::Other(other),
        }
    }
}

impl From<FrameType> for u8 {
    fn from(kind: FrameType) -> Self {
        match kind {
            FrameType::Request => 1,
            FrameType::Response => 2,
            FrameType::Data => 3,
            FrameType::Other(number) => number,
        }
    }
}
