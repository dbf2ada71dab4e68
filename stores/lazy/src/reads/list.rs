//! A list of what was read, as JSON.

use std::collections::{HashMap, HashSet};

use berth_stargz::{Kind, Layer, NodeId, ROOT};
use serde::{Deserialize, Serialize};

use super::LIMIT;

const VERSION: u32 = 1;
/// Parts of a list.
pub(super) const PARTS: usize = 4096;
/// Bytes of a path (`PATH_MAX`).
const PATH: usize = 4096;
/// After so many starts at which nobody read it a part is forgotten.
const MISSES: u32 = 3;

/// What was read, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List(Vec<Part>);

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    /// The file, from the root, without a slash before it.
    path: String,
    /// The first byte.
    from: u64,
    /// The one behind the last.
    to: u64,
    /// How many starts there have been since that did not read it.
    #[serde(default)]
    missed: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    parts: Vec<Part>,
}

impl List {
    /// Reads a list; none where it is not one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(bytes).ok()?;
        let Document { version, parts } = document;
        let fits = |part: &Part| part.path.len() <= PATH && part.from < part.to;
        (version == VERSION && parts.len() <= PARTS && parts.iter().all(fits)).then_some(Self(parts))
    }

    /// Its bytes, of which there are not more than may be read again: what comes last is left out.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut size = 0;
        let fits = |part: &&Part| {
            // A byte of a name can become six.
            size += 6 * part.path.len() as u64 + 100;
            size < LIMIT
        };
        let parts = self.0.iter().take_while(fits).cloned().collect();
        // Strings and numbers: there is nothing that JSON cannot say.
        serde_json::to_vec(&Document { version: VERSION, parts }).unwrap_or_default()
    }

    /// What was read of a layer, by the numbers of its chunks. Files whose names are not UTF-8 are left out.
    pub(crate) fn of(layer: &Layer, chunks: &[u32]) -> Self {
        let wanted: HashSet<u32> = chunks.iter().copied().collect();
        let paths = paths(layer, &wanted);
        let mut parts: Vec<Part> = Vec::new();
        for number in chunks {
            let (Some(path), Some(chunk)) = (paths.get(number), layer.all_chunks().get(*number as usize))
            else {
                continue;
            };
            match parts.last_mut() {
                Some(last) if last.path == *path && last.to == chunk.offset => last.to = chunk.end(),
                _ => {
                    let (path, from, to) = (path.clone(), chunk.offset, chunk.end());
                    parts.push(Part { path, from, to, missed: 0 });
                }
            }
        }
        parts.truncate(PARTS);
        Self(parts)
    }

    /// The chunks of a layer that are meant, in order and each once.
    pub(crate) fn chunks(&self, layer: &Layer) -> Vec<usize> {
        let (mut chunks, mut seen) = (Vec::new(), HashSet::new());
        for part in &self.0 {
            let mut names = part.path.split('/').filter(|name| !name.is_empty());
            let found = names.try_fold(ROOT, |at, name| layer.child(layer.node(at)?, name.as_bytes()));
            let Some(Kind::File { chunks: of, .. }) =
                found.and_then(|id| layer.node(id)).map(|node| &node.kind)
            else {
                continue;
            };
            for number in of.clone() {
                let meant = layer.all_chunks().get(number as usize).is_some_and(|chunk| {
                    chunk.stored.is_some() && chunk.offset < part.to && part.from < chunk.end()
                });
                if meant && seen.insert(number) {
                    chunks.push(number as usize);
                }
            }
        }
        chunks
    }

    /// This list, and behind it what an earlier one has besides, as long as that is not missed too often.
    pub(crate) fn after(mut self, before: Self) -> Self {
        let there: HashSet<(String, u64)> =
            self.0.iter().map(|part| (part.path.clone(), part.from)).collect();
        let old = before.0.into_iter().filter(|part| !there.contains(&(part.path.clone(), part.from)));
        let aged = old.map(|part| Part { missed: part.missed.saturating_add(1), ..part });
        self.0.extend(aged.filter(|part| part.missed <= MISSES));
        self.0.truncate(PARTS);
        self
    }

    /// This list and another one behind it.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// By which paths the files are known that have some of these chunks.
fn paths(layer: &Layer, wanted: &HashSet<u32>) -> HashMap<u32, String> {
    let mut found = HashMap::new();
    let mut folders: Vec<(NodeId, String)> = vec![(ROOT, String::new())];
    while let Some((folder, path)) = folders.pop() {
        let Some(Kind::Directory { children, .. }) = layer.node(folder).map(|node| &node.kind) else {
            continue;
        };
        for (name, id) in children {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            match layer.node(*id).map(|node| &node.kind) {
                Some(Kind::Directory { .. }) => folders.push((*id, path)),
                Some(Kind::File { chunks, .. }) => {
                    for number in chunks.clone().filter(|number| wanted.contains(number)) {
                        found.insert(number, path.clone());
                    }
                }
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(path: &str, from: u64) -> Part {
        Part { path: path.to_owned(), from, to: from + 10, missed: 0 }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_never_larger_than_it_may_be() {
        let list = List(vec![part("a", 0), part("b/\u{1}\"c", 7)]);
        assert_eq!(List::read(&list.write()), Some(list));
        let long = List((0..PARTS as u64).map(|at| part(&"\u{1}".repeat(PATH), at)).collect());
        let bytes = long.write();
        assert!((bytes.len() as u64) < LIMIT);
        assert!(List::read(&bytes).is_some_and(|list| !list.is_empty()));
        let many = List((0..=PARTS as u64).map(|at| part("a", at)).collect());
        assert_eq!(List::read(&many.write()), None);
    }

    #[test]
    fn what_is_not_read_any_more_is_forgotten_after_some_starts() {
        let mut list = List(vec![part("old", 0), part("always", 0)]);
        for _ in 0..MISSES {
            list = List(vec![part("always", 0)]).after(list);
            let paths: Vec<&str> = list.0.iter().map(|part| part.path.as_str()).collect();
            assert_eq!(paths, ["always", "old"]);
        }
        assert_eq!(List(vec![part("always", 0)]).after(list), List(vec![part("always", 0)]));
    }
}
