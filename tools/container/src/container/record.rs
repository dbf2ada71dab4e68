//! What is kept of a container on disk: `ROOT/ID/state.json`.
//!
//! Written whole to a new file and renamed, so that a reader sees the old or the new one. It is not
//! synced: the state root lies on a tmpfs, and nothing in it outlives a reboot anyway. Whoever changes
//! the container holds a lock on its folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use berth_oci::runtime::Spec;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Doing as _, Error, Result};

/// Version of the form.
const VERSION: u32 = 1;
const FILE: &str = "state.json";
/// The fifo where a created container waits.
const GATE: &str = "exec.fifo";

/// The content of `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub version: u32,
    pub id: String,
    pub bundle: PathBuf,
    pub pid: i32,
    /// When the process started, in clock ticks since boot: tells it from a later one of its number.
    pub start_time: u64,
    /// RFC 3339.
    pub created: String,
    pub cgroup: Cgroup,
    /// A class of service made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<PathBuf>,
    pub spec: Spec,
}

impl Record {
    pub(crate) const VERSION: u32 = VERSION;
}

/// The folder of a container.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

/// Held while a container is changed.
pub(crate) struct Lock {
    _file: File,
}

impl Folder {
    /// The folder of `id`; checks the name.
    pub(crate) fn of(root: &Path, id: &str) -> Result<Self> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > 1024 || id == "." || id == ".." || !id.chars().all(fine) {
            return Err(Error::Id { id: id.into() });
        }
        Ok(Self(root.join(id)))
    }

    /// Makes it, new.
    pub(crate) fn make(&self, id: &str) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        let make = || fs::DirBuilder::new().mode(0o711).create(&self.0);
        let made = match make() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = self.0.parent().unwrap_or(Path::new("/"));
                let parents = fs::DirBuilder::new().mode(0o700).recursive(true).create(parent);
                parents.and_then(|()| make())
            }
            done => done,
        };
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists { id: id.into() }),
            done => done.doing(|| format!("cannot make {}", self.0.display())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn gate(&self) -> PathBuf {
        self.0.join(GATE)
    }

    /// Waits for whoever changes the container now.
    pub(crate) fn lock(&self, id: &str) -> Result<Lock> {
        let file = match File::open(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NotFound { id: id.into() }),
            done => done.doing(|| format!("cannot open {}", self.0.display()))?,
        };
        flock(&file, FlockOperation::LockExclusive).doing(|| format!("cannot lock {}", self.0.display()))?;
        Ok(Lock { _file: file })
    }

    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record)
            .map_err(|source| Error::Document { path: self.0.join(FILE), source })?;
        let (new, path) = (self.0.join(".state.json"), self.0.join(FILE));
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.doing(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn read(&self, id: &str) -> Result<Record> {
        let path = self.0.join(FILE);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NotFound { id: id.into() }),
            done => done.doing(|| format!("cannot read {}", path.display()))?,
        };
        let record: Record =
            serde_json::from_slice(&text).map_err(|source| Error::Document { path: path.clone(), source })?;
        if record.version != VERSION {
            let what =
                format!("{} is of version {}, this program reads {VERSION}", path.display(), record.version);
            return Err(Error::State { what });
        }
        Ok(record)
    }

    /// Removes the folder and what is known to be in it.
    pub(crate) fn remove(&self) -> Result<()> {
        for name in [FILE, ".state.json", GATE] {
            let _ = fs::remove_file(self.0.join(name));
        }
        match fs::remove_dir(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).doing(|| format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}
