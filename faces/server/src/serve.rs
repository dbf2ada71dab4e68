//! Which services there are, and how long they are served.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use berth_core::{Catalog, Snapshotter};
use berth_proto as proto;
use berth_types::{Error, Result};
use proto::containerd::services as api;
use proto::grpc::health::v1::health_server::HealthServer;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::guard::Guard;
use crate::mutations::Mutations;
use crate::shared::Shared;
use crate::socket::Socket;
use crate::ttrpc::ForwardedEvents;
use crate::{
    containers, content, controllers, diff, events, health, images, introspection, leases, mounts,
    namespaces, sandboxes, snapshots, streaming, tasks, transfer, version,
};

/// How long the changes under way may take when the daemon is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long their answers may take to leave.
const LINGER: Duration = Duration::from_millis(100);
/// Calls on one connection. Go's servers know no limit and clients count on it: dockerd waits for every
/// container on the same connection.
const STREAMS: u32 = 1 << 20;
/// Streams that a client cancelled before they were looked at; the default of 20 closes busy connections.
const RESETS: usize = 4096;

/// The longest messages, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From clients.
    pub receive: usize,
    /// To clients.
    pub send: usize,
}

impl Default for Limits {
    /// containerd's 16 MiB.
    fn default() -> Self {
        Self { receive: 16 << 20, send: 16 << 20 }
    }
}

/// Where to serve.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub grpc: Socket,
    /// For shims.
    pub ttrpc: Socket,
    /// Of the clients' messages.
    pub limits: Limits,
}

/// More services beside ours, added by somebody who learns how long clients' messages may be.
pub type MoreServices = Box<dyn FnOnce(Routes, usize) -> Routes + Send>;

/// Serves `catalog`, and `more` on the clients' socket, until `shutdown` resolves, then takes no more calls, waits a while for the changes under way
/// and removes the sockets. Streams and waits of clients end with it.
pub async fn serve(
    catalog: Arc<dyn Catalog>,
    listeners: Listeners,
    more: MoreServices,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let Listeners { grpc, ttrpc, limits } = listeners;
    let (grpc, grpc_file) = grpc.into_parts();
    let (ttrpc, ttrpc_file) = ttrpc.into_parts();
    let mutations = Mutations::new();
    let shared = Shared { catalog: catalog.clone(), mutations: mutations.clone(), max_send: limits.send };
    let stop = watch::Sender::new(false);

    let clients = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .layer(tower::layer::layer_fn(Guard))
        .add_routes(more(routes(&shared, limits.receive, &stop.subscribe()), limits.receive))
        .serve_with_incoming_shutdown(UnixListenerStream::new(grpc), told(stop.subscribe()));
    let shims =
        berth_ttrpc::tokio::Server::new(ForwardedEvents(catalog)).serve(ttrpc, told(stop.subscribe()));
    tokio::pin!(clients, shims);

    let result = tokio::select! {
        () = shutdown => Ok(()),
        result = &mut clients => Err(match result {
            Ok(()) => Error::internal("the gRPC server ended by itself"),
            Err(error) => Error::internal("the gRPC server failed").caused_by(error),
        }),
        () = &mut shims => Err(Error::internal("the ttrpc server ended by itself")),
    };
    stop.send_replace(true);
    if result.is_ok() {
        let settled = async {
            tokio::join!(&mut shims, mutations.idle());
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            _ = &mut clients => mutations.idle().await,
            ended = tokio::time::timeout(GRACE, settled) => if ended.is_err() {
                tracing::warn!("requests were still under way after {GRACE:?}");
            },
        }
    }
    grpc_file.remove();
    ttrpc_file.remove();
    result
}

/// Serves one snapshotter to daemons that have it in `[proxy_plugins]`, until `shutdown` resolves; then waits a while for
/// the changes under way and removes the socket.
pub async fn serve_snapshotter(
    snapshotter: Arc<dyn Snapshotter>,
    socket: Socket,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    type Service = api::snapshots::v1::snapshots_server::SnapshotsServer<snapshots::Snapshots>;
    let mutations = Mutations::new();
    let limit = Limits::default().receive;
    let service = Service::new(snapshots::Snapshots::one(snapshotter, mutations.clone()));
    let routes =
        Routes::new(service.max_decoding_message_size(limit)).add_service(HealthServer::new(health::Health));
    let (listener, file) = socket.into_parts();
    let stop = watch::Sender::new(false);
    let serving = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .layer(tower::layer::layer_fn(Guard))
        .add_routes(routes)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), told(stop.subscribe()));
    tokio::pin!(serving);
    let result = tokio::select! {
        () = shutdown => Ok(()),
        _ = &mut serving => Err(Error::internal("the gRPC server ended by itself")),
    };
    stop.send_replace(true);
    if result.is_ok() {
        let settled = async {
            mutations.idle().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            _ = &mut serving => mutations.idle().await,
            ended = tokio::time::timeout(GRACE, settled) => if ended.is_err() {
                tracing::warn!("requests were still under way after {GRACE:?}");
            },
        }
    }
    file.remove();
    result
}

/// Every service.
fn routes(shared: &Shared, receive: usize, stop: &watch::Receiver<bool>) -> Routes {
    macro_rules! service {
        ($server:path, $service:expr) => {
            <$server>::new($service).max_decoding_message_size(receive)
        };
    }
    type Version = api::version::v1::version_server::VersionServer<version::Version>;
    type Introspection =
        api::introspection::v1::introspection_server::IntrospectionServer<introspection::Introspection>;
    type Namespaces = api::namespaces::v1::namespaces_server::NamespacesServer<namespaces::Namespaces>;
    type Containers = api::containers::v1::containers_server::ContainersServer<containers::Containers>;
    type Images = api::images::v1::images_server::ImagesServer<images::Images>;
    type Content = api::content::v1::content_server::ContentServer<content::Content>;
    type Snapshots = api::snapshots::v1::snapshots_server::SnapshotsServer<snapshots::Snapshots>;
    type OwnSnapshots =
        berth_proto::berth::snapshots::v1::snapshots_server::SnapshotsServer<snapshots::Snapshots>;
    type Diff = api::diff::v1::diff_server::DiffServer<diff::Diff>;
    type Leases = api::leases::v1::leases_server::LeasesServer<leases::Leases>;
    type Mounts = api::mounts::v1::mounts_server::MountsServer<mounts::Mounts>;
    type SandboxStore = api::sandbox::v1::store_server::StoreServer<sandboxes::Sandboxes>;
    type Controllers = api::sandbox::v1::controller_server::ControllerServer<controllers::Controllers>;
    type Events = api::events::v1::events_server::EventsServer<events::Events>;
    type Streaming = api::streaming::v1::streaming_server::StreamingServer<streaming::Streaming>;
    type Transfer = api::transfer::v1::transfer_server::TransferServer<transfer::Transfer>;
    type Tasks = api::tasks::v1::tasks_server::TasksServer<tasks::Tasks>;

    let s = || shared.clone();
    let pipes = streaming::Pipes::default();
    let transfer = transfer::Transfer { shared: s(), pipes: pipes.clone(), stop: stop.clone() };
    Routes::new(service!(Version, version::Version(s())))
        .add_service(service!(Introspection, introspection::Introspection(s())))
        .add_service(service!(Namespaces, namespaces::Namespaces(s())))
        .add_service(service!(Containers, containers::Containers(s())))
        .add_service(service!(Images, images::Images(s())))
        .add_service(service!(Content, content::Content(s())))
        .add_service(service!(Snapshots, snapshots::Snapshots::of(s())))
        .add_service(service!(OwnSnapshots, snapshots::Snapshots::of(s())))
        .add_service(service!(Diff, diff::Diff(s())))
        .add_service(service!(Leases, leases::Leases(s(), pipes.clone())))
        .add_service(service!(Mounts, mounts::Mounts(s())))
        .add_service(service!(SandboxStore, sandboxes::Sandboxes(s())))
        .add_service(service!(Controllers, controllers::Controllers(s())))
        .add_service(service!(Events, events::Events(s())))
        .add_service(service!(Tasks, tasks::Tasks(s())))
        .add_service(service!(Streaming, streaming::Streaming(pipes)))
        .add_service(service!(Transfer, transfer))
        .add_service(HealthServer::new(health::Health))
}

async fn told(mut stop: watch::Receiver<bool>) {
    // An error means that the server itself is gone, which says the same.
    let _ = stop.wait_for(|stop| *stop).await;
}
