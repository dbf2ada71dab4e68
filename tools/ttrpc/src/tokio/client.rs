//! A client on which many calls are in flight at once.
//!
//! Two tasks own the socket, one reads and one writes whole frames; both end with the last clone of the client or
//! with the connection. A call that is dropped half-way (deadline, cancellation) leaves no trace but an answer that
//! nobody waits for: it never tears a frame.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::{Sink, Source};
use crate::frame::{Decoder, Event, FrameType, oversize};
use crate::wire::{Request, Response};
use crate::{Code, Error, Metadata, Status};

/// Requests that wait to be written; a caller beyond them waits for its place.
const QUEUE: usize = 64;
/// There is one of these for every shim; answers are short.
const READ: usize = 4 << 10;

/// One connection to a server. Clones share it; the last one closes it.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    owner: Arc<Tasks>,
    metadata: Metadata,
}

#[derive(Debug)]
struct Shared {
    /// Encoded frames on their way to the writer.
    outgoing: mpsc::Sender<Vec<u8>>,
    calls: Mutex<Calls>,
    closed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Calls {
    /// Stream ids are odd and increase in the order of the wire.
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<Result<Vec<u8>, Error>>>,
    closed: bool,
}

/// Ends the two tasks when the last client goes.
#[derive(Debug)]
struct Tasks([AbortHandle; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Client {
    /// Connects to the unix socket at `path`.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        Ok(Self::from_stream(UnixStream::connect(path).await?))
    }

    /// Speaks over a connected socket. Called within a tokio runtime.
    pub fn from_stream(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self::from_link(read, write)
    }

    /// Speaks over something else than a socket of its own. Called within a tokio runtime.
    pub fn from_link(read: impl Source, write: impl Sink) -> Self {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let calls = Mutex::new(Calls { next: 1, waiting: HashMap::new(), closed: false });
        let shared = Arc::new(Shared { outgoing, calls, closed: watch::Sender::new(false) });
        let reader = tokio::spawn(receive(read, shared.clone())).abort_handle();
        let writer = tokio::spawn(send(write, queue, shared.clone())).abort_handle();
        Self { shared, owner: Arc::new(Tasks([reader, writer])), metadata: Metadata::default() }
    }

    /// The same connection with these headers on every call.
    pub fn with_metadata(&self, metadata: Metadata) -> Self {
        Self { shared: self.shared.clone(), owner: self.owner.clone(), metadata }
    }

    /// Calls `service`/`method` and waits for the answer, at most `timeout`. Cancel-safe.
    pub async fn call<Req: Message, Resp: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &Req,
        timeout: Option<Duration>,
    ) -> Result<Resp, Error> {
        let payload = self.call_raw(service, method, request.encode_to_vec(), timeout).await?;
        Ok(Resp::decode(payload.as_slice())?)
    }

    /// The same with encoded messages.
    pub async fn call_raw(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        timeout: Option<Duration>,
    ) -> Result<Vec<u8>, Error> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: timeout.map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX)),
            metadata: (&self.metadata).into(),
        };
        let answer = self.dispatch(request);
        match timeout {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or(Err(Error::Timeout)),
        }
    }

    /// Resolves when the connection has ended, whoever ended it. Cancel-safe.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // The sender lives in `self.shared`, so the wait cannot fail while `self` is borrowed.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        *self.shared.closed.borrow()
    }

    async fn dispatch(&self, request: Request) -> Result<Vec<u8>, Error> {
        let place = self.shared.outgoing.reserve().await.map_err(|_| Error::Closed)?;
        let (answered, answer) = oneshot::channel();
        let stream = {
            let mut calls = self.shared.calls();
            if calls.closed {
                return Err(Error::Closed);
            }
            let stream = calls.next;
            let frame = request.into_frame(stream)?;
            calls.next = stream.checked_add(2).ok_or(Error::Closed)?;
            calls.waiting.insert(stream, answered);
            // Under the lock, so that ids reach the wire in order; the place is reserved, so this does not wait.
            place.send(frame);
            stream
        };
        let _entry = Entry { shared: &self.shared, stream };
        answer.await.unwrap_or(Err(Error::Closed))
    }
}

/// Removes a call that is over or was dropped.
struct Entry<'a> {
    shared: &'a Shared,
    stream: u32,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.shared.calls().waiting.remove(&self.stream);
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, stream: u32, result: Result<Vec<u8>, Error>) {
        let waiter = self.calls().waiting.remove(&stream);
        if let Some(waiter) = waiter {
            // The caller may have given up at this moment.
            let _ = waiter.send(result);
        }
    }

    /// Tells every waiter that the connection is over.
    fn close(&self) {
        let waiting = {
            let mut calls = self.calls();
            calls.closed = true;
            std::mem::take(&mut calls.waiting)
        };
        drop(waiting);
        self.closed.send_replace(true);
    }

    fn take(&self, event: Event) {
        match event {
            Event::Oversize { stream, length } => {
                self.finish(stream, Err(Error::Status(oversize(length as usize))));
            }
            Event::Frame(frame) if frame.kind == FrameType::Response => {
                let result = match Response::decode(frame.data.as_slice()) {
                    Ok(response) => response.into_result().map_err(Error::Status),
                    Err(error) => Err(Error::Decode(error)),
                };
                self.finish(frame.stream, result);
            }
            Event::Frame(frame) if frame.kind == FrameType::Data => {
                let status = Status::new(Code::Internal, "stream data in answer to a unary call");
                self.finish(frame.stream, Err(Error::Status(status)));
            }
            // A kind of a later version of the protocol.
            Event::Frame(_) => {}
        }
    }
}

async fn receive(mut socket: impl Source, shared: Arc<Shared>) {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    let mut buffer = vec![0; READ];
    while let Ok(count) = socket.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        decoder.feed(&buffer[..count], &mut events);
        events.drain(..).for_each(|event| shared.take(event));
    }
    shared.close();
}

async fn send(mut socket: impl Sink, mut queue: mpsc::Receiver<Vec<u8>>, shared: Arc<Shared>) {
    while let Some(frame) = queue.recv().await {
        if socket.write(frame).await.is_err() {
            break;
        }
    }
    shared.close();
}
