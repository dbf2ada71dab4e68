//! Extended attributes: each name and value once in memory, and on disk once if several files have it.

use std::collections::HashMap;

use crate::error::ErofsError;
use crate::format::NAME;

/// overlayfs' mark of a directory that hides those below it.
pub const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// Bytes of different attributes at most.
const MAX_BYTES: usize = 64 << 20;
/// Attributes of one file that are told by number, which has a byte of its own.
const MAX_SHARED: usize = 128;
/// Bytes before the attributes behind an inode.
const HEADER: usize = 12;

/// The kernel's numbers for the beginnings of names. The access control lists have no more to their names.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// The kernel's number for how a name begins, and the rest of the name; none for one that no image can have.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(number, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        // An access control list is the whole name, the others are prefixes of one.
        (rest.is_empty() != prefix.ends_with(b".")).then_some((*number, rest))
    })
}

/// The beginning that a number stands for.
pub(crate) fn prefix(number: u8) -> Option<&'static [u8]> {
    PREFIXES.iter().find(|(known, _)| *known == number).map(|(_, prefix)| *prefix)
}

/// Every attribute of an image that is being made.
#[derive(Debug, Default)]
pub(crate) struct Xattrs {
    /// As they are on disk, by number.
    encoded: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u32>,
    bytes: usize,
}

impl Xattrs {
    /// The number of an attribute; none if an image cannot have one of that name, as little as a file system could.
    pub(crate) fn number(
        &mut self,
        path: &[u8],
        name: &[u8],
        value: &[u8],
    ) -> Result<Option<u32>, ErofsError> {
        let Some((index, rest)) = split(name) else { return Ok(None) };
        if name.len() > NAME || name.contains(&0) {
            return Err(ErofsError::entry(path, "an extended attribute's name is not valid"));
        }
        let Ok(size) = u16::try_from(value.len()) else {
            return Err(ErofsError::entry(path, "an extended attribute has 64 KiB or more"));
        };
        let mut entry = vec![rest.len() as u8, index];
        entry.extend_from_slice(&size.to_le_bytes());
        entry.extend_from_slice(rest);
        entry.extend_from_slice(value);
        entry.resize(entry.len().next_multiple_of(4), 0);
        if let Some(number) = self.numbers.get(&*entry) {
            return Ok(Some(*number));
        }
        self.bytes += entry.len();
        if self.bytes > MAX_BYTES {
            return Err(ErofsError::TooMany("bytes of extended attributes"));
        }
        let number = self.encoded.len() as u32;
        self.encoded.push(entry.clone().into());
        self.numbers.insert(entry.into(), number);
        Ok(Some(number))
    }

    /// Whether both are values of one name.
    pub(crate) fn same_name(&self, one: u32, other: u32) -> bool {
        let name = |number: u32| {
            let entry = &self.encoded[number as usize];
            (entry[1], &entry[4..4 + usize::from(entry[0])])
        };
        name(one) == name(other)
    }

    /// Decides which ones several files share, from how often each is used.
    pub(crate) fn share(&self, uses: &[u32]) -> Shared {
        let mut shared = Shared { ids: vec![None; self.encoded.len()], area: Vec::new() };
        for (number, entry) in self.encoded.iter().enumerate() {
            if uses.get(number).is_some_and(|count| *count > 1) {
                shared.ids[number] = Some((shared.area.len() / 4) as u32);
                shared.area.extend_from_slice(entry);
            }
        }
        shared
    }

    pub(crate) fn count(&self) -> usize {
        self.encoded.len()
    }

    /// What stands behind the inode of a file with these attributes.
    pub(crate) fn body(&self, numbers: &[u32], shared: &Shared) -> Vec<u8> {
        if numbers.is_empty() {
            return Vec::new();
        }
        let (mut ids, mut own) = (Vec::new(), Vec::new());
        for number in numbers {
            match shared.ids[*number as usize] {
                Some(id) if ids.len() < MAX_SHARED => ids.push(id),
                _ => own.extend_from_slice(&self.encoded[*number as usize]),
            }
        }
        let mut body = vec![0; HEADER];
        body[4] = ids.len() as u8;
        body.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        body.extend_from_slice(&own);
        body
    }
}

/// The attributes that stand apart from any inode.
#[derive(Debug)]
pub(crate) struct Shared {
    ids: Vec<Option<u32>>,
    pub(crate) area: Vec<u8>,
}

/// How the format counts the bytes of a body; none if they are too many.
pub(crate) fn words(body: usize) -> Option<u16> {
    match body.checked_sub(HEADER) {
        None => Some(0),
        Some(rest) => u16::try_from(1 + rest / 4).ok(),
    }
}

/// The other way.
pub(crate) fn body_length(words: u16) -> usize {
    if words == 0 { 0 } else { HEADER + 4 * (usize::from(words) - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_has_no_number_for_are_left_out() {
        assert_eq!(split(b"user.a"), Some((1, &b"a"[..])));
        assert_eq!(split(b"security.capability"), Some((6, &b"capability"[..])));
        assert_eq!(split(b"system.posix_acl_access"), Some((2, &b""[..])));
        for none in [&b"user."[..], b"system.posix_acl_access2", b"system.nfs4_acl", b"other", b""] {
            assert_eq!(split(none), None);
        }
    }

    #[test]
    fn an_attribute_has_one_number() {
        let mut all = Xattrs::default();
        let mut number =
            |name: &str, value: &str| all.number(b"f", name.as_bytes(), value.as_bytes()).unwrap();
        let (one, two) = (number("user.a", "1"), number("user.a", "2"));
        assert_eq!((one, number("user.a", "1"), number("no.such", "1")), (Some(0), Some(0), None));
        assert!(all.same_name(one.unwrap(), two.unwrap()));
        assert!(all.number(b"f", b"user.long", &vec![0; 65_536]).is_err());
    }
}
