//! The client against the registry of Debian's packages.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::sync::Arc;

use berth_registry::{Access, BlobSource, Config, Credentials, Registries, Secret};
use berth_types::{Descriptor, ErrorKind, ImageRef, Result};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use testkit::image::{Image, Layer};
use testkit::registry::DockerRegistry;

struct Memory(Bytes);

impl BlobSource for Memory {
    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>> {
        let start = (offset as usize).min(self.0.len());
        let end = (start + length).min(self.0.len());
        futures::future::ready(Ok(self.0.slice(start..end))).boxed()
    }
}

fn image() -> Image {
    let noise: Vec<u8> =
        (0..1_500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Image::new("a/b:1").layer(Layer::new().file("noise", &noise, 0o644)).cmd(&["/x"])
}

async fn round_trip(registries: &Registries, registry: &str) -> Result<()> {
    let image = image();
    let reference: ImageRef = format!("{registry}/a/b:1").parse()?;
    let repository = registries.repository(&reference, Access::Push)?;
    let manifest = image.manifest();
    let document: berth_oci::image::Manifest = serde_json::from_slice(&manifest).unwrap();
    let blobs =
        [(document.config.clone(), image.config()), (document.layers[0].clone(), image.blobs().remove(0))];
    for (descriptor, bytes) in &blobs {
        let source = || Arc::new(Memory(bytes.clone().into()));
        assert!(repository.push_blob(descriptor, source(), None).await?);
        assert!(!repository.push_blob(descriptor, source(), None).await?, "it has it now");
    }
    let digest = berth_archive::Hasher::digest(&manifest);
    let target = Descriptor::new(document.media_type.clone(), digest, manifest.len() as u64);
    repository.push_manifest(&target, manifest.clone().into(), Some("1")).await?;
    assert!(repository.has_manifest(&target.digest, Some("1")).await?);
    assert!(!repository.has_manifest(&target.digest, Some("2")).await?);

    let resolved = repository.resolve(&reference).await?;
    assert_eq!(resolved, target);
    assert_eq!(repository.manifest(&resolved).await?, manifest);
    for (descriptor, bytes) in &blobs {
        let mut blob = repository.blob(descriptor, 17).await?;
        let mut read = bytes[..17].to_vec();
        while let Some(part) = blob.next().await? {
            read.extend_from_slice(&part);
        }
        assert!(&read == bytes);
    }
    // Another repository takes the layer from this one.
    let other: ImageRef = format!("{registry}/c/d:1").parse()?;
    let other = registries.repository(&other, Access::Push)?;
    let (descriptor, bytes) = &blobs[1];
    other.push_blob(descriptor, Arc::new(Memory(bytes.clone().into())), Some("a/b")).await?;
    assert!(other.has_blob(&descriptor.digest).await?);
    let missing: ImageRef = format!("{registry}/a/b:none").parse()?;
    assert_eq!(repository.resolve(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    Ok(())
}

#[tokio::test]
async fn what_is_pushed_is_pulled() {
    let Ok(registry) = DockerRegistry::start() else { return };
    round_trip(&Registries::new(Config::default()), &registry.address()).await.unwrap();
}

#[tokio::test]
async fn a_login_is_needed_and_enough() {
    let Ok(registry) = DockerRegistry::with_login() else { return };
    let (user, password) = registry.login();
    let credentials = Credentials::Password { user: user.into(), password: Secret::new(password) };
    let config = Config { credentials: [(registry.address(), credentials)].into(), ..Config::default() };
    round_trip(&Registries::new(config), &registry.address()).await.unwrap();
    let error = round_trip(&Registries::new(Config::default()), &registry.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    let wrong = Credentials::Password { user: user.into(), password: Secret::new("wrong") };
    let config = Config { credentials: [(registry.address(), wrong)].into(), ..Config::default() };
    let error = round_trip(&Registries::new(config), &registry.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
}
