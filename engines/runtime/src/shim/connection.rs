//! Connections to shims, shared by tasks whose shim is the same process.
//!
//! The messages of version 2 and 3 of the task API are the same bytes; only the service's name differs. A
//! shim that says 3 but was started by an older daemon may serve only 2: the first call finds out.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use berth_proto as proto;
use berth_ttrpc::tokio::Client;
use berth_ttrpc::{Code, Metadata};
use berth_types::{Error, ErrorKind};
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answer::{Answer, Protocol, Socket};
use super::grpc;
use crate::key::Key;

/// How often a shim that accepts no connection is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// The connections that are open, by address.
#[derive(Default)]
pub(crate) struct Connections(Mutex<HashMap<String, Weak<Link>>>);

/// One connection.
struct Link {
    wire: Wire,
    /// Of the task API: 2 or 3; negative while a 3 is only claimed.
    version: AtomicI32,
}

#[derive(Clone)]
enum Wire {
    Ttrpc(Client),
    Grpc(grpc::Channel),
}

/// A task's shim: a connection with the task's namespace on every call.
#[derive(Clone)]
pub(crate) struct Shim {
    link: Arc<Link>,
    wire: Wire,
    key: Key,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody listens there any more.
    #[error("nobody listens at the shim's address")]
    Gone(#[source] io::Error),
    /// Somebody is there who does not accept.
    #[error("the shim does not accept a connection")]
    Busy,
    /// Something else is wrong, perhaps here.
    #[error("cannot connect to the shim")]
    Failed(#[source] io::Error),
    /// The answer that should lead to the shim does not.
    #[error(transparent)]
    Address(#[from] Error),
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The shim answered, with a failure.
    #[error(transparent)]
    Refused(Error),
    /// The shim is gone.
    #[error("the shim has closed the connection")]
    Closed,
    /// The shim did not answer in time.
    #[error("the shim did not answer {method} within {limit:?}")]
    Late { method: &'static str, limit: Duration },
}

impl CallError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(error) => error.kind(),
            Self::Closed => ErrorKind::Unavailable,
            Self::Late { .. } => ErrorKind::DeadlineExceeded,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            // Clients read these texts; they go through as they came.
            CallError::Refused(error) => error,
            other => Self::new(other.kind(), other.to_string()),
        }
    }
}

impl Connections {
    /// The connection to where `answer` leads, an open one if there is one; a new one within `limit`.
    pub(crate) async fn connect(
        &self,
        key: &Key,
        answer: &Answer,
        limit: Duration,
    ) -> Result<Shim, ConnectError> {
        // Tasks of two namespaces never share, whatever a shim answers.
        let place = format!("{}@{}", key.namespace, answer.address);
        if let Some(link) = self.open_one(&place) {
            return Ok(Shim::new(link, key.clone()));
        }
        let deadline = Instant::now() + limit;
        let stream = dial(&answer.socket()?, deadline).await?;
        let wire = match answer.protocol()? {
            Protocol::Ttrpc => Wire::Ttrpc(Client::from_stream(stream)),
            Protocol::Grpc => {
                let opened = timeout_at(deadline, grpc::Channel::open(stream)).await;
                Wire::Grpc(opened.map_err(|_| ConnectError::Busy)?.map_err(ConnectError::Failed)?)
            }
        };
        let version = if answer.version >= 3 { -answer.version } else { answer.version };
        let link = Arc::new(Link { wire, version: AtomicI32::new(version) });
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, link| link.strong_count() > 0);
        links.insert(place, Arc::downgrade(&link));
        Ok(Shim::new(link, key.clone()))
    }

    fn open_one(&self, place: &str) -> Option<Arc<Link>> {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(place)?.upgrade().filter(|link| !link.wire.is_closed())
    }
}

async fn dial(socket: &Socket, deadline: Instant) -> Result<UnixStream, ConnectError> {
    loop {
        let connected = match socket {
            Socket::Path(path) => UnixStream::connect(path).await,
            Socket::Abstract(name) => connect_abstract(name),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let next = Instant::now() + AGAIN;
                if next >= deadline {
                    return Err(ConnectError::Busy);
                }
                sleep_until(next).await;
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Err(ConnectError::Gone(error));
            }
            Err(error) => return Err(ConnectError::Failed(error)),
        }
    }
}

fn connect_abstract(name: &[u8]) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let _ = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    UnixStream::from_std(socket.into())
}

impl Wire {
    fn is_closed(&self) -> bool {
        match self {
            Self::Ttrpc(client) => client.is_closed(),
            Self::Grpc(channel) => channel.is_closed(),
        }
    }
}

impl Shim {
    fn new(link: Arc<Link>, key: Key) -> Self {
        let wire = match &link.wire {
            Wire::Ttrpc(client) => {
                Wire::Ttrpc(client.with_metadata(Metadata::for_namespace(key.namespace.as_str())))
            }
            Wire::Grpc(channel) => Wire::Grpc(channel.clone()),
        };
        Self { link, wire, key }
    }

    /// Resolves when the connection has ended.
    pub(crate) async fn closed(&self) {
        match &self.wire {
            Wire::Ttrpc(client) => client.closed().await,
            Wire::Grpc(channel) => channel.closed().await,
        }
    }

    /// Whether other tasks are on the same connection.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }

    /// Calls a method of the task service; `None` waits for as long as it takes.
    pub(crate) async fn call<Q, A>(
        &self,
        method: &'static str,
        request: Q,
        limit: Option<Duration>,
    ) -> Result<A, CallError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let version = self.link.version.load(Ordering::Acquire);
        if version > 0 {
            return self.call_version(version, method, request, limit).await;
        }
        let called = self.call_version(-version, method, request.clone(), limit).await;
        let confirmed = match &called {
            Err(CallError::Refused(error)) if error.kind() == ErrorKind::NotImplemented => {
                let older = self.call_version(2, method, request, limit).await;
                if matches!(&older, Err(CallError::Refused(error)) if error.kind() == ErrorKind::NotImplemented)
                {
                    return called;
                }
                tracing::debug!(task = %self.key, "the shim serves only version 2 of the task API");
                self.link.version.store(2, Ordering::Release);
                return older;
            }
            Ok(_) | Err(CallError::Refused(_)) => -version,
            Err(CallError::Closed | CallError::Late { .. }) => version,
        };
        self.link.version.store(confirmed, Ordering::Release);
        called
    }

    /// Calls a method of the sandbox service; `None` waits for as long as it takes.
    pub(crate) async fn call_sandbox<Q, A>(
        &self,
        method: &'static str,
        request: Q,
        limit: Option<Duration>,
    ) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_service("containerd.runtime.sandbox.v1.Sandbox", method, request, limit).await
    }

    async fn call_version<Q, A>(
        &self,
        version: i32,
        method: &'static str,
        request: Q,
        limit: Option<Duration>,
    ) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let service = if version >= 3 { "containerd.task.v3.Task" } else { "containerd.task.v2.Task" };
        self.call_service(service, method, request, limit).await
    }

    async fn call_service<Q, A>(
        &self,
        service: &str,
        method: &'static str,
        request: Q,
        limit: Option<Duration>,
    ) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        match &self.wire {
            Wire::Ttrpc(client) => {
                let called = client.call(service, method, &request, limit).await;
                called.map_err(|error| from_ttrpc(error, method, limit))
            }
            Wire::Grpc(channel) => {
                let namespace = self.key.namespace.as_str();
                let called = channel.call(service, method, namespace, request, limit).await;
                called.map_err(|status| match status {
                    grpc::Failure::Closed => CallError::Closed,
                    grpc::Failure::Late => late(method, limit),
                    grpc::Failure::Refused(error) => CallError::Refused(error),
                })
            }
        }
    }
}

impl fmt::Debug for Shim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shim").field("key", &self.key).finish_non_exhaustive()
    }
}

fn late(method: &'static str, limit: Option<Duration>) -> CallError {
    CallError::Late { method, limit: limit.unwrap_or_default() }
}

fn from_ttrpc(error: berth_ttrpc::Error, method: &'static str, limit: Option<Duration>) -> CallError {
    match error {
        berth_ttrpc::Error::Status(status) if status.code == Code::Ok => {
            CallError::Refused(Error::unknown(status.message))
        }
        berth_ttrpc::Error::Status(status) => {
            CallError::Refused(Error::new(proto::status::kind(status.code.into()), status.message))
        }
        berth_ttrpc::Error::Closed | berth_ttrpc::Error::Io(_) => CallError::Closed,
        berth_ttrpc::Error::Timeout => late(method, limit),
        berth_ttrpc::Error::Decode(source) => CallError::Refused(
            Error::unknown(format!("the shim's answer to {method} is malformed")).caused_by(source),
        ),
    }
}
