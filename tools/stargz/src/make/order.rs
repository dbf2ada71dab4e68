//! Which entry of a tar comes when.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufReader, Read};

use berth_archive::{Entry, Kind, Reader, TarError, Whiteout, clean, parent};

use super::table;
use crate::{LANDMARK, NO_LANDMARK};

/// An entry, and where its data is in the tar.
pub(super) struct Item {
    pub(super) entry: Entry,
    pub(super) path: Vec<u8>,
    pub(super) data: u64,
}

/// Every entry of a tar but those that make a table of it.
pub(super) fn items(tar: impl Read) -> Result<Vec<Item>, TarError> {
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, tar));
    let mut items = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let path = clean(&entry.path);
        if !matches!(&path[..], LANDMARK | NO_LANDMARK | table::NAME) {
            items.push(Item { entry, path, data: reader.offset() });
        }
    }
    Ok(items)
}

/// Those that are wanted first, and the rest in its old order.
///
/// What unpacking makes of them stays the same: a folder comes before what is in it, a file before its other names, and
/// a whiteout before what takes the place of what it removes. An entry whose path stands several times stays where it
/// is, for there the last one counts.
pub(super) fn order(items: Vec<Item>, first: &[Vec<u8>]) -> (Vec<Item>, Vec<Item>) {
    let mut picking =
        Picking { places: BTreeMap::new(), items: &items, taken: Vec::new(), met: HashSet::new() };
    for (place, item) in items.iter().enumerate() {
        picking.places.entry(&item.path).and_modify(|once| *once = None).or_insert(Some(place));
    }
    for path in first {
        picking.pick(&clean(path));
    }
    let taken = picking.taken;
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    let before = taken.into_iter().filter_map(|place| items[place].take()).collect();
    (before, items.into_iter().flatten().collect())
}

struct Picking<'i> {
    /// Where each path stands, if it stands once.
    places: BTreeMap<&'i [u8], Option<usize>>,
    items: &'i [Item],
    taken: Vec<usize>,
    met: HashSet<usize>,
}

impl Picking<'_> {
    fn place(&self, path: &[u8]) -> Option<usize> {
        self.places.get(path).copied().flatten()
    }

    /// Takes a path after all that it needs; false where it has to stay.
    fn pick(&mut self, path: &[u8]) -> bool {
        let Some(place) = self.place(path) else { return false };
        if !self.met.insert(place) {
            return self.taken.contains(&place);
        }
        let (folder, name) = parent(path);
        if !folder.is_empty() && self.places.contains_key(folder) && !self.pick(folder) {
            return false;
        }
        let items = self.items;
        let fits = match &items[place].entry.kind {
            Kind::HardLink(target) => self.pick(&clean(target)),
            _ => true,
        };
        if !fits {
            return false;
        }
        let marker = [folder, b"/", &Whiteout::marker(name)].concat();
        self.pick(&clean(&marker));
        self.taken.push(place);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(entries: &[(&str, Kind)], first: &[&str]) -> (Vec<String>, Vec<String>) {
        let item = |(path, kind): &(&str, Kind)| Item {
            entry: Entry::new(path.as_bytes(), kind.clone(), 0o644),
            path: clean(path.as_bytes()),
            data: 0,
        };
        let first: Vec<Vec<u8>> = first.iter().map(|path| path.as_bytes().to_vec()).collect();
        let (before, after) = order(entries.iter().map(item).collect(), &first);
        let names = |items: Vec<Item>| {
            items.iter().map(|item| String::from_utf8_lossy(&item.path).into_owned()).collect()
        };
        (names(before), names(after))
    }

    #[test]
    fn what_a_file_needs_comes_before_it() {
        let entries = [
            ("a/", Kind::Directory),
            ("a/x", Kind::File),
            ("b/", Kind::Directory),
            ("b/.wh.y", Kind::File),
            ("b/y", Kind::File),
            ("c", Kind::HardLink(b"/b/y".to_vec())),
        ];
        let (before, after) = ordered(&entries, &["/c", "missing", "c"]);
        assert_eq!(before, ["b", "b/.wh.y", "b/y", "c"]);
        assert_eq!(after, ["a", "a/x"]);
    }

    #[test]
    fn what_stands_twice_stays_with_all_that_needs_it() {
        let entries = [
            ("x", Kind::File),
            ("l", Kind::HardLink(b"x".to_vec())),
            ("x", Kind::File),
            ("r", Kind::HardLink(b"r".to_vec())),
        ];
        let (before, after) = ordered(&entries, &["x", "l", "r"]);
        assert!(before.is_empty(), "{before:?}");
        assert_eq!(after.len(), 4);
    }
}
