//! Who runs what is streamed: the seam of this crate.

use std::sync::Arc;

use berth_types::{Result, SandboxId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::request::{AttachRequest, ExecRequest};

/// What a process reads.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// Where a process writes.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Runs processes and reaches ports on behalf of whoever holds a URL.
///
/// A call gets the streams of a peer that is there already, and ends when the work is done. It is never dropped
/// half-way by a peer that leaves: it hears of it by [`Gone`], by errors when it writes, and by an error at the end
/// of what it reads (an end without an error is the peer's own: it closed its input). When it has returned,
/// everything that it wrote is sent, and what it kept of the streams is of no more use.
#[async_trait::async_trait]
pub trait Sessions: Send + Sync {
    /// Runs a command in a container; gives its exit code.
    async fn exec(&self, request: ExecRequest, streams: ProcessStreams) -> Result<i32>;

    /// Connects to the first process of a container until it ends or the peer leaves.
    async fn attach(&self, request: AttachRequest, streams: ProcessStreams) -> Result<()>;

    /// Connects to a port in a pod until both directions are over. Called for each connection anew, several at a
    /// time.
    async fn port_forward(&self, pod: SandboxId, port: u16, stream: PortStream) -> Result<()>;
}

/// The streams of a process; only those that were asked for are there.
pub struct ProcessStreams {
    /// Ends when the peer closes it. Dropped, the peer hears that nobody reads.
    pub stdin: Option<Input>,
    /// Waits while the peer is slow.
    pub stdout: Option<Output>,
    /// The same, apart from it; never there with a terminal.
    pub stderr: Option<Output>,
    /// Sizes of the peer's terminal.
    pub sizes: Sizes,
    /// The peer's absence.
    pub gone: Gone,
}

/// One connection to a port.
pub struct PortStream {
    /// From the peer.
    pub reader: Input,
    /// To the peer; shut down or dropped, it ends that direction.
    pub writer: Output,
    /// The peer's absence.
    pub gone: Gone,
}

/// Cells of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// In a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Sizes as they come; who is slow gets the last one only.
#[derive(Clone, Debug)]
pub struct Sizes(watch::Receiver<Option<TerminalSize>>);

impl Sizes {
    /// Sizes, and where they are put.
    pub fn channel() -> (watch::Sender<Option<TerminalSize>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// The next size; none when there will be none. Cancel-safe.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            self.0.changed().await.ok()?;
            let size = *self.0.borrow_and_update();
            // Without a terminal of its own a peer says 0 × 0, which nobody can set.
            if let Some(TerminalSize { width: 1.., height: 1.. }) = size {
                return size;
            }
        }
    }
}

/// Resolves when the peer is no more.
#[derive(Clone, Debug)]
pub struct Gone(watch::Receiver<bool>);

impl Gone {
    /// From what becomes true, or is dropped.
    pub fn new(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Waits for it. Cancel-safe.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|gone| *gone).await;
    }

    /// Whether it is.
    pub fn is(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// A shared implementation.
pub(crate) type Shared = Arc<dyn Sessions>;
