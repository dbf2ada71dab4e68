//! A lease for as long as an operation lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_core::{Catalog, Deletion, Leases, Scope};
use berth_types::{ErrorKind, ImageName, Labels, Lease, LeaseId, Result};

/// After this a lease that its operation left behind holds nothing any more.
const EXPIRES: Duration = Duration::from_hours(24);

/// Keeps what an operation makes from the garbage collector.
pub(crate) struct Hold {
    leases: Arc<dyn Leases>,
    /// Nothing when the caller's lease is used.
    own: Option<Lease>,
    scope: Scope,
}

impl Hold {
    /// Makes a lease, unless the caller has one already.
    pub(crate) async fn begin(catalog: &dyn Catalog, scope: &Scope) -> Result<Self> {
        let leases = catalog.leases(scope);
        if scope.lease.is_some() {
            return Ok(Self { leases, own: None, scope: scope.clone() });
        }
        let labels = Labels::from([("containerd.io/gc.expire".to_owned(), expiry())]);
        let lease = leases.create(Some(name()?), labels).await?;
        let scope = scope.with_lease(lease.id.clone());
        Ok(Self { leases, own: Some(lease), scope })
    }

    /// The scope under the lease.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Leaves what the operation made to the next one. A caller's own lease keeps it anyway.
    pub(crate) async fn keep(&self, rest: &Rest) -> Result<()> {
        match &self.own {
            Some(lease) => rest.keep(&lease.id).await,
            None => Ok(()),
        }
    }

    /// Runs the rest of an operation and ends the lease, however that went.
    pub(crate) async fn over<T>(self, result: Result<T>) -> Result<T> {
        let Some(lease) = self.own else { return result };
        match (self.leases.delete(&lease.id, Deletion::Later).await, result) {
            (Err(error), Ok(_)) if error.kind() != ErrorKind::NotFound => {
                Err(error.context(format!("cannot end the lease {}", lease.id)))
            }
            (_, result) => result,
        }
    }
}

/// What a pull that failed had fetched, kept for the one that goes on.
///
/// With a failed pull's lease goes what only it held: whole layers, and in containerd also the ingests. A collection
/// that comes before the next pull would make that one begin anew, so a lease named after the image takes them over.
/// It ends when the image is there, or when it expires.
pub(crate) struct Rest {
    leases: Arc<dyn Leases>,
    id: LeaseId,
}

impl Rest {
    /// What is kept for an image's name.
    pub(crate) fn of(catalog: &dyn Catalog, scope: &Scope, image: &ImageName) -> Result<Self> {
        let digest = berth_archive::Hasher::digest(image.as_str().as_bytes());
        Ok(Self { leases: catalog.leases(scope), id: format!("berth-rest-{}", digest.hex()).parse()? })
    }

    /// Takes over what a lease holds.
    pub(crate) async fn keep(&self, lease: &LeaseId) -> Result<()> {
        let resources = self.leases.resources(lease).await?;
        if resources.is_empty() {
            return Ok(());
        }
        let labels = Labels::from([("containerd.io/gc.expire".to_owned(), expiry())]);
        present(self.leases.create(Some(self.id.clone()), labels).await.map(drop))?;
        for resource in resources {
            present(self.leases.add_resource(&self.id, resource).await)?;
        }
        Ok(())
    }

    /// Keeps nothing any more.
    pub(crate) async fn forget(&self) -> Result<()> {
        match self.leases.delete(&self.id, Deletion::Later).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// What is there already is as good.
pub(crate) fn present(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// A name that nobody else has: the time and some of the process.
fn name() -> Result<LeaseId> {
    unique("berth").parse()
}

/// A text that is used once on this machine.
pub(crate) fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{:x}-{next}", since.as_nanos(), std::process::id())
}

/// RFC 3339, as the collector reads it.
fn expiry() -> String {
    let at = SystemTime::now() + EXPIRES;
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}
