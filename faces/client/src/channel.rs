//! The channel: one HTTP/2 connection over a unix socket, opened by the first request, and what its failures mean.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_proto::status;
use berth_types::{Error, ErrorKind};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Endpoint, Uri};
use tonic::{Code, Status, TimeoutExpired};

/// A local daemon takes a connection at once or not at all.
const CONNECT: Duration = Duration::from_secs(10);

/// Flow control windows that keep a local socket busy with messages of a mebibyte.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Why the socket could not be connected; found again in the causes of a status.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {}", path.display())]
struct Connect {
    path: PathBuf,
    source: io::Error,
}

/// A connection that was made to see whether somebody is there, for the first request to take.
pub(crate) type Spare = Arc<Mutex<Option<std::os::unix::net::UnixStream>>>;

/// A channel to the daemon at `path`, which connects when it is first used and again after it broke. Must be made
/// inside a tokio runtime.
pub(crate) fn open(path: &Path, spare: &Spare) -> tonic::transport::Channel {
    let (path, spare): (Arc<Path>, Spare) = (path.into(), Arc::clone(spare));
    let connector = tower::service_fn(move |_: Uri| {
        let path = Arc::clone(&path);
        let there = spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            let connected = match there {
                Some(stream) => stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)),
                None => UnixStream::connect(&*path).await,
            };
            match connected {
                Ok(stream) => Ok(TokioIo::new(stream)),
                Err(source) => Err(Connect { path: path.to_path_buf(), source }),
            }
        }
    });
    // The authority is not used for anything, but HTTP wants one; containerd's clients say localhost.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .tcp_nodelay(false)
        .connect_with_connector_lazy(connector)
}

/// The error that a status stands for, told apart by who failed: the daemon, or the way to it.
pub(crate) fn error(address: &Path, status: Status) -> Error {
    if let Some(connect) = cause::<Connect>(&status) {
        return connection_error(connect);
    }
    if cause::<TimeoutExpired>(&status).is_some() {
        let text = format!("the daemon at {} did not answer in time", address.display());
        return Error::deadline_exceeded(text);
    }
    let lost = cause::<tonic::transport::Error>(&status).is_some()
        || (matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable | Code::Cancelled)
            && status.source().is_some());
    if lost {
        let text = format!("the connection to the daemon at {} broke", address.display());
        return Error::unavailable(text).caused_by(status::from_status(status));
    }
    // Where Go says ResourceExhausted of a message that is too large, tonic says OutOfRange.
    if status.code() == Code::OutOfRange && status.message().contains("message length too large") {
        return Error::new(ErrorKind::ResourceExhausted, status.message());
    }
    status::from_status(status)
}

fn connection_error(connect: &Connect) -> Error {
    let at = connect.path.display();
    let (kind, text) = match connect.source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            (ErrorKind::Unavailable, format!("no daemon answers at {at}; start it with `berth system start`"))
        }
        io::ErrorKind::PermissionDenied => (
            ErrorKind::PermissionDenied,
            format!(
                "you may not use the daemon's socket {at}; run the command as root, for example with sudo"
            ),
        ),
        _ => (ErrorKind::Unavailable, format!("cannot connect to the daemon at {at}")),
    };
    // The cause belongs to the status; its text and errno are all that is worth keeping.
    let source = connect.source.raw_os_error().map_or_else(
        || io::Error::new(connect.source.kind(), connect.source.to_string()),
        io::Error::from_raw_os_error,
    );
    Error::new(kind, text).caused_by(source)
}

/// A cause of that type, however deep.
fn cause<'a, E: StdError + 'static>(status: &'a Status) -> Option<&'a E> {
    let mut next: Option<&'a (dyn StdError + 'static)> = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
