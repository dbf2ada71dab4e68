//! The keys of records: what kind of record, then its names, each ended by a zero byte, so that
//! the names of a record begin with those of what it belongs to, and order is that of the names.

use berth_types::{Error, Result};

/// What a record is. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The database itself: `schema`, `sequence` and so on.
    Meta = 0,
    /// (namespace)
    Namespace = 1,
    /// (namespace, name)
    Image = 2,
    /// (namespace, id)
    Container = 3,
    /// (namespace, id)
    Lease = 4,
    /// (namespace, lease, type, id)
    LeaseResource = 5,
    /// (namespace, digest)
    Blob = 6,
    /// (namespace, reference)
    Ingest = 7,
    /// (namespace, snapshotter, key)
    Snapshot = 8,
    /// (namespace, snapshotter, parent, child)
    Child = 9,
    /// (namespace, snapshotter, key): a snapshot whose commit is under way.
    Commit = 10,
    /// (namespace, id)
    Sandbox = 11,
    /// (namespace, name): an activated mount, whose record is elsewhere. Never on disk: the collector marks it.
    Mount = 12,
}

impl Kind {
    /// The kind that a key begins with.
    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        const ALL: [Kind; 13] = [
            Kind::Meta,
            Kind::Namespace,
            Kind::Image,
            Kind::Container,
            Kind::Lease,
            Kind::LeaseResource,
            Kind::Blob,
            Kind::Ingest,
            Kind::Snapshot,
            Kind::Child,
            Kind::Commit,
            Kind::Sandbox,
            Kind::Mount,
        ];
        key.first().and_then(|&byte| ALL.get(usize::from(byte)).copied())
    }
}

/// The key of a record, or the beginning of those of all that belong to the last name.
pub(crate) fn key(kind: Kind, names: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + names.iter().map(|name| name.len() + 1).sum::<usize>());
    key.push(kind as u8);
    for name in names {
        for &byte in name.as_bytes() {
            // Zero ends a name; the two bytes that could be mistaken for it are written as pairs.
            match byte {
                0 => key.extend([1, 1]),
                1 => key.extend([1, 2]),
                byte => key.push(byte),
            }
        }
        key.push(0);
    }
    key
}

/// The names in a key.
pub(crate) fn names<const N: usize>(key: &[u8]) -> Result<[String; N]> {
    split(key).and_then(|names| names.try_into().ok()).ok_or_else(|| {
        Error::data_loss(format!("the metadata database has a damaged key: {}", key.escape_ascii()))
    })
}

fn split(key: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut name = Vec::new();
    let mut bytes = key.get(1..)?.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            0 => names.push(String::from_utf8(std::mem::take(&mut name)).ok()?),
            1 => name.push(bytes.next()?.checked_sub(1)?),
            byte => name.push(byte),
        }
    }
    name.is_empty().then_some(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_come_back(a: String, b: String, c: String) {
            let key = key(Kind::Snapshot, &[&a, &b, &c]);
            prop_assert_eq!(names::<3>(&key).unwrap(), [a, b, c]);
        }

        #[test]
        fn keys_have_the_order_of_their_names(a: (String, String), b: (String, String)) {
            let left = key(Kind::Image, &[&a.0, &a.1]);
            let right = key(Kind::Image, &[&b.0, &b.1]);
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>) {
            let _ = names::<2>(&bytes);
        }
    }

    #[test]
    fn a_namespace_is_no_prefix_of_a_longer_one() {
        assert!(!key(Kind::Image, &["ab", "x"]).starts_with(&key(Kind::Image, &["a"])));
        assert!(key(Kind::Image, &["a", "x"]).starts_with(&key(Kind::Image, &["a"])));
    }
}
