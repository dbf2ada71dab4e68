//! The client: a catalog whose handles are a channel in a scope.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use berth_core::{
    Catalog, Containers, ContentStore, Differ, Events, Images, Introspection, Leases, Mounts, Namespaces,
    SandboxController, Scope, Snapshotter, Tasks,
};
use berth_types::{Result, SnapshotterName};

use crate::bound::Bound;
use crate::channel::Spare;
use crate::{
    Pods, channel, containers, content, controllers, diff, events, images, introspection, leases, mounts,
    namespaces, snapshots, tasks,
};

/// A daemon at a socket. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    bound: Bound,
    spare: Spare,
}

impl Client {
    /// A client of the daemon at a unix socket, given as a path or as `unix://PATH`. Does no I/O: the first
    /// request connects. Must be called inside a tokio runtime.
    pub fn connect(address: impl AsRef<Path>) -> Self {
        let address = address.as_ref();
        let path = match address.to_str().and_then(|text| text.strip_prefix("unix://")) {
            Some(path) => PathBuf::from(path),
            None => address.to_owned(),
        };
        let spare = Spare::default();
        Self { bound: Bound::new(channel::open(&path, &spare), path.into()), spare }
    }

    /// The socket.
    pub fn address(&self) -> &Path {
        self.bound.address()
    }

    /// What Kubernetes has there.
    pub fn pods(&self) -> Pods {
        Pods(self.bound.clone())
    }

    /// Whether something listens at the socket, right now. Blocks for one local connect at most, and that connection
    /// is the one which the first request takes.
    pub fn is_listening(&self) -> bool {
        let connected = UnixStream::connect(self.address()).ok();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        *spare = connected;
        spare.is_some()
    }
}

impl Catalog for Client {
    fn namespaces(&self) -> Arc<dyn Namespaces> {
        Arc::new(namespaces::Remote(self.bound.clone()))
    }

    fn content(&self, scope: &Scope) -> Arc<dyn ContentStore> {
        Arc::new(content::Remote(self.bound.to(scope)))
    }

    fn snapshotter(&self, name: &SnapshotterName, scope: &Scope) -> Result<Arc<dyn Snapshotter>> {
        Ok(Arc::new(snapshots::Remote { bound: self.bound.to(scope), name: name.to_string() }))
    }

    fn differ(&self, scope: &Scope) -> Arc<dyn Differ> {
        Arc::new(diff::Remote(self.bound.to(scope)))
    }

    fn images(&self, scope: &Scope) -> Arc<dyn Images> {
        Arc::new(images::Remote(self.bound.to(scope)))
    }

    fn containers(&self, scope: &Scope) -> Arc<dyn Containers> {
        Arc::new(containers::Remote(self.bound.to(scope)))
    }

    fn leases(&self, scope: &Scope) -> Arc<dyn Leases> {
        Arc::new(leases::Remote(self.bound.to(scope)))
    }

    fn mounts(&self, scope: &Scope) -> Option<Arc<dyn Mounts>> {
        Some(Arc::new(mounts::Remote(self.bound.to(scope))))
    }

    fn tasks(&self, scope: &Scope) -> Arc<dyn Tasks> {
        Arc::new(tasks::Remote(self.bound.to(scope)))
    }

    fn controller(&self, name: &str, scope: &Scope) -> Result<Arc<dyn SandboxController>> {
        Ok(Arc::new(controllers::Remote { bound: self.bound.to(scope), name: name.to_owned() }))
    }

    fn events(&self) -> Arc<dyn Events> {
        Arc::new(events::Remote(self.bound.clone()))
    }

    fn introspection(&self) -> Arc<dyn Introspection> {
        Arc::new(introspection::Remote(self.bound.clone()))
    }
}
