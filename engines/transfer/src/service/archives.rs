//! Archives as source and destination.

use std::time::Duration;

use berth_core::{
    Catalog, ExportArchive, ExportPlatforms, ImageStore, ImportArchive, Requester, Scope, TransferStep,
};
use berth_oci::image::PlatformMatch;
use berth_types::filter::Filters;
use berth_types::{Descriptor, ErrorKind, LeaseResource, Result};

use super::{Service, destinations, names, of_image, overall, platforms, unpack_all};
use crate::export::{Exported, Without, export};
use crate::hold::{present, unique};
use crate::import::{Import, Source, Taken};
use crate::platforms::Platforms;
use crate::progress::Reporter;

/// How often, and how long after the last time, an ingest that is still written to is aborted.
const TRIES: usize = 40;
const PAUSE: Duration = Duration::from_millis(50);

impl Service {
    /// An archive into the image store.
    pub(super) async fn take_in(
        &self,
        from: ImportArchive,
        to: ImageStore,
        requester: &dyn Requester,
    ) -> Result<()> {
        requester.tell(overall("Importing")).await;
        // A lease of its own: of an import that fails nothing stays, although the client's lease may.
        let own = Scope { lease: None, ..self.scope.clone() };
        let prefix = unique("import");
        let work = async |catalog: &dyn Catalog, scope: Scope| {
            let content = catalog.content(&scope);
            let options = Import { platforms: platforms(&to), plain: from.plain, ..Import::default() };
            let source = Source::Archive(from.archive);
            let taken = Taken::from(&*content, source, &prefix, &options).await?;
            let index = taken.index(&*content).await?;
            let destinations = destinations(catalog, &scope, &to, &self.settings)?;
            let progress = Reporter::none();
            unpack_all(catalog, &scope, &destinations, &taken.images, &progress).await?;
            let mut records = names::whole(&to, &index)?;
            for image in &taken.images {
                records.extend(names::listed(&to, image)?);
            }
            let stored = names::store(&*catalog.images(&scope), records).await?;
            self.keep(&index, &taken.images).await?;
            for image in stored {
                requester.tell(of_image("saved", image.name.as_str(), Some(&image.target))).await;
            }
            Ok(())
        };
        let done =
            self.held(&own, requester, |catalog, scope| async move { work(&*catalog, scope).await }).await;
        if done.is_err() {
            self.abort(&own, &prefix).await;
        }
        done?;
        requester.tell(overall("Completed import")).await;
        Ok(())
    }

    /// Removes the ingests of an import that was dropped where it stood.
    async fn abort(&self, scope: &Scope, prefix: &str) {
        let content = self.catalog.content(scope);
        // The transfer has failed for another reason, which is what the client is told.
        let left = content.ingests(&Filters::default()).await.unwrap_or_default();
        for ingest in left.iter().filter(|ingest| ingest.reference.as_str().starts_with(prefix)) {
            for _ in 0..TRIES {
                match content.abort(&ingest.reference).await {
                    // Its writer was dropped a moment ago and is about to let go of it.
                    Err(error) if error.kind() == ErrorKind::Unavailable => tokio::time::sleep(PAUSE).await,
                    _ => break,
                }
            }
        }
    }

    /// Lets the client's lease keep what has come in, names or not.
    async fn keep(&self, index: &Descriptor, images: &[Descriptor]) -> Result<()> {
        let Some(lease) = &self.scope.lease else { return Ok(()) };
        let leases = self.catalog.leases(&self.scope);
        for kept in images.iter().chain([index]) {
            let resource = LeaseResource { id: kept.digest.to_string(), kind: "content".to_owned() };
            present(leases.add_resource(lease, resource).await)?;
        }
        Ok(())
    }

    /// Images into an archive.
    pub(super) async fn give_out(
        &self,
        from: ImageStore,
        to: ExportArchive,
        requester: &dyn Requester,
    ) -> Result<()> {
        requester.tell(TransferStep { event: "Exporting".to_owned(), ..TransferStep::default() }).await;
        let store = self.catalog.images(&self.scope);
        let mut images = Vec::new();
        for name in names::wanted(&from)? {
            let image = store.image(&name).await?;
            images.push((Some(name), image.target));
        }
        let (platforms, docker) = match &to.platforms {
            ExportPlatforms::All(given) => (Platforms::All, PlatformMatch::any(given)),
            ExportPlatforms::Only(given) => {
                let matching = PlatformMatch::any(given);
                (Platforms::Matching(matching.clone()), matching)
            }
        };
        let without =
            Without { manifest_json: to.without_manifest_json, foreign_layers: to.without_foreign_layers };
        let request = Exported { images, platforms, docker, without, progress: Reporter::none() };
        // The writer comes back and is dropped, which ends the archive.
        export(&*self.catalog, &self.scope, &request, to.archive).await.map(drop)?;
        requester.tell(overall("Completed export")).await;
        Ok(())
    }
}
