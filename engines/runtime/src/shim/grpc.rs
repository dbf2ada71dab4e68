//! gRPC to a shim: one connection, made once, whose end is noticed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use berth_proto as proto;
use berth_types::Error;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Endpoint, Uri};
use tonic_prost::ProstCodec;

/// The header of a call's namespace.
const NAMESPACE_HEADER: &str = "containerd-namespace";

/// A connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Channel {
    channel: tonic::transport::Channel,
    closed: watch::Receiver<bool>,
}

/// Why a call failed.
pub(crate) enum Failure {
    Closed,
    Late,
    Refused(Error),
}

impl Channel {
    /// Speaks over a connected socket, and never over another one: a shim that is gone stays gone.
    pub(crate) async fn open(stream: UnixStream) -> io::Result<Self> {
        let (tell, closed) = watch::channel(false);
        let socket = Arc::new(Mutex::new(Some(Socket { stream, closed: tell })));
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { socket.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        // The name is never looked up.
        let endpoint = Endpoint::from_static("http://shim");
        let channel = endpoint.connect_with_connector(connector).await.map_err(io::Error::other)?;
        Ok(Self { channel, closed })
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(crate) async fn closed(&self) {
        // A sender that is dropped says the same.
        let _ = self.closed.clone().wait_for(|closed| *closed).await;
    }

    pub(crate) async fn call<Q, A>(
        &self,
        service: &str,
        method: &str,
        namespace: &str,
        message: Q,
        limit: Option<Duration>,
    ) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/{service}/{method}"))
            .map_err(|source| Failure::Refused(Error::internal("no path of a method").caused_by(source)))?;
        let mut request = tonic::Request::new(message);
        if let Ok(value) = namespace.parse() {
            request.metadata_mut().insert(NAMESPACE_HEADER, value);
        }
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let call = async {
            client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            client.unary(request, path, ProstCodec::<Q, A>::default()).await
        };
        let called = match limit {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit, call).await.map_err(|_| Failure::Late)?,
        };
        called.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled if self.is_closed() => Failure::Closed,
            _ => Failure::Refused(proto::status::from_status(status)),
        })
    }
}

/// The socket, which tells when nobody holds it any more.
struct Socket {
    stream: UnixStream,
    closed: watch::Sender<bool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.closed.send_replace(true);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
