//! Pulling, through the engine that pulls for everybody.

use std::sync::Arc;

use berth_core::{ImageStore, RegistryEnd, UnpackInto};
use berth_oci::image::host_platform;
use berth_proto::runtime::v1 as proto;
use berth_types::{
    Descriptor, Digest, Error, ErrorKind, FieldMask, Image, ImageName, ImageRef, Labels, Result,
};

use super::list::named;
use super::login::Given;
use super::patience::Patience;
use super::{MANAGED, PINNED};
use crate::Cri;

impl Cri {
    /// Pulls and unpacks an image, gives it all the names that a kubelet knows it by, and answers its id.
    pub(crate) async fn pull(&self, wanted: &str, auth: Option<proto::AuthConfig>) -> Result<Digest> {
        let reference: ImageRef = wanted.parse()?;
        let name: ImageName = named(&reference).parse()?;
        let labels = self.labels(&name);
        let transfers = self.catalog.transfers(&self.scope).ok_or_else(|| {
            Error::not_implemented(format!("image {wanted} cannot be pulled: this daemon has no transfers"))
        })?;

        let unpack = UnpackInto {
            platform: Some(host_platform()),
            snapshotter: Some(self.config.snapshotter.clone()),
        };
        let to = ImageStore {
            name: Some(name.clone()),
            labels: labels.clone(),
            platforms: vec![host_platform()],
            unpacks: vec![unpack],
            blobs: self.config.blobs,
            ..ImageStore::default()
        };
        let from = RegistryEnd {
            reference: name.as_str().parse()?,
            headers: self.config.registry_headers.clone(),
            hosts: self.config.registry_hosts.clone(),
            plain_http: false,
            logins: auth.map(|auth| Arc::new(Given(auth)) as _),
            transcript: None,
        };
        let patience = Patience::new(self.config.pull_patience);
        transfers.pull(from, to, &patience).await.map_err(|error| {
            if patience.lost() {
                let limit = self.config.pull_patience;
                return Error::new(
                    ErrorKind::DeadlineExceeded,
                    format!("pull of {wanted} stood still for {limit:?} (image_pull_progress_timeout)"),
                );
            }
            error
        })?;

        let target = self.images().image(&name).await?.target;
        let id = self.known.facts(&*self.content(), &target).await?.id.clone();
        let by_digest = format!("{}@{}", reference.repository(), target.digest);
        for name in [id.to_string(), by_digest] {
            self.name(name.parse()?, &target, &labels).await?;
        }
        Ok(id)
    }

    fn labels(&self, name: &ImageName) -> Labels {
        let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        [Some(MANAGED), self.is_pinned(name).then_some(PINNED)].into_iter().flatten().map(label).collect()
    }

    /// Whether the configuration wants an image to stay, however it came.
    pub(super) fn is_pinned(&self, name: &ImageName) -> bool {
        let means = |wanted: &String| wanted.parse().is_ok_and(|wanted| named(&wanted) == name.as_str());
        self.config.pinned_images.values().any(means)
    }

    /// Makes or changes a record so that `name` means `target`. Somebody who does the same at the same time is no
    /// error.
    async fn name(&self, name: ImageName, target: &Descriptor, labels: &Labels) -> Result<()> {
        let images = self.images();
        let image = Image { labels: labels.clone(), ..Image::new(name, target.clone()) };
        match images.create(image.clone()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => return created.map(drop),
        }
        let keys = labels.keys().map(|key| format!("labels.{key}"));
        let mask = FieldMask::new(std::iter::once("target".to_owned()).chain(keys));
        images.update(image, &mask).await.map(drop)
    }
}
