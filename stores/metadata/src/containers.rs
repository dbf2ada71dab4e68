//! Container records.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{Containers, Scope};
use berth_types::filter::Filters;
use berth_types::{Container, ContainerId, ContainerUpdate, Error, Event, FieldMask, Result};

use crate::key::{Kind, key};
use crate::ledger::{Durability, Txn};
use crate::record::{ContainerRecord, checked_labels, each, ensure_namespace, load, store};
use crate::shared::Shared;
use crate::storage::Read;

/// The containers of a namespace.
pub(crate) struct ContainerView {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl Containers for ContainerView {
    async fn container(&self, id: &ContainerId) -> Result<Container> {
        self.shared.ledger.view(|read| find(read, &self.scope, id))
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Container>> {
        let (prefix, filters) = (key(Kind::Container, &[self.scope.namespace.as_str()]), filters.clone());
        let walk = move |read: &dyn Read| {
            let mut all = Vec::new();
            each::<ContainerRecord, 2>(read, &prefix, |[_, id], record| {
                let container = record.named(id.parse()?);
                if filters.matches(&container) {
                    all.push(container);
                }
                Ok(())
            })?;
            Ok(all)
        };
        self.shared.ledger.walk(walk).await
    }

    async fn create(&self, container: Container) -> Result<Container> {
        let mut container = checked(container).map_err(|error| within("create container", error))?;
        container.created_at = SystemTime::now();
        container.updated_at = container.created_at;
        let scope = self.scope.clone();
        let change = move |txn: &mut Txn<'_>| {
            ensure_namespace(txn, &scope.namespace)?;
            let key = ContainerRecord::key(scope.namespace.as_str(), container.id.as_str());
            if txn.load(&key)?.is_some() {
                let id = container.id.as_str();
                return Err(Error::already_exists(format!("container {id:?}: already exists")));
            }
            store(txn, &key, &ContainerRecord::new(container.clone()))?;
            txn.tell(
                &scope.namespace,
                Event::ContainerCreate {
                    id: container.id.to_string(),
                    image: container.image.clone(),
                    runtime: container.runtime.clone(),
                },
            );
            Ok(container)
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }

    async fn update(&self, update: ContainerUpdate) -> Result<Container> {
        let scope = self.scope.clone();
        let change = move |txn: &mut Txn<'_>| {
            let ContainerUpdate { container, mask } = update;
            let current = find(txn, &scope, &container.id)?;
            let created_at = current.created_at;
            let merged = merge(current, container, &mask)?;
            let mut container = checked(merged).map_err(|error| within("update", error))?;
            container.created_at = created_at;
            container.updated_at = SystemTime::now();
            let key = ContainerRecord::key(scope.namespace.as_str(), container.id.as_str());
            store(txn, &key, &ContainerRecord::new(container.clone()))?;
            txn.tell(
                &scope.namespace,
                Event::ContainerUpdate {
                    id: container.id.to_string(),
                    image: container.image.clone(),
                    labels: container.labels.clone(),
                    snapshot_key: container.snapshot_key.clone(),
                },
            );
            Ok(container)
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }

    async fn delete(&self, id: &ContainerId) -> Result<()> {
        let (scope, id) = (self.scope.clone(), id.clone());
        let change = move |txn: &mut Txn<'_>| {
            if !txn.delete(&ContainerRecord::key(scope.namespace.as_str(), id.as_str()))? {
                return Err(missing(&scope, &id));
            }
            txn.release();
            txn.tell(&scope.namespace, Event::ContainerDelete { id: id.to_string() });
            Ok(())
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }
}

fn find(read: &dyn Read, scope: &Scope, id: &ContainerId) -> Result<Container> {
    load::<ContainerRecord>(read, &ContainerRecord::key(scope.namespace.as_str(), id.as_str()))?
        .map(|record| record.named(id.clone()))
        .ok_or_else(|| missing(scope, id))
}

fn missing(scope: &Scope, id: &ContainerId) -> Error {
    let namespace = scope.namespace.as_str();
    Error::not_found(format!("container {:?} in namespace {namespace:?}: not found", id.as_str()))
}

fn within(what: &str, error: Error) -> Error {
    Error::new(error.kind(), format!("{what} failed validation: {}", error.message()))
}

/// The fields that an update without a mask replaces.
const MUTABLE: [&str; 5] = ["labels", "spec", "extensions", "image", "snapshotkey"];

fn merge(mut current: Container, new: Container, mask: &FieldMask) -> Result<Container> {
    let every;
    let mask = if mask.is_all() {
        for (field, same) in [
            ("Snapshotter", current.snapshotter == new.snapshotter),
            ("Runtime.Name", current.runtime.name == new.runtime.name),
        ] {
            if !same {
                return Err(Error::invalid_argument(format!("container.{field} field is immutable")));
            }
        }
        every = FieldMask::new(MUTABLE);
        &every
    } else {
        mask
    };
    for path in mask.paths() {
        match path.as_str() {
            "labels" => current.labels.clone_from(&new.labels),
            "spec" => current.spec.clone_from(&new.spec),
            "extensions" => current.extensions.clone_from(&new.extensions),
            "image" => current.image.clone_from(&new.image),
            "snapshotkey" => current.snapshot_key.clone_from(&new.snapshot_key),
            path => merge_part(&mut current, &new, path)?,
        }
    }
    Ok(current)
}

fn merge_part(current: &mut Container, new: &Container, path: &str) -> Result<()> {
    if let Some(key) = path.strip_prefix("labels.") {
        let value = new.labels.get(key).cloned().unwrap_or_default();
        current.labels.insert(key.to_owned(), value);
    } else if let Some(key) = path.strip_prefix("extensions.") {
        match new.extensions.get(key) {
            Some(value) => current.extensions.insert(key.to_owned(), value.clone()),
            None => current.extensions.remove(key),
        };
    } else {
        let id = new.id.as_str();
        return Err(Error::invalid_argument(format!("cannot update {path:?} field on {id:?}")));
    }
    Ok(())
}

/// Containerd's rules for a container, in its words.
fn checked(mut container: Container) -> Result<Container> {
    if container.extensions.contains_key("") {
        return Err(Error::invalid_argument("container.Extension keys must not be zero-length"));
    }
    container.labels = checked_labels("containers", container.labels)?;
    if container.runtime.name.is_empty() {
        return Err(Error::invalid_argument("container.Runtime.Name must be set"));
    }
    if container.spec.is_none() {
        return Err(Error::invalid_argument("container.Spec must be set"));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(Error::invalid_argument(
            "container.Snapshotter must be set if container.SnapshotKey is set",
        ));
    }
    Ok(container)
}
