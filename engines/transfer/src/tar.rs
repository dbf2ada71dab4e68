//! Archives between the blocking code that reads and writes them and the async code around it.
//!
//! Each archive has one thread, which sends or takes [`CHUNK`]s over a short channel. The thread ends when the
//! archive does or when the other side goes away; one that hangs in a read from a pipe holds nothing else up.

use std::io::{BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use berth_archive::{Decoder, Entry, Kind, Limits, Reader, TarError, Writer, clean, parent};
use berth_types::{Error, Result};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Bytes that go over a channel at once.
pub(crate) const CHUNK: usize = 1 << 20;

/// Chunks that may be on their way.
const DEPTH: usize = 4;

/// A member of an archive that means something to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Cleaned, relative.
    pub(crate) path: String,
    /// Nothing for a file; the cleaned path that a link leads to.
    pub(crate) link: Option<String>,
    pub(crate) size: u64,
}

/// What a thread sends.
pub(crate) enum Item {
    Member(Member),
    Data(Bytes),
}

/// Where a thread sends what it reads.
pub(crate) struct Sender {
    items: mpsc::Sender<Result<Item>>,
    skipped: Arc<AtomicU64>,
    member: u64,
}

/// The other side does not want any more; the thread can end.
pub(crate) struct Gone;

/// Why a thread ended early.
pub(crate) enum Stop {
    Gone,
    Failed(Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Sender {
    pub(crate) fn member(&mut self, member: Member) -> Result<(), Gone> {
        self.member += 1;
        self.send(Item::Member(member))
    }

    /// Sends the rest of a member's data, unless nobody wants it.
    pub(crate) fn data(&self, mut data: impl Read, what: &str) -> Result<(), Stop> {
        while self.skipped.load(Ordering::Relaxed) < self.member {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = (&mut data).take(CHUNK as u64).read_to_end(&mut chunk);
            read.map_err(|source| unreadable(what, source))?;
            if chunk.is_empty() {
                break;
            }
            self.send(Item::Data(chunk.into()))?;
        }
        Ok(())
    }

    fn send(&self, item: Item) -> Result<(), Gone> {
        self.items.blocking_send(Ok(item)).map_err(|_| Gone)
    }
}

/// An archive, or a folder that is read like one, as a stream of members.
pub(crate) struct Members {
    items: mpsc::Receiver<Result<Item>>,
    skipped: Arc<AtomicU64>,
    member: u64,
    next: Option<Member>,
}

impl Members {
    /// Reads with `work` in a thread of its own.
    pub(crate) fn read(work: impl FnOnce(&mut Sender) -> Result<(), Stop> + Send + 'static) -> Result<Self> {
        let (items, received) = mpsc::channel(DEPTH);
        let skipped = Arc::new(AtomicU64::new(0));
        let mut sender = Sender { items, skipped: Arc::clone(&skipped), member: 0 };
        let body = move || {
            if let Err(Stop::Failed(error)) = work(&mut sender) {
                // Nobody who is gone wants to know.
                drop(sender.items.blocking_send(Err(error)));
            }
        };
        spawn("image-read", body)?;
        Ok(Self { items: received, skipped, member: 0, next: None })
    }

    /// The members of a tar, compressed or not.
    pub(crate) fn of_archive(archive: impl Read + Send + 'static) -> Result<Self> {
        Self::read(move |sender| read_archive(archive, sender))
    }

    /// The next member. Data of the one before that was not taken is passed over.
    pub(crate) async fn next(&mut self) -> Result<Option<Member>> {
        if let Some(member) = self.next.take() {
            self.member += 1;
            return Ok(Some(member));
        }
        self.skipped.store(self.member, Ordering::Relaxed);
        loop {
            match self.items.recv().await.transpose()? {
                Some(Item::Member(member)) => {
                    self.member += 1;
                    return Ok(Some(member));
                }
                Some(Item::Data(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next bytes of the member, none at its end.
    pub(crate) async fn data(&mut self) -> Result<Option<Bytes>> {
        if self.next.is_some() {
            return Ok(None);
        }
        match self.items.recv().await.transpose()? {
            Some(Item::Data(data)) => Ok(Some(data)),
            Some(Item::Member(member)) => {
                self.next = Some(member);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// The whole of a member that must have at most `limit` bytes.
    pub(crate) async fn whole(&mut self, member: &Member, limit: u64) -> Result<Vec<u8>> {
        if member.size > limit {
            return Err(Error::resource_exhausted(format!(
                "{} has {} bytes, more than the {limit} allowed here",
                member.path, member.size
            )));
        }
        let mut whole = Vec::new();
        while let Some(data) = self.data().await? {
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map(drop).map_err(|source| Error::io("cannot start a thread for the archive", source))
}

fn unreadable(what: &str, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
            Error::invalid_argument(format!("cannot read {what}")).caused_by(source)
        }
        _ => Error::io(format!("cannot read {what}"), source),
    }
}

fn broken(error: TarError) -> Error {
    match error {
        TarError::Read { source, .. } => unreadable("the archive", source),
        TarError::Limit { .. } => Error::resource_exhausted("the archive is refused").caused_by(error),
        _ => Error::invalid_argument("the archive is refused").caused_by(error),
    }
}

fn read_archive(archive: impl Read, sender: &mut Sender) -> Result<(), Stop> {
    let buffered = BufReader::with_capacity(CHUNK, archive);
    let decoder =
        Decoder::new(buffered, Limits::default()).map_err(|source| unreadable("the archive", source))?;
    let mut tar = Reader::new(BufReader::with_capacity(CHUNK, decoder));
    while let Some(entry) = tar.next_entry().map_err(broken)? {
        let path = text(clean(&entry.path))?;
        let link = match &entry.kind {
            Kind::File if entry.segments.is_none() => None,
            Kind::File => {
                let text = format!("{path} is a sparse file, which images do not have");
                return Err(Error::invalid_argument(text).into());
            }
            // As in a file system, from the root of the archive.
            Kind::HardLink(target) => Some(text(clean(target))?),
            Kind::Symlink(target) => {
                let (folder, _) = parent(path.as_bytes());
                Some(text(clean(&[folder, b"/", target].concat()))?)
            }
            _ => continue,
        };
        let is_file = link.is_none();
        sender.member(Member { path, link, size: entry.size })?;
        if is_file {
            sender.data(tar.data(), "the archive")?;
        }
    }
    // Reading to the end checks the compression's own checksum.
    tar.finish().map_err(broken)?;
    Ok(())
}

fn text(path: Vec<u8>) -> Result<String> {
    String::from_utf8(path).map_err(|error| {
        let path = String::from_utf8_lossy(error.as_bytes()).into_owned();
        Error::invalid_argument(format!("the name {path:?} in the archive is not UTF-8"))
    })
}

enum Part {
    Entry(Box<Entry>),
    Data(Bytes),
}

/// A tar being written by a thread of its own.
pub(crate) struct Sink<W> {
    parts: mpsc::Sender<Part>,
    result: oneshot::Receiver<Result<W>>,
}

impl<W: Write + Send + 'static> Sink<W> {
    /// Writes to `output`.
    pub(crate) fn start(output: W) -> Result<Self> {
        let (parts, received) = mpsc::channel(DEPTH);
        let (done, result) = oneshot::channel();
        let body = move || {
            // Whoever is gone does not want the writer back.
            drop(done.send(write_archive(output, received)));
        };
        spawn("image-write", body)?;
        Ok(Self { parts, result })
    }

    pub(crate) async fn entry(&mut self, entry: Entry) -> Result<()> {
        self.send(Part::Entry(Box::new(entry))).await
    }

    pub(crate) async fn data(&mut self, data: Bytes) -> Result<()> {
        self.send(Part::Data(data)).await
    }

    async fn send(&mut self, part: Part) -> Result<()> {
        if self.parts.send(part).await.is_ok() {
            return Ok(());
        }
        match (&mut self.result).await {
            Ok(Err(error)) => Err(error),
            _ => Err(Error::internal("the archive's writer is gone")),
        }
    }

    /// Writes the end and gives the output back.
    pub(crate) async fn finish(self) -> Result<W> {
        drop(self.parts);
        self.result.await.map_err(|_| Error::internal("the archive's writer is gone"))?
    }
}

fn write_archive<W: Write>(output: W, mut parts: mpsc::Receiver<Part>) -> Result<W> {
    let failed = |error: TarError| match error {
        TarError::Write(source) => Error::io("cannot write the archive", source),
        other => Error::internal("cannot write the archive").caused_by(other),
    };
    let mut tar = Writer::new(output);
    while let Some(part) = parts.blocking_recv() {
        match part {
            Part::Entry(entry) => tar.append(&entry).map_err(failed)?,
            Part::Data(data) => {
                tar.write_all(&data).map_err(|source| Error::io("cannot write the archive", source))?;
            }
        }
    }
    let mut output = tar.finish().map_err(failed)?;
    output.flush().map_err(|source| Error::io("cannot write the archive", source))?;
    Ok(output)
}
