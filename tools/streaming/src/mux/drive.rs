//! Between a connection's state and its transport.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep, timeout};

use super::protocol::Broken;
use super::state::{Mux, Progress};

/// Bytes that are read at once.
const READ: usize = 16 << 10;
/// How often a peer that nothing is read from is looked after.
const BEAT: Duration = Duration::from_secs(1);
/// Beats until such a peer gets a sign of life.
const BEATS: u32 = 5;
/// How long the last bytes of a session may take.
const LAST_BYTES: Duration = Duration::from_secs(60);
/// How long a peer may take to leave.
const PARTING: Duration = Duration::from_secs(3);

/// What carries a connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// Whether the peer has closed it, also when there are bytes left to read.
    fn is_hung_up(&self) -> bool;
}

/// Moves bytes until the connection is over. It is polled beside its session, in the same task.
pub(crate) struct Driver<T> {
    transport: T,
    mux: Mux,
    sending: BytesMut,
    progress: Progress,
    active: Instant,
    idle: Pin<Box<Sleep>>,
    patience: Duration,
    beat: Interval,
    beats: u32,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    Gone,
    Farewell,
    Finished,
    Idle,
    Broken(Broken),
}

impl<T: Transport> Driver<T> {
    /// A connection that ends after `patience` without a byte.
    pub(crate) fn new(transport: T, mux: Mux, patience: Duration) -> Self {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            transport,
            mux,
            sending: BytesMut::new(),
            progress: Progress::Hungry,
            active: Instant::now(),
            idle: Box::pin(sleep(patience)),
            patience,
            beat,
            beats: 0,
        }
    }

    /// Runs the connection to its end, and closes it. `first` came together with the request.
    pub(crate) async fn run(mut self, first: &[u8]) {
        let advanced = self.mux.lock().advance(first);
        let end = match advanced {
            Ok(progress) => {
                self.progress = progress;
                std::future::poll_fn(|cx| self.poll(cx)).await
            }
            Err(broken) => End::Broken(broken),
        };
        self.leave(end).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.mux.lock().set_driver(cx);
        loop {
            if let Poll::Ready(end) = self.poll_receive(cx) {
                return Poll::Ready(end);
            }
            if let Poll::Ready(Err(_)) = self.poll_send(cx) {
                return Poll::Ready(End::Gone);
            }
            if self.mux.lock().is_finished() {
                return Poll::Ready(End::Finished);
            }
            if self.poll_idle(cx).is_ready() {
                return Poll::Ready(End::Idle);
            }
            if self.progress != Progress::Stalled {
                return Poll::Pending;
            }
            // What was sent may have made room. Otherwise nothing is read now, and the peer's end has no other way
            // to be seen.
            match self.mux.lock().advance(&[]) {
                Ok(Progress::Stalled) => {}
                Ok(progress) => {
                    self.progress = progress;
                    continue;
                }
                Err(broken) => return Poll::Ready(End::Broken(broken)),
            }
            ready!(self.beat.poll_tick(cx));
            if self.transport.is_hung_up() {
                return Poll::Ready(End::Gone);
            }
            self.beats = (self.beats + 1) % BEATS;
            if self.beats == 0 {
                self.mux.lock().heartbeat();
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut space = [MaybeUninit::uninit(); READ];
        loop {
            match self.progress {
                Progress::Farewell => return Poll::Ready(End::Farewell),
                Progress::Stalled => return Poll::Pending,
                Progress::Hungry => {}
            }
            let mut buffer = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(End::Gone),
            }
            self.active = Instant::now();
            match self.mux.lock().advance(buffer.filled()) {
                Ok(progress) => self.progress = progress,
                Err(broken) => return Poll::Ready(End::Broken(broken)),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.sending.is_empty() {
                self.sending = self.mux.lock().outgoing();
            }
            if self.sending.is_empty() {
                return Pin::new(&mut self.transport).poll_flush(cx);
            }
            let count = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.sending))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sending.advance(count);
            self.active = Instant::now();
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.idle.as_mut().poll(cx).is_ready() {
            let end = self.active + self.patience;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            self.idle.as_mut().reset(end);
        }
        Poll::Pending
    }

    async fn leave(mut self, end: End) {
        if let End::Finished = end {
            self.part().await;
            self.mux.lock().set_gone();
            return;
        }
        match &end {
            End::Broken(why) => tracing::info!(%why, "a streaming client broke the rules of its protocol"),
            other => tracing::debug!(end = ?other, "a streaming connection ended before its session"),
        }
        {
            let mut state = self.mux.lock();
            if let End::Broken(_) | End::Idle = end {
                state.farewell(matches!(end, End::Broken(_)));
            }
            let last = state.outgoing();
            self.sending.extend_from_slice(&last);
            state.set_gone();
        }
        if !matches!(end, End::Gone) {
            // Whether the peer hears that does not matter any more.
            let _ = timeout(PARTING, self.close()).await;
        }
    }

    /// Sends what is left of a session that is over, and closes in such an order that the peer gets it: a socket
    /// that is closed with unread bytes in it takes those with it that are still on their way to the peer.
    async fn part(&mut self) {
        if !matches!(timeout(LAST_BYTES, self.flush()).await, Ok(Ok(()))) {
            return;
        }
        if self.mux.lock().peer_leaves_first() && timeout(PARTING, self.discard()).await.is_ok() {
            return;
        }
        self.mux.lock().farewell(false);
        let _ = timeout(PARTING, self.close()).await;
    }

    async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.transport.shutdown().await?;
        self.discard().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            self.mux.lock().set_driver(cx);
            self.poll_send(cx)
        })
        .await
    }

    /// Reads until there is nothing more to come.
    async fn discard(&mut self) -> io::Result<()> {
        let mut space = Box::new([0; 4096]);
        while self.transport.read(&mut *space).await? > 0 {}
        Ok(())
    }
}
