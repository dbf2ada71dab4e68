//! A catalog that is served, and clients of it.

use std::sync::Arc;

use berth_client::Client;
use berth_core::Scope;
use berth_server::{Limits, Listeners, Owner, Socket, serve};
use berth_types::Result;
use hyper_util::rt::TokioIo;
use testkit::Scratch;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::catalog::Stores;

/// A server of stores in a folder of their own.
pub(crate) struct Served {
    pub(crate) scratch: Scratch,
    pub(crate) stores: Arc<Stores>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<()>>>,
}

impl Served {
    pub(crate) fn start() -> Self {
        let scratch = Scratch::new();
        let stores = Stores::open(scratch.folder());
        let owner =
            Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let listeners = Listeners {
            grpc: Socket::bind(&scratch.path("d.sock"), owner).unwrap(),
            ttrpc: Socket::bind(&scratch.path("d.sock.ttrpc"), owner).unwrap(),
            limits: Limits::default(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let alone = Box::new(|routes, _| routes);
        let serving = tokio::spawn(serve(stores.clone(), listeners, alone, async { drop(stopped.await) }));
        Self { scratch, stores, stop: Some(stop), serving: Some(serving) }
    }

    /// berth's own client.
    pub(crate) fn client(&self) -> Arc<Client> {
        Arc::new(Client::connect(self.scratch.path("d.sock")))
    }

    /// A connection for the generated clients.
    pub(crate) fn channel(&self) -> Channel {
        let path = self.scratch.path("d.sock");
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
    }

    /// Tells the server to stop and waits for its end.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        drop(self.stop.take());
        self.serving.take().expect("it serves").await.unwrap()
    }
}

pub(crate) fn scope() -> Scope {
    Scope::new("test".parse().unwrap())
}

/// A request in the namespace of these tests.
pub(crate) fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "test".parse().unwrap());
    request
}
