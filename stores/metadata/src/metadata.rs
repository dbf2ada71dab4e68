//! The store as a whole.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use berth_core::{Containers, ContentStore, Images, Leases, Namespaces, Sandboxes, Scope, Snapshotter};
use berth_types::{Error, Result, SnapshotterName};
use tokio::sync::watch;

use crate::backup::Backup;
use crate::config::Parts;
use crate::containers::ContainerView;
use crate::content::ContentView;
use crate::gc::{self, Beginning, Collected, Schedule};
use crate::images::ImageView;
use crate::leases::LeaseView;
use crate::ledger::{Changes, Ledger};
use crate::locks::Locks;
use crate::namespaces::NamespaceView;
use crate::opening::{self, Opening};
use crate::sandboxes::SandboxView;
use crate::sequence::Sequence;
use crate::shared::Shared;
use crate::snapshots::{self, SnapshotView};
use crate::storage::Storage;

/// The metadata store of a daemon. Dropping it stops its work and syncs; [`Metadata::close`]
/// waits for that.
pub struct Metadata {
    shared: Arc<Shared>,
    opening: Opening,
}

impl Metadata {
    /// Opens the database `path`, which is made if it is not there, over these backends.
    ///
    /// A damaged file, or one of a later format, is moved aside and a new one begun; see
    /// [`Metadata::opening`]. One that another process uses is an error. Has to be called in a
    /// tokio runtime, in which the collector and the teller of events run.
    pub fn open(path: &Path, parts: Parts) -> Result<Arc<Self>> {
        let (storage, opening) = opening::open(path)?;
        Self::on(Arc::new(storage), opening, Some(Backup::of(path)), parts)
    }

    pub(crate) fn on(
        storage: Arc<dyn Storage>,
        opening: Opening,
        backup: Option<Backup>,
        parts: Parts,
    ) -> Result<Arc<Self>> {
        let Parts { content, snapshotters, mounts, events, gc, sharing } = parts;
        let schedule = Arc::new(Schedule::new(gc));
        let observer = {
            let schedule = Arc::clone(&schedule);
            Arc::new(move |changes: &Changes| schedule.observe(changes))
        };
        let ledger = Ledger::start(storage, events, observer)?;
        let sequence = Sequence::load(&ledger)?;
        let interrupted = snapshots::interrupted(&ledger)?;
        let restored = matches!(opening, Opening::Rebuilt { restored, .. } if restored > 0);
        let shared = Arc::new(Shared {
            ledger,
            content,
            snapshotters,
            mounts,
            sharing,
            locks: Locks::default(),
            sequence,
            schedule,
            recovered: watch::Sender::new(interrupted.is_empty() && !restored),
            backup,
            saved: AtomicU64::new(0),
        });
        gc::start(&shared, Beginning { interrupted, restored, new: opening == Opening::New });
        Ok(Arc::new(Self { shared, opening }))
    }

    /// How the database was found.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Namespaces.
    pub fn namespaces(&self) -> Arc<dyn Namespaces> {
        Arc::new(NamespaceView(Arc::clone(&self.shared)))
    }

    /// Content as one namespace sees it.
    pub fn content(&self, scope: &Scope) -> Arc<dyn ContentStore> {
        Arc::new(ContentView { shared: Arc::clone(&self.shared), scope: scope.clone() })
    }

    /// A snapshotter as one namespace sees it; InvalidArgument if there is none of that name.
    pub fn snapshotter(&self, name: &SnapshotterName, scope: &Scope) -> Result<Arc<dyn Snapshotter>> {
        let Some(backend) = self.shared.snapshotters.get(name) else {
            let names: Vec<&str> = self.shared.snapshotters.keys().map(SnapshotterName::as_str).collect();
            return Err(Error::invalid_argument(format!(
                "snapshotter not loaded: {name} (there are: {})",
                names.join(", ")
            )));
        };
        Ok(Arc::new(SnapshotView {
            shared: Arc::clone(&self.shared),
            backend: Arc::clone(backend),
            name: name.clone(),
            scope: scope.clone(),
        }))
    }

    /// Images.
    pub fn images(&self, scope: &Scope) -> Arc<dyn Images> {
        Arc::new(ImageView { shared: Arc::clone(&self.shared), scope: scope.clone() })
    }

    /// Containers.
    pub fn containers(&self, scope: &Scope) -> Arc<dyn Containers> {
        Arc::new(ContainerView { shared: Arc::clone(&self.shared), scope: scope.clone() })
    }

    /// Sandboxes.
    pub fn sandboxes(&self, scope: &Scope) -> Arc<dyn Sandboxes> {
        Arc::new(SandboxView { shared: Arc::clone(&self.shared), scope: scope.clone() })
    }

    /// Leases.
    pub fn leases(&self, scope: &Scope) -> Arc<dyn Leases> {
        Arc::new(LeaseView { shared: Arc::clone(&self.shared), scope: scope.clone() })
    }

    /// Collects garbage and waits for the end of it.
    pub async fn collect(&self) -> Result<Collected> {
        self.shared.schedule.collect().await
    }

    /// Whether the backends hold things from before a database was lost, which no collection
    /// takes.
    pub fn keeps_orphans(&self) -> Result<bool> {
        self.shared.ledger.view(gc::orphans::are_kept)
    }

    /// Collects garbage, and what was kept since a database was lost.
    pub async fn collect_orphans(&self) -> Result<Collected> {
        self.shared.schedule.let_orphans_go();
        self.collect().await
    }

    /// Ends the collector, syncs, and lets go of the database. What comes later is answered
    /// Unavailable.
    pub async fn close(&self) -> Result<()> {
        self.shared.schedule.stop().await;
        self.shared.save(Duration::ZERO).await;
        self.shared.ledger.close().await
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.shared.schedule.ask_to_stop();
    }
}
