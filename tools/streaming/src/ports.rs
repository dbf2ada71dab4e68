//! Port-forward: connections to ports of a pod, several at a time.
//!
//! Over SPDY each connection is a pair of streams, `error` and `data`, that name the same request. Over the
//! channels of a WebSocket there is one connection for each port that was asked for: data on channel 2 n, errors
//! on 2 n + 1, and each begins with the port in two bytes, the lower one first.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::time::Duration;

use berth_types::SandboxId;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until};

use crate::mux::{Mux, Opened, Reader, Writer};
use crate::session::{PortStream, Shared};

/// How long a peer may take to open the second stream of a pair.
const OPENING: Duration = Duration::from_secs(30);
/// The most streams at one time: two a connection.
pub(crate) const MOST: usize = 2048;
/// The most ports of a WebSocket, whose channels have one byte.
pub(crate) const MOST_PORTS: usize = 64;

/// One connection to a port.
struct Connection {
    port: u16,
    data: (Reader, Writer),
    error: Writer,
}

/// Serves the pairs that a SPDY peer opens until it leaves.
pub(crate) async fn pairs(sessions: &Shared, pod: &SandboxId, mux: &Mux) {
    let mut running = FuturesUnordered::new();
    let mut pairs = Pairs::default();
    loop {
        let first = pairs.first_end();
        let expire = async {
            match first {
                Some(end) => sleep_until(end).await,
                None => pending().await,
            }
        };
        tokio::select! {
            opened = mux.next() => {
                let Some(opened) = opened else { break };
                if let Some(connection) = pairs.add(opened).await {
                    running.push(forward(sessions, pod, mux, connection));
                }
            }
            Some(()) = running.next() => {}
            () = expire => pairs.expire().await,
        }
    }
    drop(pairs);
    while let Some(()) = running.next().await {}
    mux.finish();
}

/// The connections of a WebSocket.
pub(crate) struct Channels(Vec<Connection>);

impl Channels {
    /// Makes the channels for `ports`.
    pub(crate) fn new(mux: &Mux, ports: &[u16]) -> Self {
        let connection = |(number, port): (u32, &u16)| Connection {
            port: *port,
            data: mux.lane(2 * number),
            error: mux.lane(2 * number + 1).1,
        };
        Self((0..).zip(ports).map(connection).collect())
    }

    /// Serves them until all are over.
    pub(crate) async fn run(self, sessions: &Shared, pod: &SandboxId, mux: &Mux) {
        join_all(self.0.into_iter().map(|mut connection| async {
            let port = connection.port.to_le_bytes();
            let told = async {
                connection.data.1.write_all(&port).await?;
                connection.error.write_all(&port).await
            };
            if told.await.is_ok() {
                forward(sessions, pod, mux, connection).await;
            }
        }))
        .await;
        mux.finish();
    }
}

async fn forward(sessions: &Shared, pod: &SandboxId, mux: &Mux, connection: Connection) {
    let Connection { port, data: (reader, writer), mut error } = connection;
    let stream = PortStream { reader: Box::new(reader), writer: Box::new(writer), gone: mux.gone() };
    if let Err(cause) = sessions.port_forward(pod.clone(), port, stream).await {
        tracing::debug!(%pod, port, error = cause.chain(), "a connection to a port ended with an error");
        let text = format!("error forwarding port {port} to pod {pod}: {}", cause.chain());
        // A peer that is gone does not want to know.
        let _ = error.write_all(text.as_bytes()).await;
    }
}

/// Streams whose other half is yet to come, by their request.
#[derive(Default)]
struct Pairs {
    halves: HashMap<String, Half>,
    /// When they are given up, the first first. Pairs that came together stay here until then.
    ends: VecDeque<(Instant, String, u32)>,
}

struct Half {
    /// Of the stream that came first.
    lane: u32,
    port: u16,
    data: Option<(Reader, Writer)>,
    error: Option<Writer>,
}

impl Pairs {
    /// Adds a stream; gives the connection that it makes whole. A stream that names no port or no kind is dropped,
    /// which tells the peer.
    async fn add(&mut self, opened: Opened) -> Option<Connection> {
        let Opened { lane, opening, reader, writer } = opened;
        let port = opening.port.parse().ok().filter(|port| *port != 0u16)?;
        let is_data = match opening.kind.as_str() {
            "data" => true,
            "error" => false,
            _ => return None,
        };
        // Clients older than the header open the error's stream first and the data's next.
        let request = match opening.request.as_str() {
            "" if is_data => (lane - lane.min(2)).to_string(),
            "" => lane.to_string(),
            request => request.to_owned(),
        };
        let mut half = self.halves.remove(&request).unwrap_or_else(|| self.begin(lane, port, &request));
        let doubled = if is_data {
            half.port = port;
            half.data.replace((reader, writer)).is_some()
        } else {
            half.error.replace(writer).is_some()
        };
        if doubled {
            half.say(&format!("request {request} has two streams of type {}", opening.kind)).await;
            return None;
        }
        match half {
            Half { port, data: Some(data), error: Some(error), .. } => Some(Connection { port, data, error }),
            half => {
                self.halves.insert(request, half);
                None
            }
        }
    }

    fn begin(&mut self, lane: u32, port: u16, request: &str) -> Half {
        if self.ends.len() >= 2 * MOST {
            let halves = &self.halves;
            self.ends.retain(|(_, request, lane)| halves.get(request).is_some_and(|half| half.lane == *lane));
        }
        self.ends.push_back((Instant::now() + OPENING, request.to_owned(), lane));
        Half { lane, port, data: None, error: None }
    }

    fn first_end(&self) -> Option<Instant> {
        self.ends.front().map(|(end, ..)| *end)
    }

    /// Gives up what has waited too long.
    async fn expire(&mut self) {
        let now = Instant::now();
        while let Some((_, request, lane)) = self.ends.pop_front_if(|(end, ..)| *end <= now) {
            if self.halves.get(&request).is_some_and(|half| half.lane == lane)
                && let Some(mut half) = self.halves.remove(&request)
            {
                half.say(&format!("request {request} waited for its second stream for too long")).await;
            }
        }
    }
}

impl Half {
    async fn say(&mut self, text: &str) {
        tracing::debug!(text, "a pair of streams that is none");
        if let Some(error) = &mut self.error {
            let _ = error.write_all(text.as_bytes()).await;
        }
    }
}
