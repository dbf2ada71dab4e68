//! The bytes of another connection in binary messages, whose borders mean nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{self, Decoder, Frame, Kind};
use crate::mux::{Patience, Transport};

/// Bytes that wait to be sent, above which nothing more is taken.
const OUT: usize = 64 << 10;
/// The longest message.
const MESSAGE: usize = 16 << 10;
/// Bytes that are read at once.
const READ: usize = 16 << 10;

/// A WebSocket as a transport.
pub(crate) struct Tunnel<T> {
    inner: T,
    decoder: Decoder,
    /// Of a message, and not yet read.
    ready: Bytes,
    out: BytesMut,
    patience: Patience,
    /// The peer sends nothing more; we do not.
    ended: bool,
    closed: bool,
}

impl<T: Transport> Tunnel<T> {
    /// `first` came together with the request.
    pub(crate) fn new(inner: T, first: &[u8]) -> Self {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(first);
        Self {
            inner,
            decoder,
            ready: Bytes::new(),
            out: BytesMut::new(),
            patience: Patience::new(),
            ended: false,
            closed: false,
        }
    }

    /// The next bytes of a message, as far as frames are there.
    fn decode(&mut self) -> io::Result<()> {
        while self.ready.is_empty() && !self.ended && self.out.len() < OUT {
            match self.decoder.take().map_err(io::Error::other)? {
                None => return Ok(()),
                Some(Frame::Piece { bytes, .. }) if !bytes.is_empty() => {
                    self.patience.earn();
                    self.ready = bytes;
                    return Ok(());
                }
                Some(Frame::Ping(bytes)) => frame::pong(&bytes, &mut self.out),
                Some(Frame::Close) => self.ended = true,
                Some(Frame::Piece { .. } | Frame::Pong) => {}
            }
            if !self.patience.spend() {
                return Err(io::Error::other("too many frames that carry nothing"));
            }
        }
        Ok(())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(count);
        }
        // An idle connection keeps no memory of its last burst.
        self.out = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncRead for Tunnel<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.decode()?;
            if !this.ready.is_empty() {
                let count = this.ready.len().min(into.remaining());
                into.put_slice(&this.ready.split_to(count));
                return Poll::Ready(Ok(()));
            }
            // Answers to pings, which nobody else would send.
            if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
                return Poll::Ready(Err(error));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.out.len() >= OUT {
                return Poll::Pending;
            }
            let mut space = [std::mem::MaybeUninit::uninit(); READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.decoder.buffer().extend_from_slice(buffer.filled());
        }
    }
}

impl<T: Transport> AsyncWrite for Tunnel<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.out.len() >= OUT {
            ready!(self.poll_drain(cx))?;
        }
        let count = bytes.len().min(MESSAGE);
        frame::message(Kind::Binary, [&bytes[..count], &[]], &mut self.out);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closed, true) {
            frame::close(false, &mut self.out);
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: Transport> Transport for Tunnel<T> {
    fn is_hung_up(&self) -> bool {
        self.inner.is_hung_up()
    }
}
