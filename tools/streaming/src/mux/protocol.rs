//! What differs between SPDY and the channels of a WebSocket.

use bytes::{Bytes, BytesMut};

use crate::spdy::frame::FrameError;
use crate::websocket::FrameError as MessageError;

/// The headers of a stream that somebody here has a use for. Short: longer ones are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opening {
    /// `streamType`.
    pub(crate) kind: String,
    /// `port`.
    pub(crate) port: String,
    /// `requestID`.
    pub(crate) request: String,
}

/// What the peer said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A stream is opened.
    Opened { lane: u32, opening: Opening, ended: bool },
    /// Bytes of a stream, and whether they are its last.
    Data { lane: u32, bytes: Bytes, ended: bool },
    /// A stream is over in both directions.
    Reset(u32),
    /// There is more room on its side, or something that the protocol settled by itself.
    Settled,
    /// It is leaving.
    Farewell,
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("stream {0} was opened out of turn")]
    OutOfTurn(u32),
    #[error("a close signal for no channel")]
    CloseSignal,
    #[error("a message that is not base64")]
    Base64,
    #[error("too many frames that carry nothing")]
    Chatter,
}

/// One side of a connection as a value: no I/O. `out` is where its frames go.
pub(crate) trait Protocol: Send {
    /// Where bytes from the peer are appended.
    fn incoming(&mut self) -> &mut BytesMut;

    /// The next thing that the peer said; none when more bytes are needed. Answers that need nobody's decision go
    /// into `out`.
    fn take(&mut self, out: &mut BytesMut) -> Result<Option<Said>, Broken>;

    /// Takes a stream that was opened.
    fn accept(&mut self, lane: u32, out: &mut BytesMut);

    /// Ends a stream in both directions; as one that never was when it is `refused`.
    fn reset(&mut self, lane: u32, refused: bool, out: &mut BytesMut);

    /// How many bytes the peer has room for.
    fn room(&self, lane: u32) -> usize;

    /// Sends bytes.
    fn send(&mut self, lane: u32, bytes: &[u8], out: &mut BytesMut);

    /// Sends nothing more on a stream.
    fn end(&mut self, lane: u32, out: &mut BytesMut);

    /// Bytes of a stream have left our memory: the peer may send more.
    fn consumed(&mut self, lane: u32, bytes: usize, out: &mut BytesMut);

    /// A stream is over.
    fn forget(&mut self, lane: u32);

    /// Tells a peer that we are here although we read nothing from it for a while.
    fn heartbeat(&mut self, out: &mut BytesMut);

    /// Tells the peer that this is the end: by its `fault`, or as it should be.
    fn farewell(&mut self, fault: bool, out: &mut BytesMut);

    /// Whether the peer can tell from the ends of its streams that it may leave, so that it is given time to.
    fn peer_leaves_first(&self) -> bool;
}
