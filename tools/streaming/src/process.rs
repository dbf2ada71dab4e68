//! Exec and attach.

use std::time::Duration;

use futures::future::{Either, select};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::mux::{Mux, Opened, Reader, Writer};
use crate::negotiate::Version;
use crate::request::{Process, Wanted};
use crate::session::{ProcessStreams, Shared, Sizes};
use crate::sizes;
use crate::status::Outcome;

/// How long a peer may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// The most streams at one time: five have a meaning.
pub(crate) const MOST: usize = 8;

/// The streams of a peer.
#[derive(Default)]
pub(crate) struct Streams {
    stdin: Option<(Reader, Writer)>,
    stdout: Option<Writer>,
    stderr: Option<Writer>,
    error: Option<Writer>,
    sizes: Option<Reader>,
}

impl Streams {
    /// Waits for the streams that a SPDY peer opens. None when it leaves or takes too long.
    pub(crate) async fn opened(mux: &Mux, wanted: Wanted, version: Version) -> Option<Self> {
        let gather = async {
            let mut streams = Self::default();
            while !streams.are_all(wanted, version) {
                streams.take(mux.next().await?, wanted);
            }
            Some(streams)
        };
        timeout(OPENING, gather).await.ok().flatten()
    }

    fn take(&mut self, opened: Opened, wanted: Wanted) {
        let Opened { opening, reader, writer, .. } = opened;
        match opening.kind.as_str() {
            "stdin" if wanted.stdin => self.stdin = Some((reader, writer)),
            "stdout" if wanted.stdout => self.stdout = Some(writer),
            "stderr" if wanted.stderr => self.stderr = Some(writer),
            "error" => self.error = Some(writer),
            "resize" => self.sizes = Some(reader),
            // Dropped, the peer hears that nobody is there.
            _ => {}
        }
    }

    fn are_all(&self, wanted: Wanted, version: Version) -> bool {
        self.error.is_some()
            && self.stdin.is_some() == wanted.stdin
            && self.stdout.is_some() == wanted.stdout
            && self.stderr.is_some() == wanted.stderr
            && (self.sizes.is_some() || !(wanted.tty && version.has_sizes()))
    }

    /// The channels of a WebSocket, which are there from the beginning. An empty message on the first that is
    /// written to tells the peer that the connection stands, as a kubelet's does.
    pub(crate) fn channels(mux: &Mux, wanted: Wanted) -> Self {
        let channel = |number: u32, wanted: bool| wanted.then(|| mux.lane(number));
        let streams = Self {
            stdin: channel(0, wanted.stdin),
            stdout: channel(1, wanted.stdout).map(|(_, writer)| writer),
            stderr: channel(2, wanted.stderr).map(|(_, writer)| writer),
            error: Some(mux.lane(3).1),
            sizes: Some(mux.lane(4).0),
        };
        let writers = [&streams.stdout, &streams.stderr, &streams.error];
        if let Some(writer) = writers.into_iter().flatten().next() {
            writer.greet();
        }
        streams
    }
}

/// Runs a request on its streams and tells how it ended.
pub(crate) async fn run(sessions: &Shared, process: Process, streams: Streams, version: Version, mux: &Mux) {
    let Streams { stdin, stdout, stderr, error, sizes } = streams;
    let (sender, receiver) = Sizes::channel();
    let streams = ProcessStreams {
        stdin: stdin.map(|(reader, writer)| Box::new(Stdin { reader, _writer: writer }) as _),
        stdout: stdout.map(|writer| Box::new(writer) as _),
        stderr: stderr.map(|writer| Box::new(writer) as _),
        sizes: receiver,
        gone: mux.gone(),
    };
    let work = async {
        match process {
            Process::Exec(request) => Outcome::of_exec(sessions.exec(request, streams).await),
            Process::Attach(request) => Outcome::of_attach(sessions.attach(request, streams).await),
        }
    };
    let outcome = match select(Box::pin(work), Box::pin(sizes::follow(sizes, sender))).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(((), work)) => work.await,
    };
    if let Some(mut error) = error {
        // A peer that is gone does not want to know.
        let _ = error.write_all(outcome.text(version).as_bytes()).await;
    }
    mux.finish();
}

/// Both directions of the peer's input: when nobody reads any more, the peer hears it by the end of the other.
struct Stdin {
    reader: Reader,
    _writer: Writer,
}

impl tokio::io::AsyncRead for Stdin {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.reader).poll_read(cx, into)
    }
}
