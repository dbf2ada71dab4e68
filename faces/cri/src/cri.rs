//! What both services share.

use std::sync::{Arc, OnceLock};

use berth_core::{Catalog, ContentStore, Images, Scope};
use berth_nri::Nri;
use berth_proto::runtime::v1 as proto;
use berth_streaming::{Server, Urls};
use berth_types::{Error, Namespace, Result};
use proto::image_service_server::ImageServiceServer;
use proto::runtime_service_server::RuntimeServiceServer;
use tonic::service::Routes;

use crate::ability::Asked;
use crate::config::Config;
use crate::container::Container;
use crate::diary::Failures;
use crate::events::Events;
use crate::image::Known;
use crate::nursery::Nursery;
use crate::pod::{Networks, Pod};
use crate::service;
use crate::session::Streams;
use crate::stats::Rates;
use crate::table::Table;

/// The namespace in which Kubernetes' containers and images are.
const NAMESPACE: &str = "k8s.io";

/// The Container Runtime Interface over a catalog.
pub struct Cri {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) scope: Scope,
    pub(crate) config: Config,
    pub(crate) known: Known,
    pub(crate) asked: Asked,
    pub(crate) pods: Table<Pod>,
    pub(crate) containers: Table<Container>,
    pub(crate) networks: Networks,
    pub(crate) events: Events,
    pub(crate) nursery: Nursery,
    pub(crate) failures: Failures,
    pub(crate) rates: Rates,
    pub(crate) urls: OnceLock<Urls>,
    /// Set once pods and containers are known, unless it is disabled.
    pub(crate) nri: OnceLock<Nri>,
}

impl Cri {
    /// Opens it, and takes up the pods and containers of the daemon before this one.
    pub async fn open(config: Config, catalog: Arc<dyn Catalog>) -> Result<Arc<Self>> {
        let namespace: Namespace = NAMESPACE.parse().map_err(|error| {
            Error::internal("the namespace of Kubernetes has no valid name").caused_by(error)
        })?;
        let cri = Arc::new(Self {
            networks: Networks::new(&config.pods),
            catalog,
            scope: Scope::new(namespace),
            config,
            known: Known::default(),
            asked: Asked::default(),
            pods: Table::default(),
            containers: Table::default(),
            events: Events::default(),
            nursery: Nursery::open(),
            failures: Failures::default(),
            rates: Rates::default(),
            urls: OnceLock::new(),
            nri: OnceLock::new(),
        });
        cri.recover_pods().await?;
        cri.recover_containers().await?;
        cri.settle_pods().await;
        cri.open_plugins().await?;
        // A machine may have no address yet; whoever wants a stream first lets it be tried again.
        if let Err(error) = cri.listen().await {
            tracing::warn!("commands and ports cannot be streamed for now: {}", error.chain());
        }
        Ok(cri)
    }

    /// Lets streams come in. Idempotent.
    pub(crate) async fn listen(self: &Arc<Self>) -> Result<()> {
        if self.urls.get().is_some() {
            return Ok(());
        }
        let streams = Arc::new(Streams(Arc::downgrade(self)));
        let server = Server::open(&self.config.streaming, streams).await?;
        // Of two at the same time one is enough.
        if self.urls.set(server.urls()).is_ok() {
            self.nursery.spawn(server.run(std::future::pending()));
        }
        Ok(())
    }

    /// Ends what goes on in the background. Pods and containers go on.
    pub async fn close(&self) {
        self.nursery.close().await;
        self.close_plugins().await;
    }

    /// Adds its services to those of a server which takes messages of up to `receive` bytes.
    pub fn serve(self: &Arc<Self>, routes: Routes, receive: usize) -> Routes {
        let runtime = RuntimeServiceServer::new(service::Runtime(self.clone()));
        let image = ImageServiceServer::new(service::Image(self.clone()));
        routes
            .add_service(runtime.max_decoding_message_size(receive))
            .add_service(image.max_decoding_message_size(receive))
    }

    pub(crate) fn images(&self) -> Arc<dyn Images> {
        self.catalog.images(&self.scope)
    }

    pub(crate) fn content(&self) -> Arc<dyn ContentStore> {
        self.catalog.content(&self.scope)
    }
}
