//! A client that never blocks: one call at a time, driven by its owner's poll loop.
//!
//! ```text
//!   call() ──► Busy ──► ready() says Done(answer) ──► idle ──► call() …
//!                └────► ready() says Lost: the connection is of no more use
//! ```

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{connect, recv, send, socket_with};

use crate::frame::{Decoder, Event, FrameType};
use crate::wire::{Request, Response};
use crate::{Error, Metadata};

/// One connection, watched edge-triggered for both directions by its owner.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    decoder: Decoder,
    metadata: Metadata,
    next: u32,
    /// The stream of the open call.
    open: Option<u32>,
    unsent: Vec<u8>,
}

/// What became of the open call.
#[derive(Debug)]
pub enum Progress {
    /// No answer yet.
    Waiting,
    /// The answer, or the other side's refusal.
    Done(Result<Vec<u8>, Error>),
    /// The connection has ended; whether the other side has heard the call is unknown.
    Lost,
}

impl Client {
    /// Connects at once or not at all: a server whose queue is full is an error (`WouldBlock`).
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(io)?;
        connect(&socket, &SocketAddrUnix::new(path).map_err(io)?).map_err(io)?;
        Ok(Self::from_stream(UnixStream::from(socket)))
    }

    /// Speaks over a connected socket, blocking or not: it is used without waiting either way.
    pub fn from_stream(socket: UnixStream) -> Self {
        let (decoder, metadata) = (Decoder::default(), Metadata::default());
        Self { socket, decoder, metadata, next: 1, open: None, unsent: Vec::new() }
    }

    /// Sends these headers with every call.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Whether a call waits for its answer.
    pub fn is_busy(&self) -> bool {
        self.open.is_some()
    }

    /// Begins a call. Only when the client is not busy; the answer comes from [`Client::ready`].
    pub fn call(&mut self, service: &str, method: &str, payload: Vec<u8>) -> Result<(), Error> {
        debug_assert!(self.open.is_none(), "one call at a time");
        let stream = self.next;
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: 0,
            metadata: (&self.metadata).into(),
        };
        self.unsent = request.into_frame(stream)?;
        self.next = stream.checked_add(2).ok_or(Error::Closed)?;
        self.open = Some(stream);
        self.flush()
    }

    /// Goes on in both directions. To be called at every edge, and after [`Client::call`].
    pub fn ready(&mut self) -> Progress {
        if self.flush().is_err() {
            return Progress::Lost;
        }
        let mut events = Vec::new();
        let mut buffer = [0; 1024];
        let mut done = None;
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return done.map_or(Progress::Lost, Progress::Done),
                Ok((count, _)) => self.decoder.feed(&buffer[..count], &mut events),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return done.map_or(Progress::Waiting, Progress::Done),
                Err(_) => return done.map_or(Progress::Lost, Progress::Done),
            }
            for event in events.drain(..) {
                if let Some(answer) = self.answer(event) {
                    done = Some(answer);
                }
            }
        }
    }

    fn answer(&mut self, event: Event) -> Option<Result<Vec<u8>, Error>> {
        let Event::Frame(frame) = event else { return None };
        if Some(frame.stream) != self.open || frame.kind != FrameType::Response {
            return None;
        }
        self.open = None;
        Some(match Response::decode_frame(&frame.data) {
            Ok(response) => response.into_result().map_err(Error::Status),
            Err(error) => Err(Error::Decode(error)),
        })
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match send(&self.socket, &self.unsent[sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(io(error)),
            }
        }
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn io(error: Errno) -> Error {
    match error {
        Errno::PIPE | Errno::CONNRESET => Error::Closed,
        other => Error::Io(other.into()),
    }
}
