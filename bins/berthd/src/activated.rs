//! A differ for lists of mounts that have to be activated first.
//!
//! Other people's snapshotters may answer such lists, and count on the daemon to perform them for as long as a layer is
//! applied or compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use berth_core::{ApplyRequest, CompareRequest, Differ, Mounts, NewActivation};
use berth_types::{Descriptor, ErrorKind, Mount, Result};

/// A differ that gets only what can be mounted as it is.
pub(crate) struct Activated {
    pub(crate) differ: Arc<dyn Differ>,
    pub(crate) mounts: Arc<dyn Mounts>,
}

/// Names that were activated, to be ended.
type Names = Vec<String>;

impl Activated {
    async fn activate(&self, mounts: Vec<Mount>, names: &mut Names) -> Result<Vec<Mount>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if !mounts.iter().any(|mount| mount.kind.contains('/')) {
            return Ok(mounts);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("differ-{}-{number}", std::process::id());
        let new = NewActivation { name: name.clone(), mounts: mounts.clone(), ..NewActivation::default() };
        match self.mounts.activate(new).await {
            Ok(activation) => {
                names.push(name);
                Ok(activation.system)
            }
            Err(error) if error.kind() == ErrorKind::NotImplemented => Ok(mounts),
            Err(error) => Err(error.context("failed to activate mounts")),
        }
    }

    async fn deactivate(&self, names: Names) {
        for name in names {
            if let Err(error) = self.mounts.deactivate(&name).await {
                tracing::warn!(name, error = error.chain(), "mounts of a differ cannot be ended");
            }
        }
    }
}

#[async_trait]
impl Differ for Activated {
    async fn apply(&self, request: ApplyRequest) -> Result<Descriptor> {
        let mut names = Names::new();
        let done = match self.activate(request.mounts.clone(), &mut names).await {
            Ok(mounts) => self.differ.apply(ApplyRequest { mounts, ..request }).await,
            Err(error) => Err(error),
        };
        self.deactivate(names).await;
        done
    }

    async fn compare(&self, request: CompareRequest) -> Result<Descriptor> {
        let mut names = Names::new();
        let (lower, upper) = (request.lower.clone(), request.upper.clone());
        let both = async {
            let lower = self.activate(lower, &mut names).await?;
            Ok::<_, berth_types::Error>((lower, self.activate(upper, &mut names).await?))
        };
        let done = match both.await {
            Ok((lower, upper)) => self.differ.compare(CompareRequest { lower, upper, ..request }).await,
            Err(error) => Err(error),
        };
        self.deactivate(names).await;
        done
    }
}
