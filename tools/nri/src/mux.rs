//! Two ttrpc connections on one socket: NRI's multiplexer.
//!
//! ```text
//!  0            4        8
//!  | connection | length | bytes … |        both big-endian, length ≤ 4 MiB + 10
//! ```
//! On connection 1 the plugin answers, on connection 2 the runtime does; nothing announces them, and frames of
//! other connections are passed over. A longer frame is garbage and ends the socket.
//!
//! Upstream's reader takes a frame into the buffer of a `bufio.Reader` (4096 bytes) or into what is left of the
//! message that it expects, and gives up when the frame is longer than that. So a message goes out as upstream's
//! writer cuts it: its first 4096 bytes, then the rest.

use std::io;

use berth_ttrpc::frame::{HEADER as MESSAGE_HEADER, MAX_DATA};
use berth_ttrpc::tokio::{Sink, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

const HEADER: usize = 8;
/// The longest frame: one ttrpc message.
const MAX_FRAME: usize = MESSAGE_HEADER + MAX_DATA;
/// What upstream's reader takes at once when it expects nothing in particular.
const FIRST_PIECE: usize = 4096;
/// How much of a frame is passed on at once, whatever its length.
const PIECE: usize = 64 << 10;
/// Pieces that wait for their reader; beyond them the socket is not read.
const QUEUE: usize = 16;

const PLUGIN: u32 = 1;
const RUNTIME: u32 = 2;

/// A socket with its two connections. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct Mux([AbortHandle; 2]);

/// One side of one connection: what is read.
#[derive(Debug)]
pub(crate) struct Incoming {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    taken: usize,
}

/// The other: what is written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    connection: u32,
    frames: mpsc::Sender<(u32, Vec<u8>)>,
}

/// A connection, both ways.
pub(crate) type Link = (Incoming, Outgoing);

impl Mux {
    /// Takes a socket over: the connection on which the plugin answers, and the one on which the runtime does.
    /// Called within a tokio runtime.
    pub(crate) fn open(socket: UnixStream) -> (Self, Link, Link) {
        let (read, write) = socket.into_split();
        let (frames, queue) = mpsc::channel(QUEUE);
        let link = |connection| {
            let (to, pieces) = mpsc::channel(QUEUE);
            let incoming = Incoming { pieces, piece: Vec::new(), taken: 0 };
            (to, (incoming, Outgoing { connection, frames: frames.clone() }))
        };
        let ((to_plugin, plugin), (to_runtime, runtime)) = (link(PLUGIN), link(RUNTIME));
        let reader = tokio::spawn(async move {
            // How a socket ends is seen by who reads the connections: they end.
            let _ = split(read, &to_plugin, &to_runtime).await;
        });
        let writer = tokio::spawn(async move {
            let _ = join(write, queue).await;
        });
        (Self([reader.abort_handle(), writer.abort_handle()]), plugin, runtime)
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Source for Incoming {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            let Some(piece) = self.pieces.recv().await else { return Ok(0) };
            (self.piece, self.taken) = (piece, 0);
        }
        let count = buffer.len().min(self.piece.len() - self.taken);
        buffer[..count].copy_from_slice(&self.piece[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

impl Sink for Outgoing {
    async fn write(&mut self, frame: Vec<u8>) -> io::Result<()> {
        let sent = self.frames.send((self.connection, frame)).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Takes the socket's frames apart until it ends.
async fn split(
    mut socket: OwnedReadHalf,
    plugin: &mpsc::Sender<Vec<u8>>,
    runtime: &mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER];
        socket.read_exact(&mut header).await?;
        let [c0, c1, c2, c3, l0, l1, l2, l3] = header;
        let mut left = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if left > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let to = match u32::from_be_bytes([c0, c1, c2, c3]) {
            PLUGIN => Some(plugin),
            RUNTIME => Some(runtime),
            _ => None,
        };
        while left > 0 {
            let mut piece = vec![0; left.min(PIECE)];
            let count = Source::read(&mut socket, &mut piece).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            piece.truncate(count);
            left -= count;
            if let Some(to) = to {
                to.send(piece).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
        }
    }
}

/// Writes both connections' messages to the socket.
async fn join(mut socket: OwnedWriteHalf, mut queue: mpsc::Receiver<(u32, Vec<u8>)>) -> io::Result<()> {
    while let Some((connection, message)) = queue.recv().await {
        let (first, rest) = message.split_at(message.len().min(FIRST_PIECE));
        for piece in [first, rest] {
            if !piece.is_empty() {
                socket.write_all(&frame(connection, piece)).await?;
            }
        }
    }
    Ok(())
}

fn frame(connection: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + bytes.len());
    frame.extend_from_slice(&connection.to_be_bytes());
    frame.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_connection_gets_its_own_bytes_and_strange_ones_are_passed_over() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (_mux, (mut plugin, _), (mut runtime, _)) = Mux::open(ours);
        for (connection, bytes) in [(2, "for the runtime"), (7, "for nobody"), (1, "for the plugin's client")]
        {
            theirs.write_all(&frame(connection, bytes.as_bytes())).await.unwrap();
        }
        let mut buffer = [0; 64];
        let count = plugin.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"for the plugin's client");
        let count = runtime.read(&mut buffer[..4]).await.unwrap();
        assert_eq!(&buffer[..count], b"for ");
        let count = runtime.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"the runtime");
    }

    #[tokio::test]
    async fn a_frame_longer_than_a_message_ends_the_socket() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (_mux, (mut plugin, _), _) = Mux::open(ours);
        theirs.write_all(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
        assert_eq!(plugin.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_long_message_is_cut_after_its_first_4096_bytes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (_mux, (_, mut plugin), _) = Mux::open(ours);
        plugin.write(vec![5; 10_000]).await.unwrap();
        for length in [4096, 5904] {
            let mut header = [0; HEADER];
            theirs.read_exact(&mut header).await.unwrap();
            assert_eq!(header, *[[0, 0, 0, 1], u32::to_be_bytes(length)].concat());
            theirs.read_exact(&mut vec![0; length as usize]).await.unwrap();
        }
    }
}
