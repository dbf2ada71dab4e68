//! What an index or manifest leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use berth_core::ContentStore;
use berth_oci::image::{Document, ImageConfig, PlatformMatch, ProcessConfig, chain_id};
use berth_rootfs::Accounts;
use berth_types::{Descriptor, Digest, Error, Result};

/// The longest index or manifest, in bytes.
const MANIFEST: u64 = 4 << 20;
/// The longest configuration, in bytes.
const CONFIG: u64 = 8 << 20;
/// How many images' users are kept, and how large a database may be for that, in bytes.
const ACCOUNTS: usize = 256;
const ACCOUNTS_SIZE: usize = 64 << 10;
/// Indexes in indexes.
const DEPTH: usize = 4;

/// An image for this machine. It follows from the digest of its index or manifest, and never changes.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The digest of the configuration.
    pub(crate) id: Digest,
    /// The name of its layers together; none without layers.
    pub(crate) chain: Option<Digest>,
    /// Bytes of manifest, configuration and layers as they are in the registry.
    pub(crate) size: u64,
    /// What it wants to be run.
    pub(crate) process: ProcessConfig,
    /// The configuration as it is.
    pub(crate) config: serde_json::Value,
}

/// Facts that were read before, by the digest of their index or manifest.
#[derive(Debug, Default)]
pub(crate) struct Known {
    facts: Mutex<BTreeMap<Digest, Arc<Facts>>>,
    /// The users of images, by the digest of their configuration.
    accounts: Mutex<BTreeMap<Digest, Arc<Accounts>>>,
}

impl Known {
    /// The users of an image, if they were read before.
    pub(crate) fn accounts(&self, image: &Digest) -> Option<Arc<Accounts>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }

    /// Keeps the users of an image, as long as it is not large: most name a few dozen.
    pub(crate) fn keep_accounts(&self, image: &Digest, accounts: Accounts) -> Arc<Accounts> {
        let accounts = Arc::new(accounts);
        let mut kept = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= ACCOUNTS {
            kept.clear();
        }
        if accounts.size() <= ACCOUNTS_SIZE {
            kept.insert(image.clone(), accounts.clone());
        }
        accounts
    }

    /// The facts of `target`, read from content if they are not known yet.
    pub(crate) async fn facts(&self, content: &dyn ContentStore, target: &Descriptor) -> Result<Arc<Facts>> {
        if let Some(facts) = self.lock().get(&target.digest) {
            return Ok(facts.clone());
        }
        let facts = Arc::new(read(content, target).await?);
        self.lock().insert(target.digest.clone(), facts.clone());
        Ok(facts)
    }

    /// Forgets everything but the facts of `targets`.
    pub(crate) fn keep(&self, targets: &BTreeSet<&Digest>) {
        self.lock().retain(|digest, _| targets.contains(digest));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Arc<Facts>>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(content: &dyn ContentStore, target: &Descriptor) -> Result<Facts> {
    let host = PlatformMatch::host();
    let mut at = target.clone();
    for _ in 0..DEPTH {
        let data = content.document(&at.digest, MANIFEST).await?;
        let manifest = match Document::parse(&at.media_type, &data)? {
            Document::Index(index) => {
                let best = host.best(&index.manifests).ok_or_else(|| {
                    Error::not_found(format!("index {} has no image for this machine", at.digest))
                })?;
                at = best.clone();
                continue;
            }
            Document::Manifest(manifest) => manifest,
        };
        let data = content.document(&manifest.config.digest, CONFIG).await?;
        let broken = |error| {
            Error::invalid_argument(format!("configuration {} is not valid", manifest.config.digest))
                .caused_by(error)
        };
        let config: ImageConfig = serde_json::from_slice(&data).map_err(broken)?;
        let layers = manifest.layers.iter().map(|layer| layer.size);
        return Ok(Facts {
            id: manifest.config.digest.clone(),
            chain: chain_id(&config.rootfs.diff_ids),
            size: layers.fold(at.size.saturating_add(manifest.config.size), u64::saturating_add),
            process: config.config,
            config: serde_json::from_slice(&data).map_err(broken)?,
        });
    }
    Err(Error::invalid_argument(format!("index {} has more than {DEPTH} indexes in it", target.digest)))
}
