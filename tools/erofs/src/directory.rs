//! Directories on disk: blocks of entries in byte order, each followed by the names of its entries.

use crate::format::ENTRY;

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) number: u64,
    pub(crate) kind: u8,
}

/// The bytes of a directory with these names, in this order, in blocks of so many bytes.
pub(crate) fn length<'a>(names: impl Iterator<Item = &'a [u8]>, block: usize) -> u64 {
    let (mut full, mut last) = (0_u64, 0);
    for name in names {
        let needs = ENTRY + name.len();
        if last + needs > block {
            (full, last) = (full + 1, 0);
        }
        last += needs;
    }
    full * block as u64 + last as u64
}

/// The bytes themselves; all blocks but the last are whole.
pub(crate) fn encode(items: &[Item<'_>], block: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(block), 0);
        let mut used = 0;
        let fits = |item: &&Item<'_>| {
            used += ENTRY + item.name.len();
            used <= block
        };
        let count = rest.iter().take_while(fits).count();
        let (first, after) = rest.split_at(count);
        let mut name_at = count * ENTRY;
        for item in first {
            bytes.extend_from_slice(&item.number.to_le_bytes());
            bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
            bytes.extend_from_slice(&[item.kind, 0]);
            name_at += item.name.len();
        }
        bytes.extend(first.iter().flat_map(|item| item.name));
        rest = after;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{BLOCK, SMALL_BLOCK};

    #[test]
    fn lengths_are_those_of_the_bytes() {
        for (count, long) in [(0, 1), (1, 1), (300, 1), (341, 0), (15, 255), (16, 255), (5000, 40)] {
            let names: Vec<Vec<u8>> =
                (0..count).map(|n: usize| format!("{n:0>long$}").into_bytes()).collect();
            let items: Vec<Item<'_>> = names.iter().map(|name| Item { name, number: 7, kind: 1 }).collect();
            for block in [BLOCK, SMALL_BLOCK] {
                let bytes = encode(&items, block);
                let length = length(names.iter().map(Vec::as_slice), block);
                assert_eq!(bytes.len() as u64, length, "{count} of {long} in {block}");
            }
        }
    }
}
