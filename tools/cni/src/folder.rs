//! The folder of network configurations, read again whenever it has changed: a network provider writes its file
//! long after the daemon has begun, and replaces the folder as it likes.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_types::{Error, Result};

use crate::config::NetworkList;

/// A folder with the networks that a pod is added to: the first by name is its main one.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// How many of its files count; all for 0.
    most: usize,
    state: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    seen: Vec<Mark>,
    loaded: Arc<Loaded>,
}

/// By what a change of a file is noticed.
type Mark = (PathBuf, u64, u64, u64, (i64, i64), (i64, i64));

/// What the folder held when it was last looked at.
#[derive(Debug)]
pub struct Loaded {
    /// The networks, in the order of their files.
    pub networks: Vec<NetworkList>,
    /// Why there are none.
    pub problem: Option<Error>,
}

impl Folder {
    /// The folder at `path`, of which at most `most` files count, all for 0. It need not be there.
    pub fn new(path: PathBuf, most: usize) -> Self {
        Self { path, most, state: Mutex::new(None) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many of its files count; all for 0.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The networks as they are now. Blocking, for a few calls of stat when nothing has changed.
    pub fn load(&self) -> Arc<Loaded> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = marks(&self.path);
        if let Some(read) = &*state
            && read.seen == seen
        {
            return read.loaded.clone();
        }
        let loaded = Arc::new(match self.read() {
            Ok(networks) => Loaded { networks, problem: None },
            Err(problem) => Loaded { networks: Vec::new(), problem: Some(problem) },
        });
        *state = Some(Read { seen, loaded: loaded.clone() });
        loaded
    }

    fn read(&self) -> Result<Vec<NetworkList>> {
        let files = files(&self.path, &["conf", "conflist", "json"])?;
        if files.is_empty() {
            return Err(Error::not_found(format!("no network config found in {}", self.path.display())));
        }
        let most = if self.most == 0 { files.len() } else { self.most };
        let networks: Vec<NetworkList> =
            files.iter().take(most).map(|file| NetworkList::open(file)).collect::<Result<_>>()?;
        for (number, network) in networks.iter().enumerate() {
            if networks[..number].iter().any(|other| other.name == network.name) {
                return Err(Error::invalid_argument(format!(
                    "two networks in {} are named {}",
                    self.path.display(),
                    network.name
                )));
            }
        }
        Ok(networks)
    }
}

/// The files of a folder with one of these endings, by name; none if there is no such folder.
pub(crate) fn files(folder: &Path, kinds: &[&str]) -> Result<Vec<PathBuf>> {
    let wrong = |error| Error::io(format!("cannot list {}", folder.display()), error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(wrong)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(wrong)?.path();
        let kind = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        if kinds.contains(&kind) && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The folder, its files and the files of its folders, as far as they can be seen.
fn marks(folder: &Path) -> Vec<Mark> {
    let mut marks: Vec<Mark> = mark(folder).into_iter().collect();
    let inside = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    for path in inside(folder) {
        if path.is_dir() {
            marks.extend(inside(&path).iter().filter_map(|path| mark(path)));
        }
        marks.extend(mark(&path));
    }
    marks
}

fn mark(path: &Path) -> Option<Mark> {
    let data = std::fs::metadata(path).ok()?;
    let (changed, modified) = ((data.ctime(), data.ctime_nsec()), (data.mtime(), data.mtime_nsec()));
    Some((path.to_owned(), data.dev(), data.ino(), data.size(), changed, modified))
}
