//! Sandbox records.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{Sandboxes, Scope};
use berth_types::filter::Filters;
use berth_types::{Error, FieldMask, Result, Sandbox, SandboxId, SandboxUpdate};

use crate::key::{Kind, key};
use crate::ledger::{Durability, Txn};
use crate::record::{SandboxRecord, checked_labels, each, ensure_namespace, load, store};
use crate::shared::Shared;
use crate::storage::Read;

/// The sandboxes of a namespace.
pub(crate) struct SandboxView {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl Sandboxes for SandboxView {
    async fn sandbox(&self, id: &SandboxId) -> Result<Sandbox> {
        self.shared.ledger.view(|read| find(read, &self.scope, id))
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Sandbox>> {
        let (prefix, filters) = (key(Kind::Sandbox, &[self.scope.namespace.as_str()]), filters.clone());
        let walk = move |read: &dyn Read| {
            let mut all = Vec::new();
            each::<SandboxRecord, 2>(read, &prefix, |[_, id], record| {
                let sandbox = record.named(id.parse()?);
                if filters.matches(&sandbox) {
                    all.push(sandbox);
                }
                Ok(())
            })?;
            Ok(all)
        };
        self.shared.ledger.walk(walk).await
    }

    async fn create(&self, sandbox: Sandbox) -> Result<Sandbox> {
        let mut sandbox = checked(sandbox)?;
        sandbox.created_at = SystemTime::now();
        sandbox.updated_at = sandbox.created_at;
        let scope = self.scope.clone();
        let change = move |txn: &mut Txn<'_>| {
            ensure_namespace(txn, &scope.namespace)?;
            let key = SandboxRecord::key(scope.namespace.as_str(), sandbox.id.as_str());
            if txn.load(&key)?.is_some() {
                let id = sandbox.id.as_str();
                return Err(Error::already_exists(format!("sandbox {id:?}: already exists")));
            }
            store(txn, &key, &SandboxRecord::new(sandbox.clone()))?;
            Ok(sandbox)
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }

    async fn update(&self, update: SandboxUpdate) -> Result<Sandbox> {
        let scope = self.scope.clone();
        let change = move |txn: &mut Txn<'_>| {
            let SandboxUpdate { sandbox, mask } = update;
            let current = find(txn, &scope, &sandbox.id)?;
            let mut sandbox = checked(merge(current, sandbox, &mask)?)?;
            sandbox.updated_at = SystemTime::now();
            let key = SandboxRecord::key(scope.namespace.as_str(), sandbox.id.as_str());
            store(txn, &key, &SandboxRecord::new(sandbox.clone()))?;
            Ok(sandbox)
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }

    async fn delete(&self, id: &SandboxId) -> Result<()> {
        let (scope, id) = (self.scope.clone(), id.clone());
        let change = move |txn: &mut Txn<'_>| {
            if !txn.delete(&SandboxRecord::key(scope.namespace.as_str(), id.as_str()))? {
                return Err(missing(&scope, &id));
            }
            txn.release();
            Ok(())
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }
}

fn find(read: &dyn Read, scope: &Scope, id: &SandboxId) -> Result<Sandbox> {
    load::<SandboxRecord>(read, &SandboxRecord::key(scope.namespace.as_str(), id.as_str()))?
        .map(|record| record.named(id.clone()))
        .ok_or_else(|| missing(scope, id))
}

fn missing(scope: &Scope, id: &SandboxId) -> Error {
    let namespace = scope.namespace.as_str();
    Error::not_found(format!("sandbox {:?} in namespace {namespace:?}: not found", id.as_str()))
}

fn merge(mut current: Sandbox, new: Sandbox, mask: &FieldMask) -> Result<Sandbox> {
    if mask.is_all() {
        if current.runtime.name != new.runtime.name {
            return Err(Error::invalid_argument("sandbox.Runtime.Name field is immutable"));
        }
        let Sandbox { labels, extensions, spec, runtime, .. } = new;
        return Ok(Sandbox { labels, extensions, spec, runtime, ..current });
    }
    for path in mask.paths() {
        match path.as_str() {
            "labels" => current.labels.clone_from(&new.labels),
            "extensions" => current.extensions.clone_from(&new.extensions),
            "spec" => current.spec.clone_from(&new.spec),
            "runtime" => current.runtime.clone_from(&new.runtime),
            path => merge_part(&mut current, &new, path)?,
        }
    }
    Ok(current)
}

fn merge_part(current: &mut Sandbox, new: &Sandbox, path: &str) -> Result<()> {
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
        return Err(Error::invalid_argument(format!("cannot update {path:?} field on sandbox {id:?}")));
    }
    Ok(())
}

/// Containerd's rules for a sandbox.
fn checked(mut sandbox: Sandbox) -> Result<Sandbox> {
    if sandbox.extensions.contains_key("") {
        return Err(Error::invalid_argument("sandbox.Extension keys must not be zero-length"));
    }
    sandbox.labels = checked_labels("sandboxes", sandbox.labels)?;
    if sandbox.runtime.name.is_empty() {
        return Err(Error::invalid_argument("sandbox.Runtime.Name must be set"));
    }
    Ok(sandbox)
}
