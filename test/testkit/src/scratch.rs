//! A test's own folder and tag. Dropping it takes away everything that carries the tag.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{cgroups, mounts, processes};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where containerd's shim and its runc keep state whatever the daemon's folders are.
const SHARED_STATE: [&str; 2] = ["/run/containerd/runc", "/run/berth/runc"];

/// A folder in the temp folder whose name is a tag that nothing else on the machine has.
#[derive(Debug)]
pub struct Scratch {
    tag: String,
    folder: PathBuf,
}

impl Scratch {
    /// A fresh one.
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Ends in a letter so that no tag is the beginning of another.
        let tag = format!("berth-test-{}-{number}z", std::process::id());
        let folder = std::env::temp_dir().join(&tag);
        fs::create_dir_all(&folder)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
        Self { tag, folder }
    }

    /// The tag: valid as namespace, container id and cgroup name.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// A file in the folder, written.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// The runtimes' state folders of this tag's namespaces, on the machine at large.
    pub(crate) fn shared_state(&self) -> Vec<PathBuf> {
        let entries =
            SHARED_STATE.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(&self.tag)).collect()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        processes::kill_tagged(&self.tag);
        mounts::unmount_beneath(&self.folder);
        cgroups::remove_tagged(&self.tag);
        for folder in self.shared_state() {
            mounts::unmount_beneath(&folder);
            let _ = fs::remove_dir_all(folder);
        }
        // Never through a mount: with one left, the folder stays and the next look finds it.
        if mounts::beneath(&self.folder).is_empty() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
