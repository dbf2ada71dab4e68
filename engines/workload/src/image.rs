//! Images as containers need them: found by what somebody typed, and read once.

use std::path::PathBuf;
use std::{fs, io};

use berth_core::{ContentStore, read_blob};
use berth_oci::image::{
    Document, ImageConfig, PlatformMatch, ProcessConfig, chain_id, media, platform_string,
};
use berth_types::filter::Filters;
use berth_types::{Descriptor, Digest, Error, ErrorKind, Image, ImageName, ImageRef, Platform, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::Workload;
use crate::home::{make, replace};
use berth_rootfs::Identity;

/// Limits of what an image may make us read.
const MAX_MANIFEST: u64 = 4 << 20;
const MAX_CONFIG: u64 = 8 << 20;
/// How many indexes may lie in one another.
const MAX_DEPTH: usize = 4;

/// What a container needs to know of an image. Everything follows from the content address, so a copy
/// of it is kept on disk and never grows old.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The manifest for the platform.
    pub manifest: Descriptor,
    /// The configuration.
    pub config: Digest,
    /// What the image wants to be run.
    pub process: ProcessConfig,
    /// The layers' chain id, none without layers.
    pub chain: Option<Digest>,
    /// `os/arch`.
    pub platform: String,
    /// Users that were looked up in it.
    #[serde(default)]
    pub(crate) users: BTreeMap<String, Identity>,
}

impl Workload {
    /// Finds an image by name, or by the beginning of its id.
    pub async fn find_image(&self, text: &str) -> Result<Image> {
        let images = self.catalog.images(&self.scope);
        let named = match text.parse::<ImageRef>() {
            Ok(reference) => {
                let name: ImageName = reference.to_string().parse()?;
                match images.image(&name).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    other => Some(other?),
                }
            }
            Err(_) => None,
        };
        if let Some(image) = named {
            return Ok(image);
        }
        if let Ok(name) = text.parse::<ImageName>()
            && let Ok(image) = images.image(&name).await
        {
            return Ok(image);
        }
        self.image_by_id(text).await?.ok_or_else(|| Error::not_found(format!("No such image: {text}")))
    }

    async fn image_by_id(&self, text: &str) -> Result<Option<Image>> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let images = self.catalog.images(&self.scope).list(&Filters::default()).await?;
        let mut found: Vec<Image> =
            images.into_iter().filter(|image| image.target.digest.hex().starts_with(hex)).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        if found.windows(2).any(|pair| pair[0].target.digest != pair[1].target.digest) {
            return Err(Error::invalid_argument(format!("image id {text} is ambiguous")));
        }
        Ok(found.into_iter().next())
    }

    /// What there is to know of an image for a platform.
    pub async fn image_facts(&self, image: &Image, platform: &Platform) -> Result<ImageFacts> {
        let kept = self.facts_path(&image.target.digest, platform);
        if let Some(facts) = fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(facts);
        }
        let content = self.catalog.content(&self.scope);
        let facts = read_facts(&*content, &image.target, platform)
            .await
            .map_err(|error| error.context(format!("cannot use image {}", image.name)))?;
        self.keep_facts(&image.target.digest, platform, &facts);
        Ok(facts)
    }

    /// Keeps facts for the next time. Not being able to is no reason to stop.
    pub(crate) fn keep_facts(&self, target: &Digest, platform: &Platform, facts: &ImageFacts) {
        let kept = || -> Result<()> {
            make(&self.home.images())?;
            let json = serde_json::to_vec(facts).map_err(|error| Error::internal(error.to_string()))?;
            replace(&self.facts_path(target, platform), &json)
        };
        if let Err(error) = kept() {
            tracing::debug!(error = %error.chain(), "what was read from an image is not kept");
        }
    }

    /// Forgets what is kept of images that are no longer there.
    pub(crate) async fn forget_old_facts(&self) -> Result<()> {
        let images = self.catalog.images(&self.scope).list(&Filters::default()).await?;
        let entries = match fs::read_dir(self.home.images()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| Error::io("cannot list what is kept of images", error))?,
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !images.iter().any(|image| name.starts_with(image.target.digest.hex())) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn facts_path(&self, target: &Digest, platform: &Platform) -> PathBuf {
        let platform = platform_string(platform).replace('/', "-");
        self.home.images().join(format!("{}-{platform}.json", target.hex()))
    }

    /// The whole configuration of an image, for `inspect` and `history`.
    pub async fn image_config(&self, facts: &ImageFacts) -> Result<ImageConfig> {
        let content = self.catalog.content(&self.scope);
        config(&*content, &facts.config).await
    }
}

async fn read_facts(
    content: &dyn ContentStore,
    target: &Descriptor,
    platform: &Platform,
) -> Result<ImageFacts> {
    let wanted = PlatformMatch::only(platform);
    let mut descriptor = target.clone();
    for _ in 0..MAX_DEPTH {
        let bytes = read_blob(content, &descriptor.digest, MAX_MANIFEST).await?;
        match Document::parse(&descriptor.media_type, &bytes)? {
            Document::Index(index) => {
                descriptor = wanted.best(&index.manifests).cloned().ok_or_else(|| {
                    Error::not_found(format!("the image has nothing for {}", platform_string(platform)))
                })?;
            }
            Document::Manifest(manifest) => {
                if !media::is_config(&manifest.config.media_type) {
                    return Err(Error::invalid_argument(format!(
                        "it is no container image but an artifact of type {}",
                        manifest.config.media_type
                    )));
                }
                let document = config(content, &manifest.config.digest).await?;
                let mut process = document.config;
                process.labels.retain(|key, _| !crate::labels::is_reserved(key));
                return Ok(ImageFacts {
                    manifest: descriptor,
                    config: manifest.config.digest,
                    process,
                    chain: chain_id(&document.rootfs.diff_ids),
                    platform: format!("{}/{}", document.os, document.architecture),
                    users: BTreeMap::new(),
                });
            }
        }
    }
    Err(Error::invalid_argument(format!("indexes lie more than {MAX_DEPTH} deep in one another")))
}

async fn config(content: &dyn ContentStore, digest: &Digest) -> Result<ImageConfig> {
    let bytes = read_blob(content, digest, MAX_CONFIG).await?;
    serde_json::from_slice(&bytes)
        .map_err(|source| Error::invalid_argument("the image's configuration is not valid").caused_by(source))
}
