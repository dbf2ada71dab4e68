//! The client that reads along what goes between the daemon and a registry: over a stream that it has opened, or, if it
//! has not, in the daemon's log, as with containerd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use berth_core::{Scope, Transcript, TranscriptDetail, TranscriptReader};
use berth_proto as proto;
use berth_types::Result;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::containerd::types::transfer::HttpDebug;
use tokio::time::timeout;

use crate::bytes::Sent;
use crate::requester::DEAF;
use crate::streaming::Pipes;

/// What brings a transcript to its reader. It ends once nobody writes to it any more.
pub(crate) type Bringing = BoxFuture<'static, ()>;

/// The transcript that a request wants, and what has to run beside the transfer for it.
pub(crate) fn wanted(
    debug: i32,
    stream: &str,
    pipes: &Pipes,
    scope: &Scope,
) -> Result<(Option<Transcript>, Option<Bringing>)> {
    let detail = match HttpDebug::try_from(debug) {
        Ok(HttpDebug::Debug) => TranscriptDetail::Messages,
        Ok(HttpDebug::Trace) => TranscriptDetail::Connections,
        Ok(HttpDebug::Both) => TranscriptDetail::Everything,
        Ok(HttpDebug::Disabled) | Err(_) => return Ok((None, None)),
    };
    if stream.is_empty() {
        return Ok((Some(Transcript { detail, reader: Arc::new(Log) }), None));
    }
    let (sent, bringing) = Sent::to(pipes.take(&scope.namespace, stream)?);
    let reader = Arc::new(Stream { sent, deaf: AtomicBool::new(false) });
    Ok((Some(Transcript { detail, reader }), Some(bringing.boxed())))
}

struct Log;

#[async_trait]
impl TranscriptReader for Log {
    async fn read(&self, entry: String) {
        for line in entry.lines().filter(|line| !line.is_empty()) {
            tracing::info!("{line}");
        }
    }
}

struct Stream {
    sent: Sent,
    /// Once it has not taken an entry for too long: a transfer does not wait for its readers.
    deaf: AtomicBool,
}

#[async_trait]
impl TranscriptReader for Stream {
    async fn read(&self, entry: String) {
        if self.deaf.load(Ordering::Relaxed) {
            return;
        }
        if !matches!(timeout(DEAF, self.sent.give(Bytes::from(entry))).await, Ok(Ok(()))) {
            self.deaf.store(true, Ordering::Relaxed);
        }
    }
}
