//! The state of a connection, without I/O. Whoever changes it wakes whom it concerns.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::sync::watch;

use super::lane::{Opened, Reader, Writer};
use super::protocol::{Broken, Opening, Protocol, Said};
use super::{INBOUND, OUT, OUT_FULL, PIECE, Patience};
use crate::session::Gone;

/// A connection as its session holds it.
#[derive(Clone)]
pub(crate) struct Mux {
    shared: Arc<Mutex<State>>,
    gone: watch::Receiver<bool>,
}

pub(super) struct State {
    protocol: Box<dyn Protocol>,
    lanes: HashMap<u32, Lane>,
    /// The most lanes at one time.
    most: usize,
    /// Streams that the peer opened and nobody has taken yet.
    opened: VecDeque<(u32, Opening)>,
    /// Frames to be sent.
    out: BytesMut,
    /// Bytes in all lanes.
    inbound: usize,
    patience: Patience,
    finished: bool,
    gone: watch::Sender<bool>,
    /// Who waits: the driver, and whoever takes streams.
    driver: Option<Waker>,
    taker: Option<Waker>,
}

#[derive(Default)]
struct Lane {
    inbound: BytesMut,
    /// The peer sends no more.
    ended: bool,
    /// It is over in both directions.
    reset: bool,
    /// Nobody reads any more: bytes are thrown away.
    unread: bool,
    /// Nothing more is sent.
    finished: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Mux {
    /// A connection of at most `most` streams at one time, of which the peer opens each.
    pub(crate) fn new(protocol: Box<dyn Protocol>, most: usize) -> Self {
        let (sender, gone) = watch::channel(false);
        let state = State {
            protocol,
            lanes: HashMap::new(),
            most,
            opened: VecDeque::new(),
            out: BytesMut::new(),
            inbound: 0,
            patience: Patience::new(),
            finished: false,
            gone: sender,
            driver: None,
            taker: None,
        };
        Self { shared: Arc::new(Mutex::new(state)), gone }
    }

    /// A stream that is there without being opened.
    pub(crate) fn lane(&self, lane: u32) -> (Reader, Writer) {
        self.lock().lanes.insert(lane, Lane::default());
        self.ends(lane)
    }

    fn ends(&self, lane: u32) -> (Reader, Writer) {
        (Reader { lane, mux: self.clone() }, Writer { lane, mux: self.clone() })
    }

    /// The next stream that the peer opens; none once it is gone.
    pub(crate) async fn next(&self) -> Option<Opened> {
        let (lane, opening) = poll_fn(|cx| self.lock().poll_opened(cx)).await?;
        let (reader, writer) = self.ends(lane);
        Some(Opened { lane, opening, reader, writer })
    }

    /// The session is over: what waits to be sent is sent, then the connection ends.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        state.wake_driver();
    }

    /// The peer's absence, to be waited for.
    pub(crate) fn gone(&self) -> Gone {
        Gone::new(self.gone.clone())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Appends bytes from the peer and does what they say, as far as there is room for it.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Progress, Broken> {
        self.protocol.incoming().extend_from_slice(bytes);
        loop {
            if self.inbound >= INBOUND || self.out.len() >= OUT_FULL {
                return Ok(Progress::Stalled);
            }
            match self.protocol.take(&mut self.out)? {
                None => {
                    self.trim();
                    return Ok(Progress::Hungry);
                }
                Some(Said::Farewell) => return Ok(Progress::Farewell),
                Some(said) => self.heed(said)?,
            }
        }
    }

    /// Lets the memory of a burst go once nothing of it is left.
    fn trim(&mut self) {
        let incoming = self.protocol.incoming();
        if incoming.is_empty() {
            *incoming = BytesMut::new();
        }
    }

    fn heed(&mut self, said: Said) -> Result<(), Broken> {
        let carries = match said {
            Said::Data { lane, bytes, ended } => {
                let carries = !bytes.is_empty();
                self.deliver(lane, bytes, ended);
                carries
            }
            Said::Opened { lane, opening, ended } => self.open(lane, opening, ended),
            Said::Reset(lane) => {
                self.end_lane(lane, true);
                false
            }
            Said::Settled => {
                self.wake_writers();
                false
            }
            Said::Farewell => false,
        };
        if carries {
            self.patience.earn();
            Ok(())
        } else if self.patience.spend() {
            Ok(())
        } else {
            Err(Broken::Chatter)
        }
    }

    fn open(&mut self, lane: u32, opening: Opening, ended: bool) -> bool {
        if self.lanes.len() >= self.most {
            self.protocol.reset(lane, true, &mut self.out);
            return false;
        }
        self.protocol.accept(lane, &mut self.out);
        self.lanes.insert(lane, Lane { ended, ..Lane::default() });
        self.opened.push_back((lane, opening));
        wake(&mut self.taker);
        true
    }

    fn deliver(&mut self, lane: u32, bytes: Bytes, ended: bool) {
        match self.lanes.get_mut(&lane) {
            Some(it) if !it.unread && !it.ended => {
                it.inbound.extend_from_slice(&bytes);
                self.inbound += bytes.len();
                wake(&mut it.reader);
            }
            _ => self.protocol.consumed(lane, bytes.len(), &mut self.out),
        }
        if ended {
            self.end_lane(lane, false);
        }
    }

    fn end_lane(&mut self, lane: u32, reset: bool) {
        let Some(it) = self.lanes.get_mut(&lane) else { return };
        it.ended = true;
        it.reset |= reset;
        wake(&mut it.reader);
        if reset {
            wake(&mut it.writer);
        }
        self.bury(lane);
    }

    /// Forgets a lane that nobody holds.
    fn bury(&mut self, lane: u32) {
        let Some(it) = self.lanes.get(&lane) else { return };
        if !(it.unread && it.finished) {
            return;
        }
        if !it.ended {
            self.protocol.reset(lane, false, &mut self.out);
        }
        self.lanes.remove(&lane);
        self.protocol.forget(lane);
        self.wake_driver();
    }

    fn poll_opened(&mut self, cx: &Context<'_>) -> Poll<Option<(u32, Opening)>> {
        if let Some(opened) = self.opened.pop_front() {
            return Poll::Ready(Some(opened));
        }
        if self.is_gone() {
            return Poll::Ready(None);
        }
        self.taker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn poll_read(
        &mut self,
        lane: u32,
        cx: &Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gone = self.is_gone();
        let Some(it) = self.lanes.get_mut(&lane) else { return Poll::Ready(Ok(())) };
        if it.inbound.is_empty() {
            return match it {
                Lane { reset: true, .. } => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Lane { ended: true, .. } => Poll::Ready(Ok(())),
                _ if gone => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                _ => {
                    it.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let count = it.inbound.len().min(into.remaining());
        into.put_slice(&it.inbound[..count]);
        it.inbound.advance(count);
        if it.inbound.is_empty() {
            // An idle stream keeps no memory of its last burst.
            it.inbound = BytesMut::new();
        }
        self.released(lane, count);
        Poll::Ready(Ok(()))
    }

    fn released(&mut self, lane: u32, count: usize) {
        let was_full = self.inbound >= INBOUND;
        self.inbound -= count;
        let waiting = self.out.len();
        self.protocol.consumed(lane, count, &mut self.out);
        if was_full || self.out.len() > waiting {
            self.wake_driver();
        }
    }

    pub(super) fn poll_write(
        &mut self,
        lane: u32,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = self.is_gone();
        let Some(it) = self.lanes.get_mut(&lane) else { return broken() };
        if gone || it.reset || it.finished {
            return broken();
        }
        let room = self.protocol.room(lane);
        if self.out.len() >= OUT || room == 0 {
            it.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(PIECE).min(room);
        self.protocol.send(lane, &bytes[..count], &mut self.out);
        self.patience.earn();
        self.wake_driver();
        Poll::Ready(Ok(count))
    }

    /// Sends nothing more on `lane`.
    pub(super) fn end(&mut self, lane: u32) {
        let Some(it) = self.lanes.get_mut(&lane) else { return };
        if it.finished {
            return;
        }
        it.finished = true;
        if !it.reset {
            self.protocol.end(lane, &mut self.out);
        }
        self.wake_driver();
        self.bury(lane);
    }

    /// Throws away what is there and what comes on `lane`.
    pub(super) fn unread(&mut self, lane: u32) {
        let Some(it) = self.lanes.get_mut(&lane) else { return };
        it.unread = true;
        let count = std::mem::take(&mut it.inbound).len();
        self.released(lane, count);
        self.bury(lane);
    }

    /// Sends the headers of an answer that no stream waits for: a message without bytes.
    pub(super) fn greet(&mut self, lane: u32) {
        self.protocol.send(lane, &[], &mut self.out);
        self.wake_driver();
    }

    /// What is to be sent, if anything is. Writers that waited go on.
    pub(super) fn outgoing(&mut self) -> BytesMut {
        // Taken whole: an idle connection keeps no memory of its last burst.
        let out = std::mem::take(&mut self.out);
        if !out.is_empty() {
            self.wake_writers();
        }
        out
    }

    pub(super) fn heartbeat(&mut self) {
        self.protocol.heartbeat(&mut self.out);
    }

    pub(super) fn farewell(&mut self, fault: bool) {
        self.protocol.farewell(fault, &mut self.out);
    }

    pub(super) fn peer_leaves_first(&self) -> bool {
        self.protocol.peer_leaves_first()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(super) fn set_driver(&mut self, cx: &Context<'_>) {
        self.driver = Some(cx.waker().clone());
    }

    /// The peer is no more: everybody who waits hears of it.
    pub(super) fn set_gone(&mut self) {
        self.gone.send_replace(true);
        self.out = BytesMut::new();
        self.wake_writers();
        self.lanes.values_mut().for_each(|lane| wake(&mut lane.reader));
        wake(&mut self.taker);
    }

    fn wake_driver(&mut self) {
        wake(&mut self.driver);
    }

    fn wake_writers(&mut self) {
        self.lanes.values_mut().for_each(|lane| wake(&mut lane.writer));
    }
}

/// What came of the bytes of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bytes are needed.
    Hungry,
    /// There is no room for more.
    Stalled,
    /// The peer leaves.
    Farewell,
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn broken<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}
