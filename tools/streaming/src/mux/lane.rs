//! The two ends of a stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::protocol::Opening;
use super::state::Mux;

/// A stream that the peer opened.
pub(crate) struct Opened {
    /// Its number.
    pub(crate) lane: u32,
    /// Its headers.
    pub(crate) opening: Opening,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// What the peer sends on a stream. Its end is the stream's; when the peer is gone, or took the stream back, it is
/// an error after the bytes that came. Dropped, it lets further bytes go.
pub(crate) struct Reader {
    pub(super) lane: u32,
    pub(super) mux: Mux,
}

/// What is sent to the peer on a stream; it is in order with every other stream, so a flush has nothing to do.
/// Dropped, the stream ends.
pub(crate) struct Writer {
    pub(super) lane: u32,
    pub(super) mux: Mux,
}

impl Writer {
    /// Sends a message without bytes, where that is anything: a sign of life.
    pub(crate) fn greet(&self) {
        self.mux.lock().greet(self.lane);
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.mux.lock().poll_read(self.lane, cx, into)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.mux.lock().poll_write(self.lane, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mux.lock().end(self.lane);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.mux.lock().unread(self.lane);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.mux.lock().end(self.lane);
    }
}
