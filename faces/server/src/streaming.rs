//! `containerd.services.streaming.v1.Streaming`: streams that a client opens under a name, for a later call to use.
//!
//! ```text
//!   Stream(StreamInit{id}) ─▶ waits under (namespace, id) ─▶ an empty message
//!   Transfer(… id …) ───────▶ taken, once ─▶ used ─▶ dropped, which ends it
//! ```
//! A stream that waits is let go of when its client goes, when the lease under which it was opened ends, and when
//! nobody has wanted it for a while.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use berth_core::Scope;
use berth_proto as proto;
use berth_types::{Error, LeaseId, Namespace, Result};
use futures::Stream;
use proto::containerd::services::streaming::v1::{StreamInit, streaming_server};
use proto::convert::{any, from_any, pack, unpack};
use proto::prost_types::Any;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tonic::{Request, Response, Status, Streaming as Incoming};

use crate::headers::scope;
use crate::shared::{Answers, ok};

/// Messages that may wait for a client.
pub(crate) const QUEUE: usize = 16;
/// Streams that may wait for their call. A client has a few; more come from one that has lost its way.
const WAITING: usize = 1024;
/// How long a stream waits for its call, which clients make right after they have opened it.
const WANTED: Duration = Duration::from_mins(10);

/// One end of a stream.
pub(crate) struct Pipe {
    /// From the client.
    pub(crate) incoming: Incoming<Any>,
    /// To the client. Dropping it ends the stream.
    pub(crate) outgoing: mpsc::Sender<Result<Any, Status>>,
}

type Key = (Namespace, String);

/// A stream whose call has not come.
struct Waiting {
    pipe: Pipe,
    lease: Option<LeaseId>,
    /// Tells it from a later one of its name.
    number: u64,
}

#[derive(Default)]
struct Table {
    waiting: HashMap<Key, Waiting>,
    last: u64,
}

/// The streams that wait for their call.
#[derive(Clone, Default)]
pub(crate) struct Pipes(Arc<Mutex<Table>>);

impl Pipes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a stream for its call; the place is given up with the answer.
    fn keep(&self, scope: Scope, id: String, pipe: Pipe) -> Result<Place> {
        let mut table = self.table();
        if table.waiting.len() >= WAITING {
            return Err(Error::resource_exhausted(format!("{WAITING} streams wait for their call")));
        }
        let key = (scope.namespace, id);
        if table.waiting.contains_key(&key) {
            return Err(Error::already_exists(format!("stream {:?}", key.1)));
        }
        table.last += 1;
        let number = table.last;
        table.waiting.insert(key.clone(), Waiting { pipe, lease: scope.lease, number });
        Ok(Place { pipes: self.clone(), key, number })
    }

    /// The stream that a call names.
    pub(crate) fn take(&self, namespace: &Namespace, id: &str) -> Result<Pipe> {
        let waiting = self.table().waiting.remove(&(namespace.clone(), id.to_owned()));
        waiting.map(|waiting| waiting.pipe).ok_or_else(|| Error::not_found(format!("stream {id:?}")))
    }

    /// Lets go of what waits under a lease that has ended.
    pub(crate) fn lease_ended(&self, namespace: &Namespace, lease: &LeaseId) {
        self.table()
            .waiting
            .retain(|(of, _), waiting| of != namespace || waiting.lease.as_ref() != Some(lease));
    }
}

/// Where a stream waits, as long as it does.
struct Place {
    pipes: Pipes,
    key: Key,
    number: u64,
}

impl Place {
    /// Gives the place up; false if the stream has been taken.
    fn give_up(&self) -> bool {
        let mut table = self.pipes.table();
        let is_ours = table.waiting.get(&self.key).is_some_and(|waiting| waiting.number == self.number);
        is_ours && table.waiting.remove(&self.key).is_some()
    }
}

/// What goes to a client. It is dropped when the client goes.
struct Outgoing {
    answers: mpsc::Receiver<Result<Any, Status>>,
    place: Place,
    /// Ends the wait for a call; nothing once the stream has been taken.
    unwanted: Option<Pin<Box<Sleep>>>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.place.give_up();
    }
}

impl Stream for Outgoing {
    type Item = Result<Any, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = self.answers.poll_recv(context);
        if answer.is_ready() {
            return answer;
        }
        if let Some(unwanted) = &mut self.unwanted
            && unwanted.as_mut().poll(context).is_ready()
        {
            self.unwanted = None;
            if self.place.give_up() {
                let text = format!("nobody wanted the stream {:?} in time", self.place.key.1);
                return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
            }
        }
        Poll::Pending
    }
}

/// The service.
pub(crate) struct Streaming(pub(crate) Pipes);

#[tonic::async_trait]
impl streaming_server::Streaming for Streaming {
    type StreamStream = Answers<Any>;

    async fn stream(&self, request: Request<Incoming<Any>>) -> Result<Response<Self::StreamStream>, Status> {
        let scope = scope(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.ok_or_else(|| Status::invalid_argument("no first message"))?;
        let StreamInit { id } = ok(unpack(&from_any(first)))?;
        let (outgoing, answers) = mpsc::channel(QUEUE);
        // The client waits for it: it says that the stream is known.
        let empty = any(berth_types::Any::new("google.protobuf.Empty", Vec::new()));
        outgoing.try_send(Ok(empty)).map_err(|_| Status::internal("a new queue has no room"))?;
        let place = ok(self.0.keep(scope, id, Pipe { incoming, outgoing }))?;
        let unwanted = Some(Box::pin(sleep(WANTED)));
        Ok(Response::new(Box::pin(Outgoing { answers, place, unwanted })))
    }
}

/// A message for a stream.
pub(crate) fn packed<M: proto::prost::Name>(message: &M) -> Any {
    any(pack(message))
}

/// A message of a stream.
pub(crate) fn unpacked<M: proto::prost::Name + Default>(message: Any) -> Result<M> {
    unpack(&from_any(message))
}
