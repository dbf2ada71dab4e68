//! Events for the daemon, in order, each until it has been heard.
//!
//! They go over the daemon's ttrpc socket, one call at a time, driven by the loop. While the daemon is away they
//! wait, up to a bound; a daemon that is back usually connects to us first, and then they go at once. Without a
//! ttrpc socket each is handed to the daemon's program (`publish`), on a thread.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use berth_proto as proto;
use berth_ttrpc::Metadata;
use berth_ttrpc::polled::{Client, Progress};
use prost::{Message, Name};
use proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use proto::containerd::types::Envelope;
use proto::convert::{any, pack, timestamp};

/// As many as containerd's shim keeps. Beyond it the oldest goes.
const QUEUE: usize = 2048;
/// The daemon may refuse an event so often before it is dropped.
const REFUSALS: u32 = 5;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// How the daemon is reached.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// Its ttrpc socket.
    Socket(PathBuf),
    /// Its program, and the gRPC address that it is told.
    Program { program: PathBuf, address: String },
    /// Nobody wants to know.
    Nowhere,
}

/// The queue and the way out.
#[derive(Debug)]
pub(crate) struct Publisher {
    namespace: String,
    route: Route,
    queue: VecDeque<Envelope>,
    client: Option<Client>,
    refusals: u32,
    retry: Duration,
    /// The program is at work on the first event.
    running: bool,
    dropped: u64,
}

/// What the loop has to do for the publisher.
#[derive(Debug, PartialEq)]
pub(crate) enum Wish {
    /// Nothing before the next edge.
    Nothing,
    /// Watch the new connection.
    Watch,
    /// Call [`Publisher::go`] after a while.
    Later(Duration),
    /// Run the program with this on its standard input, and say how it went.
    Run { topic: String, input: Vec<u8> },
}

impl Publisher {
    pub(crate) fn new(namespace: &str, route: Route) -> Self {
        Self {
            namespace: namespace.to_owned(),
            route,
            queue: VecDeque::new(),
            client: None,
            refusals: 0,
            retry: FIRST_RETRY,
            running: false,
            dropped: 0,
        }
    }

    /// Queues an event.
    pub(crate) fn push<M: Message + Name>(&mut self, topic: &str, event: &M) {
        if matches!(self.route, Route::Nowhere) {
            return;
        }
        if self.queue.len() >= QUEUE {
            // The first one may be on its way; the one behind it is the oldest that is not.
            self.queue.remove(1);
            self.dropped += 1;
        }
        self.queue.push_back(Envelope {
            timestamp: timestamp(SystemTime::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(any(pack(event))),
        });
    }

    /// Whether everything has been heard.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Events that were never told.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a call waits for the daemon's answer.
    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// The connection, for the loop to watch.
    pub(crate) fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.client.as_ref().map(AsFd::as_fd)
    }

    /// Goes on: at an edge of the connection, after [`Publisher::push`], and when time has passed.
    pub(crate) fn go(&mut self) -> Wish {
        if let Route::Program { .. } = self.route {
            return self.run();
        }
        let Route::Socket(path) = &self.route else { return Wish::Nothing };
        if self.client.is_none() {
            if self.queue.is_empty() {
                return Wish::Nothing;
            }
            match Client::connect(path) {
                Ok(client) => {
                    self.client = Some(client.with_metadata(Metadata::for_namespace(&self.namespace)));
                    // Its first edge comes at once.
                    return Wish::Watch;
                }
                Err(_) => return self.later(),
            }
        }
        loop {
            let Some(client) = &mut self.client else { return self.later() };
            match client.ready() {
                Progress::Lost => {
                    self.client = None;
                    return if self.queue.is_empty() { Wish::Nothing } else { self.later() };
                }
                Progress::Done(Ok(_)) => self.heard(),
                Progress::Done(Err(_)) => {
                    self.refusals += 1;
                    if self.refusals <= REFUSALS {
                        return self.later();
                    }
                    self.dropped += 1;
                    self.heard();
                }
                Progress::Waiting => {
                    if client.is_busy() || self.queue.is_empty() {
                        return Wish::Nothing;
                    }
                    let Some(first) = self.queue.front() else { return Wish::Nothing };
                    let request = ForwardRequest { envelope: Some(first.clone()) };
                    let service = "containerd.services.events.ttrpc.v1.Events";
                    if client.call(service, "Forward", request.encode_to_vec()).is_err() {
                        self.client = None;
                        return self.later();
                    }
                }
            }
        }
    }

    /// The program has ended.
    pub(crate) fn ran(&mut self, well: bool) -> Wish {
        self.running = false;
        if !well {
            self.refusals += 1;
            if self.refusals <= REFUSALS {
                return self.later();
            }
            self.dropped += 1;
        }
        self.heard();
        self.run()
    }

    fn run(&mut self) -> Wish {
        let Some(first) = self.queue.front().filter(|_| !self.running) else { return Wish::Nothing };
        let input = first.event.clone().unwrap_or_default().encode_to_vec();
        let topic = first.topic.clone();
        self.running = true;
        Wish::Run { topic, input }
    }

    fn heard(&mut self) {
        self.queue.pop_front();
        self.refusals = 0;
        self.retry = FIRST_RETRY;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    fn later(&mut self) -> Wish {
        let after = self.retry;
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
        Wish::Later(after)
    }
}
