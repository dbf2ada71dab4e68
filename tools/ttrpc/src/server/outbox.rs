//! What waits to be written to one client, and the object with which a call is answered.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send};

use crate::wire::Response;
use crate::{Code, Status};

/// A client that leaves this many bytes of answers unread is dropped.
const LIMIT: usize = 8 << 20;

/// The sending half of a connection, shared by its responders.
#[derive(Debug)]
pub(super) struct Outbox {
    socket: UnixStream,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
    /// Calls that are not answered yet.
    open: usize,
    gone: bool,
}

impl Outbox {
    pub(super) fn new(socket: UnixStream) -> Arc<Self> {
        Arc::new(Self { socket, queue: Mutex::default() })
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Appends a frame and writes what the socket takes without waiting.
    ///
    /// The lock is held over that write so that frames do not mix; `MSG_DONTWAIT` keeps it short.
    pub(super) fn push(&self, frame: Vec<u8>) {
        let mut queue = self.lock();
        if queue.gone {
            return;
        }
        if queue.bytes.is_empty() {
            queue.bytes = frame;
        } else {
            queue.bytes.extend_from_slice(&frame);
        }
        if self.drain(&mut queue).is_err() || queue.bytes.len() - queue.sent > LIMIT {
            self.give_up(&mut queue);
        }
    }

    /// Goes on with what is left, when the socket takes bytes again.
    pub(super) fn flush(&self) -> io::Result<()> {
        let mut queue = self.lock();
        let result = self.drain(&mut queue);
        if result.is_err() {
            self.give_up(&mut queue);
        }
        result
    }

    /// Forgets what is unsent; later answers go nowhere.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        self.give_up(&mut queue);
    }

    pub(super) fn open_calls(&self) -> usize {
        self.lock().open
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.lock().bytes.is_empty()
    }

    pub(super) fn responder(self: &Arc<Self>, stream: u32) -> Responder {
        self.lock().open += 1;
        Responder { outbox: self.clone(), stream, answered: false }
    }

    fn drain(&self, queue: &mut Queue) -> io::Result<()> {
        while queue.sent < queue.bytes.len() {
            match send(&self.socket, &queue.bytes[queue.sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => queue.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        // The buffer is given back: an idle connection costs nothing.
        queue.bytes = Vec::new();
        queue.sent = 0;
        Ok(())
    }

    /// Shuts the socket down; the poll loop then sees the end and drops the connection.
    fn give_up(&self, queue: &mut Queue) {
        queue.gone = true;
        queue.bytes = Vec::new();
        queue.sent = 0;
        // Fails only when the peer has shut it down already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to answer one call, once, from whatever thread. Dropped without an answer it answers `Internal`.
#[derive(Debug)]
pub struct Responder {
    outbox: Arc<Outbox>,
    stream: u32,
    answered: bool,
}

impl Responder {
    /// Answers with an encoded message or a failure. Never blocks; a client that has gone is no error.
    pub fn send(mut self, result: Result<Vec<u8>, Status>) {
        self.answer(result);
    }

    /// Encodes and answers.
    pub fn send_message<M: prost::Message>(self, result: Result<M, Status>) {
        self.send(result.map(|message| message.encode_to_vec()));
    }

    /// Whether the client has gone, so that nobody will hear the answer.
    pub fn is_gone(&self) -> bool {
        self.outbox.lock().gone
    }

    fn answer(&mut self, result: Result<Vec<u8>, Status>) {
        self.answered = true;
        self.outbox.push(Response::frame(self.stream, result));
        self.outbox.lock().open -= 1;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Err(Status::new(Code::Internal, "the call was dropped without an answer")));
        }
    }
}
