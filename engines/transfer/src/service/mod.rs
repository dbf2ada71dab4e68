//! The transfers that a daemon does for its clients: [`Transfers`] over the engine's own operations.
//!
//! | from | to | |
//! |---|---|---|
//! | archive | image store | taken in → unpacked → named |
//! | image store | archive | found → written |
//! | registry | image store | fetched → named → unpacked |
//! | image store | registry | found → sent |
//! | image store | image store | found → named |
//!
//! What differs from the operations themselves is what clients of containerd count on: how images are named, the
//! words of the steps, that credentials are asked for over a stream, and that a transfer ends with its client.

mod archives;
mod names;
mod registry;
mod settings;
mod settle;
mod steps;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use berth_core::{
    Catalog, ExportArchive, ImageStore, ImportArchive, RegistryEnd, Requester, Scope, TransferStep,
    Transfers, UnpackInto,
};
use berth_oci::image::{PlatformMatch, host_platform};
use berth_registry::Registries;
use berth_types::{Descriptor, Error, ErrorKind, Platform, Result, SnapshotterName};
use tracing::Instrument as _;

use crate::hold::Hold;
use crate::image::load;
use crate::platforms::Platforms;
use crate::progress::Reporter;
use crate::unpack::{Unpack, unpack};

pub use self::settings::{Architecture, Destination, Settings};
use self::settle::Settling;

/// containerd's, where a client names none.
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// The transfers of one namespace.
pub struct Service {
    catalog: Arc<dyn Catalog>,
    scope: Scope,
    registries: Registries,
    settings: Settings,
}

impl Service {
    /// Over a catalog; `registries` says what holds where a client says nothing.
    pub fn new(catalog: Arc<dyn Catalog>, scope: Scope, registries: Registries) -> Self {
        Self { catalog, scope, registries, settings: Settings::default() }
    }

    /// The same with a daemon's settings.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Runs an operation that makes things, under a lease: the one of `scope` or its own, which ends with it. Once
    /// the requester has gone the operation is dropped, and what it began is waited for.
    async fn held<F>(
        &self,
        scope: &Scope,
        requester: &dyn Requester,
        work: impl FnOnce(Arc<dyn Catalog>, Scope) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let hold = Hold::begin(&*self.catalog, scope).await?;
        let settling = Arc::new(Settling::over(Arc::clone(&self.catalog), self.settings.unpacks.clone()));
        let result = or_gone(requester, work(settling.clone(), hold.scope().clone())).await;
        settling.settled().await;
        hold.over(result).await
    }
}

#[async_trait]
impl Transfers for Service {
    async fn import(&self, from: ImportArchive, to: ImageStore, requester: &dyn Requester) -> Result<()> {
        self.take_in(from, to, requester).await
    }

    async fn export(&self, from: ImageStore, to: ExportArchive, requester: &dyn Requester) -> Result<()> {
        or_gone(requester, self.give_out(from, to, requester)).await
    }

    async fn pull(&self, from: RegistryEnd, to: ImageStore, requester: &dyn Requester) -> Result<()> {
        let span = tracing::info_span!(target: "otel", "pull.Pull", image.ref = %from.reference);
        self.fetch(from, to, requester).instrument(span).await
    }

    async fn push(&self, from: ImageStore, to: RegistryEnd, requester: &dyn Requester) -> Result<()> {
        or_gone(requester, self.send(from, to, requester)).await
    }

    async fn unpack(&self, target: &Descriptor, into: &UnpackInto) -> Result<()> {
        let snapshotter = match &into.snapshotter {
            Some(name) => name.clone(),
            None => DEFAULT_SNAPSHOTTER.parse()?,
        };
        let platform = into.platform.clone().unwrap_or_else(host_platform);
        let request = Unpack {
            target: target.clone(),
            platform: PlatformMatch::only(&platform),
            snapshotter,
            progress: Reporter::none(),
        };
        unpack(&*self.catalog, &self.scope, &request).await.map(drop)
    }

    async fn tag(&self, from: ImageStore, to: ImageStore) -> Result<()> {
        let images = self.catalog.images(&self.scope);
        let image = images.image(names::only(&from)?).await?;
        let records = names::whole(&to, &image.target)?;
        if records.is_empty() {
            return Err(no_name());
        }
        names::store(&*images, records).await.map(drop)
    }
}

/// The outcome of `work`, or Cancelled once the requester has gone.
async fn or_gone(requester: &dyn Requester, work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        biased;
        result = work => result,
        () = requester.gone() => Err(Error::cancelled("the client has gone before the transfer's end")),
    }
}

fn no_name() -> Error {
    Error::not_found("no image name found")
}

/// A step of the transfer as a whole.
fn overall(event: impl Into<String>) -> TransferStep {
    TransferStep { event: event.into(), ..TransferStep::default() }
}

/// A step of an image.
fn of_image(event: &str, name: &str, target: Option<&Descriptor>) -> TransferStep {
    let (event, name) = (event.to_owned(), name.to_owned());
    TransferStep { event, name, target: target.cloned(), ..TransferStep::default() }
}

/// Which images of an index a store wants.
fn platforms(store: &ImageStore) -> Platforms {
    let wanted = match store.platforms.as_slice() {
        [] => Platforms::All,
        platforms => Platforms::Matching(PlatformMatch::any(platforms)),
    };
    match store.manifest_limit {
        0 => wanted,
        limit => Platforms::Limited(Box::new(wanted), limit),
    }
}

/// Where to unpack for this machine. Like containerd, which unpacks only what it is configured for, an unknown
/// snapshotter and a platform of another system are passed over as long as something is left.
fn destinations(
    catalog: &dyn Catalog,
    scope: &Scope,
    store: &ImageStore,
    settings: &Settings,
) -> Result<Vec<(PlatformMatch, SnapshotterName)>> {
    let usual: SnapshotterName = DEFAULT_SNAPSHOTTER.parse()?;
    let mut found = Vec::new();
    for UnpackInto { platform, snapshotter } in &store.unpacks {
        let given = |platform: &&Platform| !platform.os.is_empty() || !platform.architecture.is_empty();
        let platform = platform.as_ref().filter(given).cloned().unwrap_or_else(host_platform);
        let Some(snapshotter) = settings.snapshotter(&platform, snapshotter.as_ref(), &usual) else {
            continue;
        };
        if platform.os == host_platform().os && catalog.snapshotter(&snapshotter, scope).is_ok() {
            found.push((PlatformMatch::only(&platform), snapshotter));
        }
    }
    match store.unpacks.first() {
        Some(first) if found.is_empty() => {
            let snapshotter = first.snapshotter.as_ref().map_or(DEFAULT_SNAPSHOTTER, |name| name.as_str());
            Err(Error::invalid_argument(format!(
                "unable to initialize unpacker: no unpack platforms defined (snapshotter {snapshotter:?})"
            )))
        }
        _ => Ok(found),
    }
}

/// Unpacks those of the images that are for the platforms.
async fn unpack_all(
    catalog: &dyn Catalog,
    scope: &Scope,
    destinations: &[(PlatformMatch, SnapshotterName)],
    images: &[Descriptor],
    progress: &Reporter,
) -> Result<()> {
    let content = catalog.content(scope);
    let mut seen = HashSet::new();
    for image in images.iter().filter(|image| seen.insert(&image.digest)) {
        for (platform, snapshotter) in destinations {
            match load(&*content, image, platform).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            let request = Unpack {
                target: image.clone(),
                platform: platform.clone(),
                snapshotter: snapshotter.clone(),
                progress: progress.clone(),
            };
            unpack(catalog, scope, &request).await?;
        }
    }
    Ok(())
}
