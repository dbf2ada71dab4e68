//! Sandbox records.

use async_trait::async_trait;
use berth_types::filter::Filters;
use berth_types::{Result, Sandbox, SandboxId, SandboxUpdate};

/// The sandbox records of a namespace.
#[async_trait]
pub trait Sandboxes: Send + Sync {
    /// One record.
    async fn sandbox(&self, id: &SandboxId) -> Result<Sandbox>;

    /// Every record that passes the filters, by id.
    async fn list(&self, filters: &Filters) -> Result<Vec<Sandbox>>;

    /// Stores a new record; the store sets its times.
    async fn create(&self, sandbox: Sandbox) -> Result<Sandbox>;

    /// Changes a record as the mask says: `labels[.KEY]`, `extensions[.KEY]`, `spec`, `runtime`. Without a mask all of
    /// them, and the runtime's name must be the one it has.
    async fn update(&self, update: SandboxUpdate) -> Result<Sandbox>;

    /// Removes a record.
    async fn delete(&self, id: &SandboxId) -> Result<()>;
}
