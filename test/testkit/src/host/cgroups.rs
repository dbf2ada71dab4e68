//! Cgroups that a test's containers were in: containerd makes `/NAMESPACE/ID` in every hierarchy,
//! so the tag is in the first or second name.

use std::fs;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

/// The topmost cgroups whose name holds `tag`, in every hierarchy.
pub fn tagged(tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // Version 1 has a level of hierarchies above; version 2 has not.
    search(Path::new(MOUNT), tag, 3, &mut found);
    found
}

/// Removes the cgroups that carry `tag`. Those with a process in them stay; see [`tagged`].
pub fn remove_tagged(tag: &str) {
    tagged(tag).iter().for_each(|cgroup| remove(cgroup));
}

fn remove(cgroup: &Path) {
    folders(cgroup).iter().for_each(|child| remove(child));
    let _ = fs::remove_dir(cgroup);
}

fn search(folder: &Path, tag: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for child in folders(folder) {
        let name = child.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(tag) {
            found.push(child);
        } else if depth > 1 {
            search(&child, tag, depth - 1, found);
        }
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
