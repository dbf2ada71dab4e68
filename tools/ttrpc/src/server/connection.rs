//! One client of a synchronous server.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::intake::{Incoming, Intake};
use super::outbox::{Outbox, Responder};
use crate::frame::{Decoder, Event};
use crate::wire::Response;
use crate::{Code, Metadata, Status};

/// Calls that one client may leave open; more are refused with `ResourceExhausted`.
const OPEN_CALLS: usize = 4096;
const READ: usize = 8 << 10;

/// The connection has ended; its owner drops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// One accepted client. Its owner polls it edge-triggered for reading and writing.
#[derive(Debug)]
pub struct Connection {
    outbox: Arc<Outbox>,
    decoder: Decoder,
    intake: Intake,
    events: Vec<Event>,
}

/// A call that wants an answer.
#[derive(Debug)]
pub struct Call {
    /// The protobuf service, `containerd.task.v3.Task`.
    pub service: String,
    /// The method, `Create`.
    pub method: String,
    /// The headers.
    pub metadata: Metadata,
    /// The encoded request.
    pub payload: Vec<u8>,
    /// How long the caller waits; `None` for ever.
    pub timeout: Option<Duration>,
    /// With which to answer.
    pub responder: Responder,
}

impl Connection {
    /// Takes an accepted socket, blocking or not: it is used without waiting either way.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            outbox: Outbox::new(socket),
            decoder: Decoder::default(),
            intake: Intake::default(),
            events: Vec::new(),
        }
    }

    /// Reads until the socket is empty and appends the calls to `calls`.
    ///
    /// [`Gone`] when the client has closed or the socket failed; calls read before that are in `calls` all the same.
    pub fn readable(&mut self, calls: &mut Vec<Call>) -> Result<(), Gone> {
        let mut buffer = [0; READ];
        loop {
            match recv(self.outbox.socket(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Gone),
                Ok((count, _)) => {
                    self.decoder.feed(&buffer[..count], &mut self.events);
                    self.sort(calls);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Goes on writing what an earlier answer left; call it when the socket takes bytes again.
    pub fn writable(&mut self) -> Result<(), Gone> {
        self.outbox.flush().map_err(|_| Gone)
    }

    /// Calls that are not answered yet.
    pub fn open_calls(&self) -> usize {
        self.outbox.open_calls()
    }

    /// Whether answers wait for the client to read.
    pub fn has_unsent(&self) -> bool {
        self.outbox.has_unsent()
    }

    fn sort(&mut self, calls: &mut Vec<Call>) {
        for event in self.events.drain(..) {
            match self.intake.take(event) {
                Incoming::Ignored => {}
                Incoming::Refused { stream, status } => {
                    self.outbox.push(Response::frame(stream, Err(status)));
                }
                Incoming::Call { stream, .. } if self.outbox.open_calls() >= OPEN_CALLS => {
                    let status =
                        Status::new(Code::ResourceExhausted, "too many open calls on this connection");
                    self.outbox.push(Response::frame(stream, Err(status)));
                }
                Incoming::Call { stream, mut request } => calls.push(Call {
                    metadata: request.take_metadata(),
                    timeout: u64::try_from(request.timeout_nano)
                        .ok()
                        .filter(|nanos| *nanos > 0)
                        .map(Duration::from_nanos),
                    payload: request.payload,
                    service: request.service,
                    method: request.method,
                    responder: self.outbox.responder(stream),
                }),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.outbox.socket().as_fd()
    }
}

impl Drop for Connection {
    /// Responders that are still out keep the socket's descriptor; the shutdown tells the client that it is over.
    fn drop(&mut self) {
        self.outbox.close();
    }
}
