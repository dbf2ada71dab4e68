//! Plain bytes from one thread, compressed parts to another.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use berth_archive::{Compression, DigestWriter, Encoder, Hasher};
use berth_types::Digest;
use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes of a chunk, and of a part.
const CHUNK: usize = 256 << 10;

/// Chunks on their way to the compressor.
const DEPTH: usize = 4;

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    /// The digest of the plain bytes.
    pub(super) diff_id: Digest,
    /// The digest of the stored bytes.
    pub(super) digest: Digest,
    /// How many bytes are stored.
    pub(super) size: u64,
}

/// Where the plain bytes are written to. They are complete only when [`Write::flush`] was called.
pub(super) struct Plain {
    chunk: Vec<u8>,
    to: SyncSender<Vec<u8>>,
}

impl Plain {
    pub(super) fn channel() -> (Self, Receiver<Vec<u8>>) {
        let (to, from) = sync_channel(DEPTH);
        (Self { chunk: Vec::with_capacity(CHUNK), to }, from)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.to.send(chunk).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the layer"))
    }
}

/// Hashes and compresses chunks until there are no more. Blocking.
pub(super) fn pack(
    chunks: &Receiver<Vec<u8>>,
    parts: mpsc::Sender<Bytes>,
    compression: Compression,
) -> io::Result<Packed> {
    let mut plain = Hasher::default();
    let mut encoder = Encoder::new(DigestWriter::new(Parts::new(parts)), compression)?;
    for chunk in chunks {
        plain.update(&chunk);
        encoder.write_all(&chunk)?;
    }
    let (mut parts, digest, size) = encoder.finish()?.finish();
    parts.flush()?;
    Ok(Packed { diff_id: plain.finish(), digest, size })
}

/// Bytes on their way to an ingest. They are complete only when [`Write::flush`] was called.
pub(crate) struct Parts {
    part: Vec<u8>,
    to: mpsc::Sender<Bytes>,
}

impl Parts {
    pub(crate) fn new(to: mpsc::Sender<Bytes>) -> Self {
        Self { part: Vec::with_capacity(CHUNK), to }
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(CHUNK));
        let sent = self.to.blocking_send(part.into());
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody stores the layer"))
    }
}
