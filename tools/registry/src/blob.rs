//! A blob as it arrives.
//!
//! ```text
//!   small         one request, given out as it comes
//!   large  ├─ part ─┼─ part ─┼─ part ─┼─ part ─┼─ …
//!          given out  ╰── ahead: whole, in memory ──╯  begun as memory and connections allow
//! ```
//! A large blob is asked for in parts, several at once, where the host heeds ranges; a host that does not gives it
//! all in answer to the first one. Parts are given out in their order. A connection that breaks is taken up where it
//! broke, as often as progress is made.

use std::collections::VecDeque;

use berth_types::{Descriptor, Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::exchange;
use crate::pace::Pace;
use crate::repository::Repository;

/// Bytes of one part, unless the configuration says otherwise.
pub(crate) const PART: u64 = 4 << 20;

/// A blob with less than this is not worth more than one connection.
const LARGE: u64 = 4 * PART;

/// Parts of the usual size in memory, of all blobs that come at the same time.
pub(crate) const AHEAD: usize = 6;

/// A blob as it arrives.
pub struct Blob {
    /// What is given out at the moment.
    stream: Stream,
    /// What comes after it, in order.
    ahead: VecDeque<Part>,
    /// Up to where parts have been begun.
    begun: u64,
}

/// A part that is fetched whole.
struct Part {
    task: JoinHandle<Result<Bytes>>,
    end: u64,
    _room: OwnedSemaphorePermit,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Blob {
    pub(crate) async fn open(repository: Repository, descriptor: Descriptor, offset: u64) -> Result<Self> {
        let size = descriptor.size;
        let parts = repository.shared().config.connections > 1 && size.saturating_sub(offset) >= LARGE;
        let part = repository.shared().config.part.max(1);
        let end = if parts { (offset + part).min(size) } else { size };
        let mut stream = Stream::new(repository, descriptor, offset, end);
        match stream.open().await {
            // Some hosts refuse what they could as well pass over.
            Err(error) if parts && error.kind() == ErrorKind::InvalidArgument => {
                stream.end = size;
                stream.open().await?;
            }
            opened => opened?,
        }
        if !stream.partial {
            stream.end = size;
        }
        let begun = stream.end;
        let mut blob = Self { stream, ahead: VecDeque::new(), begun };
        blob.begin();
        Ok(blob)
    }

    /// Where the next bytes belong.
    pub fn offset(&self) -> u64 {
        self.stream.offset
    }

    /// The next bytes, none once all are there.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(chunk) = self.stream.next().await? {
                return Ok(Some(chunk));
            }
            self.begin();
            if let Some(mut part) = self.ahead.pop_front() {
                let bytes = (&mut part.task).await;
                let bytes =
                    bytes.map_err(|error| Error::internal("a part was given up").caused_by(error))??;
                self.stream.skip_to(part.end);
                self.begin();
                return Ok(Some(bytes));
            }
            if self.begun >= self.stream.size() {
                return Ok(None);
            }
            // No room ahead: then this one goes on by itself.
            self.begun = (self.begun + self.part()).min(self.stream.size());
            self.stream.end = self.begun;
        }
    }

    fn part(&self) -> u64 {
        self.stream.repository.shared().config.part.max(1)
    }

    /// Begins as many parts as there is room for.
    fn begin(&mut self) {
        let Stream { repository, descriptor, .. } = &self.stream;
        let shared = repository.shared();
        while self.begun < descriptor.size && self.ahead.len() + 1 < shared.config.connections {
            let places = self.part().div_ceil(PART).min(AHEAD as u64) as u32;
            let room = std::sync::Arc::clone(&shared.room).try_acquire_many_owned(places);
            let Ok(room) = room else { return };
            let end = (self.begun + self.part()).min(descriptor.size);
            let part = Stream::new(repository.clone(), descriptor.clone(), self.begun, end);
            self.ahead.push_back(Part { task: tokio::spawn(part.whole()), end, _room: room });
            self.begun = end;
        }
    }
}

/// The bytes of a range, from a host that heeds it.
pub(crate) async fn range(
    repository: Repository,
    descriptor: Descriptor,
    range: std::ops::Range<u64>,
) -> Result<Bytes> {
    let mut stream = Stream::new(repository, descriptor, range.start, range.end);
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    stream.open().await?;
    if !stream.partial && range != (0..stream.size()) {
        let Stream { descriptor, repository, host, .. } = &stream;
        return Err(Error::failed_precondition(format!(
            "{host} does not give parts of blob {} of {repository:?}",
            descriptor.digest
        )));
    }
    stream.whole().await
}

/// Bytes from one place to another, over one connection at a time.
struct Stream {
    repository: Repository,
    descriptor: Descriptor,
    /// Where the next byte that is given out belongs.
    offset: u64,
    /// Where it ends; 0 when nobody knows.
    end: u64,
    /// Bytes to pass over, where a host did not heed the range.
    skip: u64,
    response: Option<Response>,
    /// Whether the last answer was a part.
    partial: bool,
    tries: u32,
    /// Connections that were given up because they were slow.
    slow: u32,
    pace: Pace,
    /// Who answered last.
    host: String,
}

impl Stream {
    fn new(repository: Repository, descriptor: Descriptor, offset: u64, end: u64) -> Self {
        let pace = repository.pace();
        Self {
            repository,
            descriptor,
            offset,
            end,
            skip: 0,
            response: None,
            partial: false,
            tries: 0,
            slow: 0,
            pace,
            host: String::new(),
        }
    }

    fn size(&self) -> u64 {
        self.descriptor.size
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.end > 0 && self.offset >= self.end {
                self.response = None;
                return Ok(None);
            }
            let Some(response) = &mut self.response else {
                self.open().await?;
                continue;
            };
            match response.chunk().await.map_err(exchange::unreachable) {
                Ok(Some(mut chunk)) => {
                    let kept = self.pace.count(chunk.len());
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    let mut chunk = chunk.split_off(skipped as usize);
                    if chunk.is_empty() {
                        continue;
                    }
                    let longer = self.end > 0 && chunk.len() as u64 > self.end - self.offset;
                    if longer && self.end == self.size() {
                        return Err(self.wrong("is longer than its descriptor says"));
                    }
                    if longer {
                        // A host that does not heed the range goes on with what others fetch.
                        chunk.truncate((self.end - self.offset) as usize);
                        self.response = None;
                    }
                    self.offset += chunk.len() as u64;
                    self.tries = 0;
                    match kept {
                        Ok(true) => self.slow = 0,
                        Ok(false) => {}
                        Err(error) => self.too_slow(error).await?,
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) if self.end == 0 => return Ok(None),
                Ok(None) => self.again(self.wrong("ended early")).await?,
                Err(error) => self.again(error).await?,
            }
        }
    }

    /// All of it.
    async fn whole(mut self) -> Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(self.end.saturating_sub(self.offset) as usize);
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// Somebody else gave out everything up to there.
    fn skip_to(&mut self, offset: u64) {
        self.response = None;
        self.offset = offset;
        self.end = offset;
    }

    fn wrong(&self, why: &str) -> Error {
        let Self { descriptor, repository, .. } = self;
        Error::data_loss(format!("blob {} of {repository:?} {why}", descriptor.digest))
    }

    /// Gives the connection up for another one after a pause, unless that has not helped before.
    async fn again(&mut self, error: Error) -> Result<()> {
        self.response = None;
        let (retries, pause) = self.repository.retries();
        if self.tries >= retries {
            return Err(error.context(format!(
                "cannot fetch blob {} of {:?}: {}: it stops at byte {}, after {} tries",
                self.descriptor.digest,
                self.repository,
                self.host,
                self.offset,
                self.tries + 1
            )));
        }
        let pause = crate::retry::pause(pause, self.tries, None).unwrap_or(pause);
        self.tries += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Bytes came, but too few: that is no progress.
    async fn too_slow(&mut self, error: Error) -> Result<()> {
        self.tries = self.slow;
        self.slow += 1;
        self.again(error).await
    }

    async fn open(&mut self) -> Result<()> {
        let end = (self.end < self.size()).then_some(self.end);
        let opened = self.repository.open_blob(&self.descriptor.digest, self.offset, end).await?;
        let (response, skip, host) = opened;
        self.host = host;
        self.pace = self.repository.pace();
        self.partial = response.status() == reqwest::StatusCode::PARTIAL_CONTENT;
        self.response = Some(response);
        self.skip = skip;
        Ok(())
    }
}
