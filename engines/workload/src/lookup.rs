//! The numbers behind a user's name.

use std::path::Path;

use berth_core::NewSnapshot;
use berth_sys::beneath::Root;
use berth_types::{Error, ErrorKind, Image, Labels, LeaseId, Platform, Result, SnapshotKey};

use crate::{ImageFacts, Workload, names};
use berth_rootfs::{Accounts, Identity};

/// How long a forgotten lease holds what a look needed.
const LEASE: std::time::Duration = std::time::Duration::from_mins(10);

impl Workload {
    /// Who `user` is in an image. The answer follows from the image, so it is looked up once.
    pub(crate) async fn identity_in_image(
        &self,
        image: &Image,
        facts: &mut ImageFacts,
        platform: &Platform,
        user: &str,
        added: &[String],
    ) -> Result<Identity> {
        let key = format!("{user}\n{}", added.join("\n"));
        if let Some(known) = facts.users.get(&key) {
            return Ok(known.clone());
        }
        let accounts = self.accounts_in_image(image, facts, platform).await?;
        let identity = accounts.find(user, added)?;
        facts.users.insert(key, identity.clone());
        self.keep_facts(&image.target.digest, platform, facts);
        Ok(identity)
    }

    async fn accounts_in_image(
        &self,
        image: &Image,
        facts: &ImageFacts,
        platform: &Platform,
    ) -> Result<Accounts> {
        let Some(chain) = &facts.chain else { return Ok(Accounts::default()) };
        let parent: SnapshotKey = chain.as_str().parse()?;
        let leases = self.catalog.leases(&self.scope);
        let lease = leases.create(None, expiring()).await?.id;
        let looked = self.look(image, platform, &parent, &lease).await;
        // A lease that stays ends by itself.
        if let Err(error) = leases.delete(&lease, berth_core::Deletion::Later).await {
            tracing::debug!(error = %error.chain(), "a lease stays until it expires");
        }
        looked
    }

    async fn look(
        &self,
        image: &Image,
        platform: &Platform,
        parent: &SnapshotKey,
        lease: &LeaseId,
    ) -> Result<Accounts> {
        let scope = self.scope.with_lease(lease.clone());
        let snapshotter = self.catalog.snapshotter(&self.settings.snapshotter, &scope)?;
        let key: SnapshotKey = format!("berth-look-{}", names::new_id()).parse()?;
        let new = NewSnapshot { key: key.clone(), parent: Some(parent.clone()), labels: Labels::new() };
        let mounts = match snapshotter.view(new.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.unpack.unpack(image, platform, &self.settings.snapshotter).await?;
                snapshotter.view(new).await?
            }
            other => other?,
        };
        let accounts = self.in_mounts(&mounts, |root, _| Accounts::read(root));
        let removed = snapshotter.remove(&key).await;
        let accounts = accounts?;
        removed?;
        Ok(accounts)
    }
}

/// Who `user` is in a folder that is a root filesystem.
pub(crate) fn identity_in_folder(folder: &Path, user: &str, added: &[String]) -> Result<Identity> {
    let root = Root::open(folder)
        .map_err(|error| Error::io(format!("cannot use {} as root filesystem", folder.display()), error))?;
    Accounts::read(&root)?.find(user, added)
}

fn expiring() -> Labels {
    let until = jiff::Timestamp::try_from(std::time::SystemTime::now() + LEASE).unwrap_or_default();
    Labels::from([("containerd.io/gc.expire".to_owned(), until.to_string())])
}
