//! Everything that a daemon has, by name and scope.

use std::sync::Arc;

use berth_types::{Error, Result, SnapshotterName};

use crate::{
    Containers, ContentStore, Differ, Events, Images, Introspection, Leases, Mounts, Namespaces,
    SandboxController, Sandboxes, Scope, Snapshotter, Tasks, Transfers,
};

/// The handles of a daemon, its own or a remote one's. Asking for a handle is cheap and does no
/// I/O.
pub trait Catalog: Send + Sync {
    /// Namespaces.
    fn namespaces(&self) -> Arc<dyn Namespaces>;

    /// Content as one namespace sees it.
    fn content(&self, scope: &Scope) -> Arc<dyn ContentStore>;

    /// A snapshotter as one namespace sees it. Unknown names are InvalidArgument where that is
    /// known without asking.
    fn snapshotter(&self, name: &SnapshotterName, scope: &Scope) -> Result<Arc<dyn Snapshotter>>;

    /// Layers, over the content of one namespace.
    fn differ(&self, scope: &Scope) -> Arc<dyn Differ>;

    /// Images.
    fn images(&self, scope: &Scope) -> Arc<dyn Images>;

    /// Containers.
    fn containers(&self, scope: &Scope) -> Arc<dyn Containers>;

    /// Leases.
    fn leases(&self, scope: &Scope) -> Arc<dyn Leases>;

    /// Tasks.
    fn tasks(&self, scope: &Scope) -> Arc<dyn Tasks>;

    /// Events of every namespace.
    fn events(&self) -> Arc<dyn Events>;

    /// Sandboxes, for a catalog that keeps them.
    fn sandboxes(&self, _scope: &Scope) -> Option<Arc<dyn Sandboxes>> {
        None
    }

    /// Mounts that it performs for clients, for a catalog that does.
    fn mounts(&self, _scope: &Scope) -> Option<Arc<dyn Mounts>> {
        None
    }

    /// What runs sandboxes, by its name. NotFound for one that the catalog does not have.
    fn controller(&self, name: &str, _scope: &Scope) -> Result<Arc<dyn SandboxController>> {
        Err(Error::not_found(format!("failed to get sandbox controller by {name}")))
    }

    /// Images in and out, for a catalog that does that by itself.
    fn transfers(&self, _scope: &Scope) -> Option<Arc<dyn Transfers>> {
        None
    }

    /// What it is made of.
    fn introspection(&self) -> Arc<dyn Introspection>;
}
