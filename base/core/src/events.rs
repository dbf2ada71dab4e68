//! The one stream of events.

use std::pin::Pin;

use async_trait::async_trait;
use berth_types::filter::Filters;
use berth_types::{Envelope, Event, Namespace, Result};
use futures::Stream;

/// Events from the moment of the subscription on. A subscriber that falls too far behind is cut
/// off with an error, it never holds a publisher up.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Envelope>> + Send>>;

/// Tells events and listens to them.
#[async_trait]
pub trait Events: Send + Sync {
    /// Tells an event that happens now.
    async fn publish(&self, namespace: &Namespace, event: Event) -> Result<()>;

    /// Passes on an event that happened elsewhere, with its own time.
    async fn forward(&self, envelope: Envelope) -> Result<()>;

    /// Listens to the events of every namespace that pass the filters.
    async fn subscribe(&self, filters: Filters) -> Result<EventStream>;
}
