//! What can be set.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How lazy layers behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of chunks that are kept on disk.
    pub cache_bytes: u64,
    /// Seconds that a read waits for the registry before it fails.
    pub read_seconds: u64,
    /// Bytes of a layer that are fetched at once at most, where reads follow one another.
    pub span_bytes: u64,
    /// Whether a layer is fetched to its end while nobody waits for anything.
    pub background: bool,
    /// Whether the SOCI index that an image's manifest names is used.
    pub soci: bool,
    /// Whether one is used that only refers to the image: whoever may write to its repository can put one there.
    pub soci_v1: bool,
    /// Whether layers without tables are taken too: fetched whole the first time, in parts after that.
    pub plain: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_bytes: 20 << 30,
            read_seconds: 30,
            span_bytes: 2 << 20,
            background: true,
            soci: true,
            soci_v1: false,
            plain: false,
        }
    }
}

impl Config {
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.read_seconds.max(1))
    }
}
