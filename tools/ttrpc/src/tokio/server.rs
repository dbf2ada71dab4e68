//! A server: one [`Handler`] answers every call of every connection.
//!
//! A connection's calls run side by side, at most [`IN_FLIGHT`] of them unless told otherwise; beyond that it is not read. A client that
//! vanishes does not cancel what it began: its handlers run to their end and the answers are dropped.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::{Sink, Source};
use crate::frame::{Decoder, Event};
use crate::server::{Incoming, Intake};
use crate::wire::Response;
use crate::{Metadata, Status};

/// Calls of one connection that may be under way at once.
const IN_FLIGHT: usize = 256;
/// How long a client may leave its answers unread before its connection is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// How long to rest when the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// There is one of these for every shim; answers are short.
const READ: usize = 4 << 10;

/// What a server serves.
pub trait Handler: Send + Sync + 'static {
    /// Answers one unary call with an encoded message. Runs to its end even when the client has gone.
    fn call(
        &self,
        service: &str,
        method: &str,
        metadata: Metadata,
        payload: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, Status>> + Send;
}

/// Accepts connections and hands their calls to a [`Handler`].
#[derive(Debug)]
pub struct Server<H> {
    handler: Arc<H>,
    in_flight: usize,
}

impl<H: Handler> Server<H> {
    /// A server of this handler.
    pub fn new(handler: H) -> Self {
        Self { handler: Arc::new(handler), in_flight: IN_FLIGHT }
    }

    /// Serves until `shutdown` resolves; then takes no more calls, and returns when those under way are answered.
    ///
    /// An accept that fails for a passing reason (no descriptors left, a client gone) is tried again.
    pub async fn serve(self, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let stop = watch::Sender::new(false);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (read, write) = stream.into_split();
                        let (handler, in_flight) = (self.handler.clone(), self.in_flight);
                        connections.spawn(connection(read, write, handler, in_flight, stop.subscribe()));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        stop.send_replace(true);
        while connections.join_next().await.is_some() {}
    }

    /// Lets a client have at most `calls` under way at once, at least one.
    pub fn with_in_flight(mut self, calls: usize) -> Self {
        self.in_flight = calls.max(1);
        self
    }

    /// Serves one client, over something else than a socket of its own, until it has gone.
    pub async fn serve_link(self, read: impl Source, write: impl Sink) {
        let stop = watch::Sender::new(false);
        connection(read, write, self.handler, self.in_flight, stop.subscribe()).await;
    }
}

async fn connection<H: Handler>(
    read: impl Source,
    write: impl Sink,
    handler: Arc<H>,
    in_flight: usize,
    stop: watch::Receiver<bool>,
) {
    let (answers, queue) = mpsc::channel(in_flight);
    let mut writer = JoinSet::new();
    writer.spawn(send(write, queue));
    let mut calls = JoinSet::new();
    tokio::select! {
        () = receive(read, handler, answers.clone(), &mut calls, in_flight) => {}
        // The client reads no more; there is nobody to serve.
        _ = writer.join_next() => {}
        () = told(stop) => {}
    }
    while calls.join_next().await.is_some() {}
    drop(answers);
    while writer.join_next().await.is_some() {}
}

async fn told(mut stop: watch::Receiver<bool>) {
    // An error means that the server itself is gone, which says the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn receive<H: Handler>(
    mut socket: impl Source,
    handler: Arc<H>,
    answers: mpsc::Sender<Vec<u8>>,
    calls: &mut JoinSet<()>,
    in_flight: usize,
) {
    let places = Arc::new(Semaphore::new(in_flight));
    let mut decoder = Decoder::default();
    let mut intake = Intake::default();
    let mut events: Vec<Event> = Vec::new();
    let mut buffer = vec![0; READ];
    loop {
        let count = match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        decoder.feed(&buffer[..count], &mut events);
        for event in events.drain(..) {
            while calls.try_join_next().is_some() {}
            match intake.take(event) {
                Incoming::Ignored => {}
                Incoming::Refused { stream, status } => {
                    if answers.send(Response::frame(stream, Err(status))).await.is_err() {
                        return;
                    }
                }
                Incoming::Call { stream, mut request } => {
                    let Ok(place) = places.clone().acquire_owned().await else { return };
                    let (handler, answers) = (handler.clone(), answers.clone());
                    calls.spawn(async move {
                        let metadata = request.take_metadata();
                        let payload = std::mem::take(&mut request.payload);
                        let result = handler.call(&request.service, &request.method, metadata, payload).await;
                        // The client may have gone; its answer goes nowhere.
                        let _ = answers.send(Response::frame(stream, result)).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

async fn send(mut socket: impl Sink, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = queue.recv().await {
        match tokio::time::timeout(WRITE_LIMIT, socket.write(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
