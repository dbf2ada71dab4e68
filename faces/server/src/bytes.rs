//! Bytes over a stream of the streaming service, as containerd's clients send and take them: pieces in `Data`, as
//! many as the other end allows by `WindowUpdate`.
//!
//! Archives are read and written by threads, so each direction is a task between the stream and a queue. The queue
//! and the window bound what is in memory; a stream that breaks breaks the thread's reads and writes.

use std::io::{self, Read, Write};
use std::time::Duration;

use berth_proto as proto;
use bytes::{Buf, Bytes};
use proto::containerd::types::transfer::{Data, WindowUpdate};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use crate::streaming::{Pipe, packed, unpacked};

/// What the client may send before the next update. Two of them fit well into what one connection may have under
/// way, so that a slow import does not hold up its client's other calls.
const WINDOW: i32 = 256 << 10;
/// The longest piece; Go's clients send no longer ones.
const PIECE: usize = 32 << 10;
/// Pieces that may wait for the thread.
const QUEUE: usize = 16;
/// How long a client may take for its last bytes before it is answered all the same.
pub(crate) const LAST: Duration = Duration::from_secs(2);

/// What a client sends, for a thread to read.
pub(crate) struct Received {
    pieces: mpsc::Receiver<Result<Bytes, Status>>,
    rest: Bytes,
}

impl Received {
    /// The bytes of a pipe, and the task that brings them. The task ends with the stream or with the reader.
    pub(crate) fn of(pipe: Pipe) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, pieces) = mpsc::channel(QUEUE);
        (Self { pieces, rest: Bytes::new() }, receive(pipe, queue))
    }
}

async fn receive(mut pipe: Pipe, queue: mpsc::Sender<Result<Bytes, Status>>) {
    let mut allowed: i32 = 0;
    loop {
        if allowed < WINDOW {
            let update = packed(&WindowUpdate { update: WINDOW });
            // A client that has sent everything listens no more.
            let _ = pipe.outgoing.send(Ok(update)).await;
            allowed += WINDOW;
        }
        let piece = tokio::select! {
            piece = pipe.incoming.message() => piece,
            () = queue.closed() => return,
        };
        let piece = match piece {
            Ok(Some(message)) => unpacked::<Data>(message)
                .map(|Data { data }| data)
                .map_err(|error| Status::invalid_argument(error.chain())),
            // To tonic a client that has cancelled its stream is one that has said everything.
            Ok(None) if pipe.outgoing.is_closed() => Err(Status::cancelled("the client has gone")),
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let last = piece.is_err();
        if let Ok(data) = &piece {
            allowed = allowed.saturating_sub(i32::try_from(data.len()).unwrap_or(i32::MAX));
        }
        if queue.send(piece).await.is_err() || last {
            return;
        }
    }
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(status)) => return Err(io::Error::other(status)),
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Where a thread writes what a client is to get.
pub(crate) struct Sent(mpsc::Sender<Bytes>);

impl Sent {
    /// A writer to a pipe, and the task that brings the bytes away. The task ends when the writer is dropped and
    /// the client has everything, or with the client.
    pub(crate) fn to(pipe: Pipe) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, pieces) = mpsc::channel(QUEUE);
        (Self(queue), send(pipe, pieces))
    }

    /// Writes from a task. An error says that the client has gone.
    pub(crate) async fn give(&self, data: Bytes) -> Result<(), mpsc::error::SendError<Bytes>> {
        self.0.send(data).await
    }
}

/// What a client lets us send.
#[derive(Default)]
struct Allowance {
    left: usize,
    /// The client's first update: its own window.
    window: usize,
}

impl Allowance {
    /// Waits for an update; false when the client has gone.
    async fn grow(&mut self, pipe: &mut Pipe) -> bool {
        let Ok(Some(message)) = pipe.incoming.message().await else { return false };
        let update = unpacked::<WindowUpdate>(message).map_or(0, |window| window.update);
        let update = usize::try_from(update).unwrap_or(0);
        self.left = self.left.saturating_add(update).min(i32::MAX as usize);
        if self.window == 0 {
            self.window = update;
        }
        true
    }
}

async fn send(mut pipe: Pipe, mut pieces: mpsc::Receiver<Bytes>) {
    let mut allowed = Allowance::default();
    loop {
        let next = tokio::select! {
            piece = pieces.recv() => piece,
            () = pipe.outgoing.closed() => return,
        };
        let Some(mut piece) = next else { break };
        while !piece.is_empty() {
            while allowed.left == 0 {
                if !allowed.grow(&mut pipe).await {
                    return;
                }
            }
            let data = piece.split_to(piece.len().min(allowed.left).min(PIECE));
            allowed.left -= data.len();
            if pipe.outgoing.send(Ok(packed(&Data { data }))).await.is_err() {
                return;
            }
        }
    }
    // containerd's clients end their process once they are answered, whether their last bytes are written or not.
    // Each update says how far they are: it comes when less than a window is left.
    let taken = async { while allowed.left < allowed.window && allowed.grow(&mut pipe).await {} };
    // One that counts in another way is not waited for.
    let _ = timeout(LAST, taken).await;
}

impl Write for Sent {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let data = &data[..data.len().min(PIECE)];
        self.0.blocking_send(Bytes::copy_from_slice(data)).map_err(gone)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
