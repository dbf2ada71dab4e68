//! The channel in one scope: requests with its headers, a deadline, and errors in the seam's terms.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_core::Scope;
use berth_types::{Error, Result};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// How long a daemon may take for what changes records and touches no data.
pub(crate) const RECORDS: Option<Duration> = Some(Duration::from_mins(1));

/// How long for what may start a process, freeze one, or walk and write a tree.
pub(crate) const WORK: Option<Duration> = Some(Duration::from_mins(30));

/// For calls that wait for an event, or that last as long as their data.
pub(crate) const FOREVER: Option<Duration> = None;

/// Messages may be as large as containerd's.
pub(crate) const MESSAGE_LIMIT: usize = 16 << 20;

/// The channel as one scope uses it.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) channel: Channel,
    address: Arc<Path>,
    scope: Option<Scope>,
}

impl Bound {
    pub(crate) fn new(channel: Channel, address: Arc<Path>) -> Self {
        Self { channel, address, scope: None }
    }

    pub(crate) fn to(&self, scope: &Scope) -> Self {
        Self { scope: Some(scope.clone()), ..self.clone() }
    }

    pub(crate) fn address(&self) -> &Path {
        &self.address
    }

    /// A message with the scope's headers and a deadline that the daemon is told too.
    pub(crate) fn request<T>(&self, message: T, deadline: Option<Duration>) -> Result<Request<T>> {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        if let Some(scope) = &self.scope {
            let headers = request.metadata_mut();
            headers.insert("containerd-namespace", header("namespace", scope.namespace.as_str())?);
            if let Some(lease) = &scope.lease {
                headers.insert("containerd-lease", header("lease id", lease.as_str())?);
            }
        }
        Ok(request)
    }

    /// What a status means here.
    pub(crate) fn error(&self, status: Status) -> Error {
        crate::channel::error(&self.address, status)
    }
}

fn header(what: &str, text: &str) -> Result<MetadataValue<Ascii>> {
    text.parse().map_err(|source| {
        Error::invalid_argument(format!("{what} {text:?} cannot be sent in a header")).caused_by(source)
    })
}

/// The generated client of a service on the scope's channel, with the limits of this crate.
macro_rules! service {
    ($client:ty, $bound:expr) => {
        <$client>::new($bound.channel.clone())
            .max_decoding_message_size($crate::bound::MESSAGE_LIMIT)
            .max_encoding_message_size($crate::bound::MESSAGE_LIMIT)
    };
}

/// One unary call: `call!(self.bound, ClientType, method, message, deadline)`.
macro_rules! call {
    ($bound:expr, $client:ty, $method:ident, $message:expr, $deadline:expr) => {{
        let bound = &$bound;
        let request = bound.request($message, $deadline)?;
        $crate::bound::service!($client, bound)
            .$method(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| bound.error(status))
    }};
}

pub(crate) use {call, service};
