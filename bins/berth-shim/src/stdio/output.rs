//! A process' output for those who watch: its log, and the clients attached to it (see
//! [`berth_types::attach`] for the wire).
//!
//! Clients that asked to be waited for hold the container up when they do not read, as a pipe would; the others are
//! cut off when too much waits for them. Input comes from any client, in whole frames.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use berth_types::attach::{Decoder, HEADER, Pace, SOCKET, Stream, encode};
use berth_types::{Error, Result};
use rustix::io::{Errno, write};

use super::pump::Channel;
use super::record::Record;

/// What may wait for a client that is waited for before the container has to.
const CONGESTION: usize = 128 << 10;
/// What may wait for any other client before it is cut off.
const TOO_SLOW: usize = 1 << 20;
/// Input that the container has not taken; clients wait beyond it.
const INPUT: usize = 64 << 10;

/// Where input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Not from here.
    None,
    /// From clients, until `CloseIO`.
    Kept,
    /// From clients, until one of them says that it is over.
    Once,
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Recorded,
    Congested,
}

/// A log, a socket, and the clients on it.
#[derive(Debug)]
pub(crate) struct Output {
    log: Record,
    listener: UnixListener,
    socket: PathBuf,
    clients: BTreeMap<u64, Client>,
    input: Input,
    /// The way in is a terminal, which is everybody's and never closed.
    terminal: bool,
    /// The way into the container, and what it has not taken.
    feed: Option<OwnedFd>,
    pending: Vec<u8>,
    input_ended: bool,
    ended: Vec<Channel>,
    /// No stream is left.
    over: bool,
}

#[derive(Debug)]
struct Client {
    socket: UnixStream,
    decoder: Decoder,
    /// None until it has said how it reads.
    pace: Option<Pace>,
    unsent: VecDeque<Vec<u8>>,
    /// Bytes of the first of them that are sent, and of all that are not.
    sent: usize,
    waiting: usize,
    /// Nothing more will be sent; it goes once everything is.
    closing: bool,
    /// It is the one whose input the container reads, so that its end can be the input's.
    types: bool,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    Gone,
}

impl Output {
    pub(super) fn open(log: Record, bundle: &Path, input: Input, terminal: bool) -> Result<Self> {
        let socket = bundle.join(SOCKET);
        let failed = |e| Error::io(format!("cannot listen on {}", socket.display()), e);
        // Of an earlier task of the same bundle.
        let _ = std::fs::remove_file(&socket);
        let listener = berth_sys::local_socket::listen(bundle, SOCKET).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            log,
            listener,
            socket,
            clients: BTreeMap::new(),
            input,
            terminal,
            feed: None,
            pending: Vec::new(),
            input_ended: false,
            ended: Vec::new(),
            over: false,
        })
    }

    /// Gives the way into the container.
    pub(crate) fn feed(&mut self, to: OwnedFd) {
        if self.input != Input::None {
            self.feed = Some(to);
        }
    }

    /// The way into the container, for whoever watches its room.
    pub(crate) fn feed_fd(&self) -> Option<BorrowedFd<'_>> {
        self.feed.as_ref().map(AsFd::as_fd)
    }

    /// The next client, not yet heard.
    pub(crate) fn accept(&self) -> Option<UnixStream> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) if socket.set_nonblocking(true).is_ok() => return Some(socket),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// Takes a client in under a number of the caller's.
    pub(crate) fn admit(&mut self, number: u64, socket: UnixStream) {
        let decoder = Decoder::default();
        let client = Client {
            socket,
            decoder,
            pace: None,
            unsent: VecDeque::new(),
            sent: 0,
            waiting: 0,
            closing: false,
            types: false,
        };
        self.clients.insert(number, client);
    }

    /// A client's socket.
    pub(crate) fn client_fd(&self, number: u64) -> Option<BorrowedFd<'_>> {
        self.clients.get(&number).map(|client| client.socket.as_fd())
    }

    /// Goes on with a client in both directions; one that is gone is forgotten.
    pub(crate) fn serve(&mut self, number: u64) -> Fate {
        let Some(mut client) = self.clients.remove(&number) else { return Fate::Gone };
        if client.flush() == Fate::Gone || self.hear(&mut client) == Fate::Gone {
            // As with Docker's StdinOnce: the input was this client's, and it has left without a word.
            if client.types && self.input == Input::Once && !self.terminal {
                self.input_ended = true;
                self.pour();
            }
            return Fate::Gone;
        }
        self.clients.insert(number, client);
        Fate::Stays
    }

    fn hear(&mut self, client: &mut Client) -> Fate {
        let mut buffer = [0; 4096];
        while self.pending.len() < INPUT {
            let count = match client.socket.read(&mut buffer) {
                Ok(0) => return Fate::Gone,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Fate::Stays,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Fate::Gone,
            };
            let mut frames = Vec::new();
            if client.decoder.feed(&buffer[..count], &mut frames).is_err() {
                return Fate::Gone;
            }
            for frame in frames {
                match (frame.stream, client.pace) {
                    (Stream::Open, None) => {
                        let pace = Pace::of(&frame.payload);
                        client.pace = Some(pace);
                        client.types = pace == Pace::Wait;
                        client.push(Stream::Open, &[]);
                        for channel in &self.ended {
                            client.push(stream_of(*channel), &[]);
                        }
                        client.closing = self.over;
                        if client.flush() == Fate::Gone {
                            return Fate::Gone;
                        }
                    }
                    (Stream::Reopen, _) => {
                        let answer = self.log.reopen().err().map(|error| error.chain());
                        client.push(Stream::Reopen, answer.unwrap_or_default().as_bytes());
                        if client.flush() == Fate::Gone {
                            return Fate::Gone;
                        }
                    }
                    (Stream::Stdin, Some(_)) => {
                        client.types = true;
                        self.typed(&frame.payload);
                    }
                    _ => return Fate::Gone,
                }
            }
        }
        Fate::Stays
    }

    fn typed(&mut self, bytes: &[u8]) {
        if self.input_ended || self.feed.is_none() {
            return;
        }
        if bytes.is_empty() {
            self.input_ended = self.input == Input::Once;
        } else {
            self.pending.extend_from_slice(bytes);
        }
        self.pour();
    }

    /// Goes on with the input; true when clients that were made to wait should be heard again.
    pub(crate) fn pour(&mut self) -> bool {
        let waited = self.pending.len() >= INPUT;
        let Some(feed) = &self.feed else { return false };
        let mut done = 0;
        let mut broken = false;
        while done < self.pending.len() && !broken {
            match write(feed, &self.pending[done..]) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => broken = true,
            }
        }
        self.pending.drain(..done);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        if broken || (self.input_ended && self.pending.is_empty()) {
            self.close_input();
        }
        waited && self.pending.len() < INPUT
    }

    /// Ends the container's input.
    pub(crate) fn close_input(&mut self) {
        if !self.terminal {
            self.feed = None;
        }
        self.pending = Vec::new();
        self.input_ended = true;
    }

    /// Whether a client that is waited for has too much before it.
    pub(super) fn is_congested(&self) -> bool {
        self.clients.values().any(|client| client.pace == Some(Pace::Wait) && client.waiting > CONGESTION)
    }

    /// Records output and tells everybody. Clients that have to go are left for [`Output::leaving`].
    pub(super) fn take(&mut self, channel: Channel, bytes: &[u8]) -> Taken {
        self.log.write(channel, bytes);
        self.tell(channel, bytes);
        if self.is_congested() { Taken::Congested } else { Taken::Recorded }
    }

    /// Marks the end of a stream.
    pub(super) fn end(&mut self, channel: Channel) {
        self.log.end(channel);
        self.ended.push(channel);
        self.tell(channel, &[]);
    }

    /// After the last stream's end: clients are sent what they lack and then let go.
    pub(crate) fn finish(&mut self) {
        self.over = true;
        self.clients.values_mut().for_each(|client| {
            client.closing = true;
            client.flush();
        });
    }

    fn tell(&mut self, channel: Channel, bytes: &[u8]) {
        for client in self.clients.values_mut().filter(|client| client.pace.is_some() && !client.closing) {
            client.push(stream_of(channel), bytes);
            client.flush();
            if client.pace == Some(Pace::CutOff) && client.waiting > TOO_SLOW {
                client.cut_off();
            }
        }
    }

    /// Clients with nothing more to come.
    pub(crate) fn leaving(&self) -> Vec<u64> {
        let gone = self.clients.iter().filter(|(_, client)| client.closing && client.unsent.is_empty());
        gone.map(|(number, _)| *number).collect()
    }

    /// Everybody.
    pub(crate) fn everybody(&self) -> Vec<u64> {
        self.clients.keys().copied().collect()
    }

    /// Lets a client go.
    pub(crate) fn dismiss(&mut self, number: u64) {
        self.clients.remove(&number);
    }

    /// Bytes that the log lost.
    pub(crate) fn lost(&self) -> u64 {
        self.log.lost()
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // The bundle goes as a whole in the end.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Client {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        self.waiting += HEADER + bytes.len();
        self.unsent.push_back(encode(stream, bytes));
    }

    fn flush(&mut self) -> Fate {
        while let Some(frame) = self.unsent.front() {
            match self.socket.write(&frame[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.waiting -= count;
                    if self.sent == frame.len() {
                        self.sent = 0;
                        self.unsent.pop_front();
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Fate::Stays,
                Err(_) => {
                    self.unsent.clear();
                    (self.sent, self.waiting, self.closing) = (0, 0, true);
                    return Fate::Gone;
                }
            }
        }
        self.unsent = VecDeque::new();
        Fate::Stays
    }

    /// Drops what waits, but for the frame that is half sent, and says why.
    fn cut_off(&mut self) {
        let half = if self.sent > 0 { self.unsent.pop_front() } else { None };
        self.unsent.clear();
        self.waiting = half.as_ref().map_or(0, |frame| frame.len() - self.sent);
        self.unsent.extend(half);
        self.push(Stream::CutOff, b"the output came faster than it was read");
        self.closing = true;
    }
}

fn stream_of(channel: Channel) -> Stream {
    if channel == Channel::Stderr { Stream::Stderr } else { Stream::Stdout }
}
