//! One entry of a table, as its JSON has it.

use std::collections::BTreeMap;

use berth_types::Digest;
use serde::Deserialize;

/// An entry. What both formats say in common, and what only one of them does.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Entry {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) size: u64,
    /// RFC 3339; empty or wrong means the epoch, as in stargz-snapshotter.
    pub(crate) modtime: String,
    pub(crate) link_name: String,
    pub(crate) mode: i64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) dev_major: u32,
    pub(crate) dev_minor: u32,
    /// Values in base64.
    pub(crate) xattrs: BTreeMap<String, String>,
    /// Of the whole file.
    pub(crate) digest: Option<Digest>,
    /// Where the compressed stream begins.
    pub(crate) offset: u64,
    /// Where the data begins in what the stream decompresses to.
    pub(crate) inner_offset: u64,
    pub(crate) chunk_offset: u64,
    /// 0 means up to the end of the file.
    pub(crate) chunk_size: u64,
    pub(crate) chunk_digest: Option<Digest>,
    /// zstd:chunked: `zeros` for a hole.
    pub(crate) chunk_type: String,
}

impl Entry {
    pub(crate) fn mtime(&self) -> berth_archive::Time {
        let parsed = self.modtime.parse::<jiff::Timestamp>().unwrap_or_default();
        let nanos = parsed.as_nanosecond();
        let seconds = nanos.div_euclid(1_000_000_000) as i64;
        berth_archive::Time { seconds, nanos: nanos.rem_euclid(1_000_000_000) as u32 }
    }
}
