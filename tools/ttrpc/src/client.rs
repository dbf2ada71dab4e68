//! A client that blocks: one call at a time, each with a deadline.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::frame::{Decoder, Event, FrameType, oversize};
use crate::wire::{Request, Response};
use crate::{Error, Metadata};

const READ: usize = 4 << 10;

/// One connection to a server.
///
/// After [`Error::Closed`] or [`Error::Io`] every further call fails at once with [`Error::Closed`]; the owner
/// connects anew. [`Error::Timeout`] keeps the connection unless it struck within a frame.
#[derive(Debug)]
pub struct Client {
    socket: Option<UnixStream>,
    decoder: Decoder,
    next: u32,
    metadata: Metadata,
}

impl Client {
    /// Connects to the unix socket at `path`. A server that does not accept holds this up, but a unix socket with
    /// room in its queue connects at once.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        Ok(Self::from_stream(UnixStream::connect(path)?))
    }

    /// Speaks over a connected socket.
    pub fn from_stream(socket: UnixStream) -> Self {
        Self { socket: Some(socket), decoder: Decoder::default(), next: 1, metadata: Metadata::default() }
    }

    /// Sends these headers with every call.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Calls `service`/`method` and waits for the answer, at most `timeout`.
    pub fn call<Req: Message, Resp: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        request: &Req,
        timeout: Duration,
    ) -> Result<Resp, Error> {
        let payload = self.call_raw(service, method, request.encode_to_vec(), timeout)?;
        Ok(Resp::decode(payload.as_slice())?)
    }

    /// The same with encoded messages.
    pub fn call_raw(
        &mut self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, Error> {
        let deadline = Instant::now() + timeout;
        let stream = self.next;
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX),
            metadata: (&self.metadata).into(),
        };
        let frame = request.into_frame(stream)?;
        self.next = stream.checked_add(2).ok_or(Error::Closed)?;
        let result = self.write(&frame, deadline).and_then(|()| self.answer(stream, deadline));
        if matches!(result, Err(Error::Closed | Error::Io(_))) {
            self.socket = None;
        }
        result
    }

    fn write(&mut self, frame: &[u8], deadline: Instant) -> Result<(), Error> {
        let socket = self.socket.as_ref().ok_or(Error::Closed)?;
        let mut sent = 0;
        while sent < frame.len() {
            match send(socket, &frame[sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match wait(socket, PollFlags::OUT, deadline) {
                    // A frame cut off would be completed by the next call's bytes.
                    Err(Error::Timeout) if sent > 0 => {
                        self.socket = None;
                        return Err(Error::Timeout);
                    }
                    waited => waited?,
                },
                Err(error) => return Err(closed_or(error)),
            }
        }
        Ok(())
    }

    fn answer(&mut self, stream: u32, deadline: Instant) -> Result<Vec<u8>, Error> {
        let socket = self.socket.as_ref().ok_or(Error::Closed)?;
        let mut events = Vec::new();
        let mut buffer = [0; READ];
        loop {
            match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Error::Closed),
                Ok((count, _)) => self.decoder.feed(&buffer[..count], &mut events),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(socket, PollFlags::IN, deadline)?,
                Err(error) => return Err(closed_or(error)),
            }
            if let Some(result) = events.drain(..).find_map(|event| answer_of(event, stream)) {
                return result;
            }
        }
    }
}

/// What an event says about the call on `stream`; answers to calls that were given up are passed over.
fn answer_of(event: Event, stream: u32) -> Option<Result<Vec<u8>, Error>> {
    match event {
        Event::Oversize { stream: of, length } if of == stream => {
            Some(Err(Error::Status(oversize(length as usize))))
        }
        Event::Frame(frame) if frame.stream == stream && frame.kind == FrameType::Response => {
            Some(match Response::decode(frame.data.as_slice()) {
                Ok(response) => response.into_result().map_err(Error::Status),
                Err(error) => Err(Error::Decode(error)),
            })
        }
        Event::Oversize { .. } | Event::Frame(_) => None,
    }
}

fn wait(socket: &UnixStream, flags: PollFlags, deadline: Instant) -> Result<(), Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::Timeout);
    }
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
        Ok(0) => Err(Error::Timeout),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(Error::Io(error.into())),
    }
}

fn closed_or(error: Errno) -> Error {
    match error {
        Errno::PIPE | Errno::CONNRESET => Error::Closed,
        other => Error::Io(other.into()),
    }
}
