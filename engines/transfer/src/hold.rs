//! A lease for as long as an operation lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_core::{Catalog, Deletion, Leases, Scope};
use berth_types::{ErrorKind, Labels, Lease, Result};

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

/// A name that nobody else has: the time and some of the process.
fn name() -> Result<berth_types::LeaseId> {
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
