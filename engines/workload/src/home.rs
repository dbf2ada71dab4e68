//! Our folders.
//!
//! ```text
//!   HOME/NAMESPACE/containers/ID/   hostname  hosts  resolv.conf  ID-json.log  started
//!   HOME/NAMESPACE/names/NAME       holds the id
//!   HOME/NAMESPACE/volumes/NAME/    _data  volume.json
//!   HOME/.net/ .netns/             networks and who is on them (berth-net), unless they are the host's
//!   HOME/images/                    what was read from images, by content address
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_types::{ContainerId, Error, Namespace, Result};
use sha2::{Digest as _, Sha256};

/// Where the state of one daemon's containers is that only we need.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    namespace: Namespace,
}

impl Home {
    /// Our folder `root` for one namespace. Nothing is made yet.
    pub fn new(root: PathBuf, namespace: Namespace) -> Self {
        Self { root, namespace }
    }

    /// The folder that belongs to a daemon at `address` below `base`: `base/workload` for the default
    /// daemon, one of its own for every other, so that two daemons never share names or volumes.
    pub fn root_for(base: &Path, address: &Path, default_address: &Path) -> PathBuf {
        if address == default_address {
            return base.join("workload");
        }
        let hash = Sha256::digest(address.as_os_str().as_encoded_bytes());
        let short = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        base.join(format!("workload-{short:08x}"))
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Everything of one container.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.of_namespace("containers").join(id.as_str())
    }

    /// The log of one container.
    pub fn log(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    /// The reservations of names.
    pub fn names(&self) -> PathBuf {
        self.of_namespace("names")
    }

    /// The volumes.
    pub fn volumes(&self) -> PathBuf {
        self.of_namespace("volumes")
    }

    /// What was read from images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Makes the folder of a container; parents too.
    pub fn make_container(&self, id: &ContainerId) -> Result<PathBuf> {
        let folder = self.container(id);
        make(&folder)?;
        Ok(folder)
    }

    /// Removes the folder of a container; nothing being there is fine.
    pub fn remove_container(&self, id: &ContainerId) -> Result<()> {
        match fs::remove_dir_all(self.container(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot remove the folder of container {id}"), error))
            }
            _ => Ok(()),
        }
    }

    /// The networks: the host's for the default folder, of its own for every other. Daemons whose folders lie in
    /// the same place share them, as they share the host.
    pub(crate) fn networks(&self) -> berth_net::Networks {
        const DEFAULT: &str = "/var/lib/berth";
        if self.root.starts_with(DEFAULT) {
            return berth_net::Networks::new(Path::new(DEFAULT).join("net"), "/run/berth/netns".into());
        }
        // No namespace begins with a dot.
        berth_net::Networks::new(self.root.join(".net"), self.root.join(".netns"))
    }

    fn of_namespace(&self, what: &str) -> PathBuf {
        self.root.join(self.namespace.as_str()).join(what)
    }
}

/// Makes a folder that only root enters, with its parents.
pub(crate) fn make(folder: &Path) -> Result<()> {
    // Most often only the last part is missing.
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    match builder.create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => builder
            .recursive(true)
            .create(folder)
            .map_err(|error| Error::io(format!("cannot make the folder {}", folder.display()), error)),
    }
}

/// Writes a file whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io(format!("cannot write {}", path.display()), error);
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::write(&beside, bytes).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_do_not_share_a_folder() {
        let base = Path::new("/var/lib/berth");
        let default = Path::new("/run/berth/berth.sock");
        assert_eq!(Home::root_for(base, default, default), base.join("workload"));
        let other = Home::root_for(base, Path::new("/run/containerd/containerd.sock"), default);
        assert_ne!(other, base.join("workload"));
        assert_ne!(other, Home::root_for(base, Path::new("/tmp/d.sock"), default));
    }
}
