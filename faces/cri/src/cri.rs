//! What both services share.

use std::sync::Arc;

use berth_core::{Catalog, ContentStore, Images, Scope};
use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Namespace, Result};
use proto::image_service_server::ImageServiceServer;
use proto::runtime_service_server::RuntimeServiceServer;
use tonic::service::Routes;

use crate::config::Config;
use crate::image::Known;
use crate::service;

/// The namespace in which Kubernetes' containers and images are.
const NAMESPACE: &str = "k8s.io";

/// The Container Runtime Interface over a catalog.
pub struct Cri {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) scope: Scope,
    pub(crate) config: Config,
    pub(crate) known: Known,
}

impl Cri {
    /// Opens it. There is nothing to wait for.
    pub fn open(config: Config, catalog: Arc<dyn Catalog>) -> Result<Arc<Self>> {
        let namespace: Namespace = NAMESPACE.parse().map_err(|error| {
            Error::internal("the namespace of Kubernetes has no valid name").caused_by(error)
        })?;
        Ok(Arc::new(Self { catalog, scope: Scope::new(namespace), config, known: Known::default() }))
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
