//! Which parts of a layer are read at a container's start, so that they come first the next time.
//!
//! ```text
//!   mount ─ first read ─▶ [`Learner`] notes ─ after some seconds ─▶ reads/REPOSITORY/LAYER
//!                                                                        │
//!   mount, some day ◀── fetched before anybody asks ◀── parts that the layer has ─╯
//! ```
//! What is noted are paths of files and which bytes of them, in the order in which they were read. A new version of a
//! layer has another digest and most of the same paths: a layer of which nothing is known is looked up by those of the
//! others of its repository. A list is a hint and no more: it may say anything, and only what the layer has is fetched.

mod learner;
mod list;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_archive::Hasher;
use berth_types::{Digest, ImageRef};

pub(crate) use self::learner::Learner;
pub(crate) use self::list::List;

/// Bytes of one list.
pub(crate) const LIMIT: u64 = 1 << 20;
/// Lists that are kept; over it, those go that nobody has used for the longest time.
const LISTS: usize = 4096;
/// Other layers of the same repository that are asked about one of which nothing is known.
const OTHERS: usize = 16;

/// Where lists are, below the folder of `berth-lazyd`.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("reads")
}

/// Where the list of a layer is. Names of repositories are not names of files.
pub(crate) fn file(folder: &Path, image: &ImageRef, layer: &Digest) -> PathBuf {
    folder.join(Hasher::digest(image.repository().as_bytes()).hex()).join(layer.hex())
}

/// The list at a path, if there is one that can be read. Blocking.
fn read(path: &Path) -> Option<List> {
    if fs::metadata(path).ok()?.len() > LIMIT {
        return None;
    }
    List::read(&fs::read(path).ok()?)
}

/// The bytes of the list at a path for somebody else. Blocking, and short.
pub(crate) fn shared(path: &Path) -> Option<Vec<u8>> {
    read(path).map(|list| list.write())
}

/// What is known of a layer, or else of the others of its repository. Blocking.
pub(crate) fn known(path: &Path) -> List {
    if let Some(list) = read(path) {
        // The time says when it was used last.
        let used = fs::File::options().append(true).open(path);
        if let Err(error) = used.and_then(|file| file.set_modified(SystemTime::now())) {
            tracing::debug!(%error, "cannot note that a list of reads was used");
        }
        return list;
    }
    let found = path.parent().and_then(|folder| listed(folder).ok()).unwrap_or_default();
    let latest = found.iter().rev().take(OTHERS);
    latest.filter_map(|(_, path)| read(path)).fold(List::default(), List::and)
}

/// Keeps a list, with what an earlier one had. Blocking.
pub(crate) fn keep(list: List, path: &Path) -> io::Result<()> {
    let list = match read(path) {
        Some(before) => list.after(before),
        None => list,
    };
    write(&list, path)
}

/// Keeps a list that came from elsewhere, unless there is one that was made here. Blocking.
pub(crate) fn adopt(bytes: &[u8], path: &Path) -> io::Result<()> {
    match List::read(bytes) {
        Some(list) if !path.exists() => write(&list, path),
        _ => Ok(()),
    }
}

fn write(list: &List, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, list.write())?;
    fs::rename(&new, path)
}

/// Removes lists that were not used for the longest time, if there are too many. Blocking.
pub(crate) fn trim(folder: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    for repository in fs::read_dir(folder)? {
        let repository = repository?.path();
        found.extend(listed(&repository)?);
    }
    found.sort_unstable();
    let many = found.len().saturating_sub(LISTS);
    for (_, path) in found.drain(..many) {
        fs::remove_file(&path)?;
        // The last one of a repository takes its folder along.
        drop(path.parent().map(fs::remove_dir));
    }
    Ok(())
}

/// The lists of a folder, those that were used last behind the others.
fn listed(folder: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found.push((entry.metadata()?.modified()?, entry.path()));
    }
    found.sort_unstable();
    Ok(found)
}
