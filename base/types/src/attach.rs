//! The frames on a container's attach socket, between the shim and whoever watches or types.
//!
//! A shim that keeps a container's output as a log (`berth-json://…`, `berth-cri://…`) offers a unix stream socket named
//! [`SOCKET`] in the bundle's folder, from the task's creation until its deletion, whatever becomes of the daemon.
//! (The bundle's path may be longer than a socket's address: `berth_sys::local_socket::connect` copes.)
//!
//! ```text
//!  0        1          5
//!  | stream | length  | payload …         length big-endian, at most MAX_PAYLOAD
//! ```
//! The client's first frame is [`Stream::Open`], whose one byte of payload says how it reads ([`Pace`]). The shim's
//! first frame is an empty [`Stream::Open`]: from now on nothing is missed, so a client that waits for it before it
//! starts the process sees all of its output. After it come frames of [`Stream::Stdin`]; an empty one says that no
//! more input follows. The shim sends [`Stream::Stdout`] and [`Stream::Stderr`] from the moment of the opening on; an empty frame says that the stream
//! has ended, and after the last of them the shim closes the connection. With a terminal there is only `Stdout`.
//!
//! Input is taken only when the task was created with the stdin [`STDIN_KEPT`] or [`STDIN_ONCE`].
//!
//! Pure: no I/O.

/// The socket's name in the bundle.
pub const SOCKET: &str = "attach.sock";
/// The stdin of a task whose input comes from attached clients and stays open when they leave.
pub const STDIN_KEPT: &str = "berth-attach://kept";
/// The same, but the first client that ends its input ends the container's.
pub const STDIN_ONCE: &str = "berth-attach://once";
/// Bytes before a payload.
pub const HEADER: usize = 5;
/// The longest payload that is accepted; writers send less.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stream {
    /// Input for the container.
    Stdin = 0,
    /// Its standard output, or its terminal's.
    Stdout = 1,
    /// Its standard error.
    Stderr = 2,
    /// Each side's first word.
    Open = 3,
    /// The last frame to a client that read too slowly; its payload is text.
    CutOff = 4,
    /// From the client, at any time: the log's file has been renamed, go on in a new one. The answer is a frame of the
    /// same stream, empty or with the text of what went wrong.
    Reopen = 5,
}

/// What happens when a client does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pace {
    /// The container goes on, and the client is cut off once too much waits for it: for onlookers.
    CutOff = 0,
    /// The container waits, as it would for a pipe: for the client in whose foreground it runs.
    Wait = 1,
}

/// One whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub stream: Stream,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// Bytes that are no frame; the connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No stream has that number.
    #[error("attach frame of unknown stream {0}")]
    Stream(u8),
    /// The payload would be longer than [`MAX_PAYLOAD`].
    #[error("attach frame of {0} bytes is too long")]
    Length(usize),
}

/// The bytes before `length` bytes of payload.
pub fn header(stream: Stream, length: usize) -> [u8; HEADER] {
    debug_assert!(length <= MAX_PAYLOAD, "writers cut their data");
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [stream as u8, a, b, c, d]
}

/// One frame's bytes.
pub fn encode(stream: Stream, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&header(stream, payload.len()));
    bytes.extend_from_slice(payload);
    bytes
}

/// Cuts a stream of bytes into frames. Its memory is bounded by one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes in `bytes` and appends the frames which they complete to `frames`.
    pub fn feed(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), FrameError> {
        self.pending.extend_from_slice(bytes);
        let mut from = 0;
        while let Some((stream, length)) = parse_header(&self.pending[from..])? {
            let end = from + HEADER + length;
            if end > self.pending.len() {
                break;
            }
            frames.push(Frame { stream, payload: self.pending[from + HEADER..end].to_vec() });
            from = end;
        }
        self.pending.drain(..from);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Ok(())
    }
}

fn parse_header(bytes: &[u8]) -> Result<Option<(Stream, usize)>, FrameError> {
    let Some(&[number, a, b, c, d]) = bytes.first_chunk() else { return Ok(None) };
    let stream = match number {
        0 => Stream::Stdin,
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        3 => Stream::Open,
        4 => Stream::CutOff,
        5 => Stream::Reopen,
        other => return Err(FrameError::Stream(other)),
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MAX_PAYLOAD {
        return Err(FrameError::Length(length));
    }
    Ok(Some((stream, length)))
}

impl Pace {
    /// The pace that an opening frame asks for; an unknown or missing byte is [`Pace::CutOff`].
    pub fn of(payload: &[u8]) -> Self {
        if payload.first() == Some(&(Self::Wait as u8)) { Self::Wait } else { Self::CutOff }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let sent = [(Stream::Open, vec![1]), (Stream::Stdout, b"out".to_vec()), (Stream::Stderr, Vec::new())];
        let bytes: Vec<u8> = sent.iter().flat_map(|(stream, payload)| encode(*stream, payload)).collect();
        for step in 1..=bytes.len() {
            let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
            bytes.chunks(step).for_each(|part| decoder.feed(part, &mut frames).unwrap());
            let got: Vec<_> = frames.into_iter().map(|frame| (frame.stream, frame.payload)).collect();
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn rubbish_and_greed_are_errors() {
        let mut frames = Vec::new();
        assert_eq!(Decoder::default().feed(&[9, 0, 0, 0, 0], &mut frames), Err(FrameError::Stream(9)));
        let greedy = Decoder::default().feed(&[1, 0xff, 0, 0, 0], &mut frames);
        assert_eq!(greedy, Err(FrameError::Length(0xff00_0000)));
    }
}
