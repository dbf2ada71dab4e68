//! Everything that this daemon has, by name and scope.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use berth_client::Client;
use berth_core::{
    ApplyRequest, Catalog, CompareRequest, Containers, ContentStore, Differ, Events, Images, Introspection,
    Leases, Mounts, Namespaces, SandboxController, Sandboxes, Scope, Snapshotter, Tasks, Transfers,
};
use berth_cri::Cri;
use berth_diff::{ImageForm, Processor, Walking};
use berth_metadata::Metadata;
use berth_mounts::Activations;
use berth_registry::Registries;
use berth_runtime::{Exchange, Runtime};
use berth_transfer::{Service, Settings};
use berth_types::{Any, Descriptor, Error, ErrorKind, Result, SnapshotterName};

use crate::activated::Activated;
use crate::introspection::{Details, Parts};
use crate::proxy;

/// The handles of this daemon. Clones share everything.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) activations: Activations,
    pub(crate) differs: Arc<Differs>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) introspection: Arc<Parts>,
    pub(crate) registries: Registries,
    pub(crate) transfers: Settings,
    pub(crate) controllers: Arc<Controllers>,
}

/// The differs in the order in which they are tried.
pub(crate) struct Differs {
    pub(crate) order: Vec<DifferSource>,
    /// Programs for layers that cannot be unpacked as they are.
    pub(crate) processors: Arc<[Processor]>,
    /// What layers become in erofs snapshots.
    pub(crate) images: ImageForm,
    /// Whether every layer has to be on disk before the answer.
    pub(crate) sync: bool,
}

impl Differs {
    /// Whether every layer is this daemon's own to unpack.
    pub(crate) fn are_own(&self) -> bool {
        self.order.iter().all(|source| matches!(source, DifferSource::Walking))
    }
}

/// Where a differ comes from.
pub(crate) enum DifferSource {
    Walking,
    Remote(Client),
}

impl Catalog for Own {
    fn namespaces(&self) -> Arc<dyn Namespaces> {
        self.metadata.namespaces()
    }

    fn content(&self, scope: &Scope) -> Arc<dyn ContentStore> {
        self.metadata.content(scope)
    }

    fn snapshotter(&self, name: &SnapshotterName, scope: &Scope) -> Result<Arc<dyn Snapshotter>> {
        self.metadata.snapshotter(name, scope)
    }

    fn differ(&self, scope: &Scope) -> Arc<dyn Differ> {
        let order = self.differs.order.iter().map(|source| match source {
            DifferSource::Walking => {
                let walking = Walking::new(self.metadata.content(scope));
                let walking = walking.with_images(self.differs.images);
                let differ = Arc::new(walking.with_processors(self.differs.processors.clone()));
                Arc::new(Activated { differ, mounts: self.activations.mounts(scope) }) as Arc<dyn Differ>
            }
            DifferSource::Remote(client) => proxy::differ(client, scope),
        });
        Arc::new(Ordered { order: order.collect(), sync: self.differs.sync })
    }

    fn images(&self, scope: &Scope) -> Arc<dyn Images> {
        self.metadata.images(scope)
    }

    fn containers(&self, scope: &Scope) -> Arc<dyn Containers> {
        self.metadata.containers(scope)
    }

    fn sandboxes(&self, scope: &Scope) -> Option<Arc<dyn Sandboxes>> {
        Some(self.metadata.sandboxes(scope))
    }

    fn controller(&self, name: &str, scope: &Scope) -> Result<Arc<dyn SandboxController>> {
        self.controllers.controller(name, scope, &self.runtime)
    }

    fn leases(&self, scope: &Scope) -> Arc<dyn Leases> {
        self.metadata.leases(scope)
    }

    fn mounts(&self, scope: &Scope) -> Option<Arc<dyn Mounts>> {
        Some(self.activations.mounts(scope))
    }

    fn tasks(&self, scope: &Scope) -> Arc<dyn Tasks> {
        self.runtime.tasks(scope)
    }

    fn events(&self) -> Arc<dyn Events> {
        self.exchange.clone()
    }

    fn transfers(&self, scope: &Scope) -> Option<Arc<dyn Transfers>> {
        let (catalog, registries) = (Arc::new(self.clone()), self.registries.clone());
        let service = Service::new(catalog, scope.clone(), registries);
        Some(Arc::new(service.with_settings(self.transfers.clone())))
    }

    fn introspection(&self) -> Arc<dyn Introspection> {
        self.introspection.clone()
    }
}

/// What runs sandboxes beside the shims.
#[derive(Default)]
pub(crate) struct Controllers {
    /// Kubernetes' pods, once their interface is open.
    pub(crate) pods: OnceLock<Arc<Cri>>,
    /// Those that are other processes, by their name.
    pub(crate) remote: BTreeMap<String, Client>,
}

impl Controllers {
    fn controller(&self, name: &str, scope: &Scope, runtime: &Runtime) -> Result<Arc<dyn SandboxController>> {
        match name {
            "shim" => return Ok(runtime.sandboxes(scope)),
            "podsandbox" => {
                if let Some(pods) = self.pods.get() {
                    return Ok(pods.controller(scope));
                }
            }
            _ => {}
        }
        let known = || {
            let own = ["shim"].into_iter().chain(self.pods.get().map(|_| "podsandbox"));
            own.chain(self.remote.keys().map(String::as_str)).collect::<Vec<_>>().join(", ")
        };
        let remote = self.remote.get(name).ok_or_else(|| {
            Error::not_found(format!("failed to get sandbox controller by {name}: there are {}", known()))
        })?;
        remote.controller(name, scope)
    }
}

/// Several differs as one: the first that does not answer NotImplemented answers.
struct Ordered {
    order: Vec<Arc<dyn Differ>>,
    sync: bool,
}

fn none() -> Error {
    Error::not_implemented("no differ can do that")
}

#[async_trait]
impl Differ for Ordered {
    async fn apply(&self, request: ApplyRequest) -> Result<Descriptor> {
        let request = ApplyRequest { sync: request.sync || self.sync, ..request };
        let mut answer = Err(none());
        for differ in &self.order {
            answer = differ.apply(request.clone()).await;
            if !matches!(&answer, Err(error) if error.kind() == ErrorKind::NotImplemented) {
                break;
            }
        }
        answer
    }

    async fn compare(&self, request: CompareRequest) -> Result<Descriptor> {
        let mut answer = Err(none());
        for differ in &self.order {
            answer = differ.compare(request.clone()).await;
            if !matches!(&answer, Err(error) if error.kind() == ErrorKind::NotImplemented) {
                break;
            }
        }
        answer
    }
}

/// What introspection passes on to the runtime.
pub(crate) struct RuntimeDetails(pub(crate) Arc<Runtime>);

#[async_trait]
impl Details for RuntimeDetails {
    async fn details(&self, options: Any) -> Result<Any> {
        self.0.info(&options).await
    }
}
