//! Mounts that a daemon performs for its clients.

use async_trait::async_trait;
use berth_types::filter::Filters;
use berth_types::{Activation, FieldMask, Labels, LeaseId, Mount, Namespace, Result};

/// How much of a list the daemon performs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// What a client cannot do by itself, and what has to be there before that.
    #[default]
    Needed,
    /// Everything: what is left to the client is one bind mount of the result.
    Everything,
}

/// What [`Mounts::activate`] starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewActivation {
    /// The name, which nothing in the namespace may have yet.
    pub name: String,
    /// The list.
    pub mounts: Vec<Mount>,
    /// Labels.
    pub labels: Labels,
    /// How much of it.
    pub extent: Extent,
    /// Types of mounts that the client performs itself: `erofs`, or `format/*` for whatever begins so.
    pub by_client: Vec<String>,
}

/// The activated mounts of a namespace.
///
/// A type of mount may begin with words that say what is done before it is mounted, each ended by a slash: `format/`
/// fills in where earlier mounts of the list are, `mkdir/` makes folders, `mkfs/` a filesystem in a file. What is
/// activated stays until it is deactivated, or until a garbage collection finds that neither its lease nor a label
/// holds it.
#[async_trait]
pub trait Mounts: Send + Sync {
    /// Performs what the client cannot.
    ///
    /// [`NotImplemented`](berth_types::ErrorKind::NotImplemented) if that is nothing: the client mounts the list as it
    /// is. [`AlreadyExists`](berth_types::ErrorKind::AlreadyExists) if the name is taken.
    async fn activate(&self, new: NewActivation) -> Result<Activation>;

    /// Ends an activation; what is still used goes on for its users until they end.
    async fn deactivate(&self, name: &str) -> Result<()>;

    /// An activation.
    async fn info(&self, name: &str) -> Result<Activation>;

    /// Changes labels as the mask says; nothing else of an activation can change.
    async fn update(&self, name: &str, labels: Labels, mask: &FieldMask) -> Result<Activation>;

    /// Every activation that passes the filters.
    async fn list(&self, filters: &Filters) -> Result<Vec<Activation>>;
}

/// An activation as the garbage collector sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldMount {
    /// A number that no other activation has or had.
    pub number: u64,
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// The lease under which it was made.
    pub lease: Option<LeaseId>,
    /// Labels.
    pub labels: Labels,
}

/// Who keeps the activations of all namespaces, for the garbage collector.
#[async_trait]
pub trait MountKeeper: Send + Sync {
    /// Every activation that has come to its end; those that are being made are nobody's garbage.
    fn held(&self) -> Vec<HeldMount>;

    /// Ends the activations with these numbers; those that are gone already are no error. What cannot be ended is tried
    /// again when it is named again.
    async fn let_go(&self, numbers: Vec<u64>);
}
