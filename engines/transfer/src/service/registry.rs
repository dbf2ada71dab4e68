//! Registries as source and destination.

use std::sync::Arc;

use berth_core::{Catalog, ImageStore, Login, RegistryEnd, Requester, Scope, TranscriptDetail};
use berth_oci::image::{Document, PlatformMatch};
use berth_registry::{Access, Ask, Config, Credentials, Detail, HeaderMap, Registries, Secret, Transcript};
use berth_types::{Descriptor, Error, ErrorKind, ImageName, Result};
use futures::FutureExt;

use super::steps::Steps;
use super::{Service, Settings, destinations, names, no_name, of_image, overall, platforms, unpack_all};
use crate::content;
use crate::graph::Limits;
use crate::platforms::Platforms;
use crate::pull::{Metadata, Pull, pull};
use crate::push::{Push, push};

impl Service {
    /// An image from a registry.
    pub(super) async fn fetch(
        &self,
        from: RegistryEnd,
        to: ImageStore,
        requester: &dyn Requester,
    ) -> Result<()> {
        if !names::is_named(&to) {
            return Err(no_name());
        }
        let place = format!("OCI Registry ({})", from.reference);
        let registries = self.reached(&from)?;
        requester.tell(overall(format!("Resolving from {place}"))).await;
        let work = async |catalog: &dyn Catalog, scope: Scope| {
            let name = self.own_name(&registries, &from, &to).await?;
            requester.tell(overall(format!("Pulling from {place}"))).await;
            requester.tell(of_image("fetching image content", name.as_str(), None)).await;
            let steps = Steps::new(requester, catalog.content(&scope), name.to_string(), "downloading");
            let target = steps
                .during(|progress| {
                    {
                        fetch_into(
                            catalog,
                            &scope,
                            &registries,
                            (&from, &to),
                            &name,
                            &self.settings,
                            progress,
                        )
                    }
                })
                .await?;
            let mut records = names::whole(&to, &target)?;
            // That one is stored already.
            records.retain(|record| record.name != name);
            let stored = names::store(&*catalog.images(&scope), records).await?;
            let names = std::iter::once(&name).chain(stored.iter().map(|image| &image.name));
            for name in names {
                requester.tell(of_image("saved", name.as_str(), Some(&target))).await;
            }
            Ok(())
        };
        self.held(&self.scope, requester, |catalog, scope| async move { work(&*catalog, scope).await })
            .await?;
        requester.tell(overall(format!("Completed pull from {place}"))).await;
        Ok(())
    }

    /// Under which name the image is stored first.
    async fn own_name(
        &self,
        registries: &Registries,
        from: &RegistryEnd,
        to: &ImageStore,
    ) -> Result<ImageName> {
        if let Some(name) = &to.name {
            return Ok(name.clone());
        }
        // A name by digest needs the digest.
        let target = registries.repository(&from.reference, Access::Pull)?.resolve(&from.reference).await?;
        names::whole(to, &target)?.into_iter().next().map(|record| record.name).ok_or_else(no_name)
    }

    /// An image to a registry.
    pub(super) async fn send(
        &self,
        from: ImageStore,
        to: RegistryEnd,
        requester: &dyn Requester,
    ) -> Result<()> {
        let place = format!("OCI Registry ({})", to.reference);
        let registries = self.reached(&to)?;
        let image = self.catalog.images(&self.scope).image(names::only(&from)?).await?;
        let (name, target) = (image.name.as_str(), &image.target);
        requester.tell(overall(format!("Pushing to {place}"))).await;
        requester.tell(of_image("pushing content", name, Some(target))).await;
        let store = self.catalog.content(&self.scope);
        let mut steps = Steps::new(requester, store, name.to_owned(), "uploading");
        steps.learn(target).await;
        let request = self.selected(Push::new(target.clone(), to.reference.clone()), &from).await?;
        steps
            .during(|progress| async {
                let parallel = self.settings.uploads.unwrap_or(request.parallel);
                let request = Push { parallel, progress, ..request };
                push(&*self.catalog, &self.scope, &registries, &request).await
            })
            .await?;
        requester.tell(of_image("pushed content", name, Some(target))).await;
        requester.tell(overall(format!("Completed push to {place}"))).await;
        Ok(())
    }

    /// What of an index goes. An index that lists more than what is wanted of it is no use to a registry, which
    /// refuses lists of what it does not have: the one image goes in its place.
    async fn selected(&self, request: Push, from: &ImageStore) -> Result<Push> {
        if from.platforms.is_empty() {
            return Ok(request);
        }
        let matching = PlatformMatch::any(&from.platforms);
        let content = self.catalog.content(&self.scope);
        let data = content::document(&*content, &request.target, Limits::default().document).await?;
        let Document::Index(index) = Document::parse(&request.target.media_type, &data)? else {
            return Ok(request);
        };
        let wanted = Platforms::Matching(matching.clone());
        if index.manifests.iter().all(|one| wanted.includes(one)) {
            return Ok(request);
        }
        Ok(match from.platforms.len() {
            1 => Push { platform: Some(matching), ..request },
            _ => Push { platforms: wanted, ..request },
        })
    }

    /// The registries as the requester wants them to be spoken to.
    fn reached(&self, end: &RegistryEnd) -> Result<Registries> {
        let base = self.registries.config();
        let mut headers = HeaderMap::new();
        for (name, value) in &end.headers {
            let invalid = || Error::invalid_argument(format!("{name:?} is no header that can be sent"));
            let name = name.parse::<berth_registry::HeaderName>().map_err(|_| invalid())?;
            headers.append(name, value.parse().map_err(|_| invalid())?);
        }
        let mut config = Config {
            headers,
            ask: end.logins.clone().map(|logins| -> Ask {
                Arc::new(move |host| {
                    let logins = Arc::clone(&logins);
                    async move { Ok(logins.login(&host).await?.map(credentials)) }.boxed()
                })
            }),
            transcript: end.transcript.clone().map(transcript),
            ..base.clone()
        };
        if !end.hosts.is_empty() {
            config.hosts.clone_from(&end.hosts);
        }
        if end.plain_http {
            config.plain_http.push(end.reference.host().to_owned());
        }
        Ok(self.registries.under(config))
    }
}

fn credentials(login: Login) -> Credentials {
    match login {
        Login::Password { user, password } => Credentials::Password { user, password: Secret::new(password) },
        Login::Refresh(token) => Credentials::Identity(Secret::new(token)),
        Login::Bearer(token) => Credentials::Bearer(Secret::new(token)),
    }
}

fn transcript(wanted: berth_core::Transcript) -> Transcript {
    let berth_core::Transcript { detail, reader } = wanted;
    let detail = match detail {
        TranscriptDetail::Messages => Detail::Messages,
        TranscriptDetail::Connections => Detail::Connections,
        TranscriptDetail::Everything => Detail::Everything,
    };
    let listen = move |entry| {
        let reader = Arc::clone(&reader);
        async move { reader.read(entry).await }.boxed()
    };
    Transcript { detail, listen: Arc::new(listen) }
}

/// Pulls, and unpacks wherever it is wanted.
async fn fetch_into(
    catalog: &dyn Catalog,
    scope: &Scope,
    registries: &Registries,
    (from, to): (&RegistryEnd, &ImageStore),
    name: &ImageName,
    settings: &Settings,
    progress: crate::progress::Reporter,
) -> Result<Descriptor> {
    let mut destinations = destinations(catalog, scope, to, settings)?.into_iter();
    let usual = Pull::new(from.reference.clone());
    let request = Pull {
        name: Some(name.clone()),
        platforms: platforms(to),
        metadata: if to.all_metadata { Metadata::All } else { Metadata::Wanted },
        unpack: destinations.next(),
        blobs: to.blobs,
        labels: to.labels.clone(),
        progress: progress.clone(),
        parallel: settings.downloads.unwrap_or(usual.parallel),
        ..usual
    };
    let pulled = pull(catalog, scope, registries, &request).await.map_err(|error| match error.kind() {
        ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => {
            let text = "pull access denied, repository does not exist or may require authorization";
            error.context(format!("failed to resolve image: {text}"))
        }
        _ => error,
    })?;
    let target = pulled.image.target;
    unpack_all(catalog, scope, &destinations.collect::<Vec<_>>(), std::slice::from_ref(&target), &progress)
        .await?;
    Ok(target)
}
