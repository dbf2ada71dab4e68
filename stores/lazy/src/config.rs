//! What can be set.

use std::time::Duration;

use berth_types::ImageRef;
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
    /// Repositories, or what their names begin with, whose writers are trusted with what layers hold: indexes of layers
    /// without tables that were published there are used. `*` is every repository.
    pub plain_indexes: Vec<String>,
    /// Seconds from a layer's first read in which it is noted what is read of it, to be fetched first the next time; 0
    /// means that nothing is noted.
    pub learn_seconds: u64,
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
            plain_indexes: Vec::new(),
            learn_seconds: 20,
        }
    }
}

impl Config {
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.read_seconds.max(1))
    }

    /// Whether indexes that were published in an image's repository are used.
    pub(crate) fn trusts(&self, image: &ImageRef) -> bool {
        let repository = image.repository();
        self.plain_indexes.iter().any(|trusted| {
            let rest = repository.strip_prefix(trusted.trim_end_matches('/'));
            trusted == "*" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_trusted_by_whole_names() {
        let trusts = |trusted: &str, image: &str| {
            let config = Config { plain_indexes: vec![trusted.to_owned()], ..Config::default() };
            config.trusts(&image.parse().unwrap())
        };
        assert!(!Config::default().trusts(&"a.example/b:1".parse().unwrap()));
        assert!(trusts("*", "a.example/b:1"));
        for trusted in ["a.example", "a.example/", "a.example/team", "a.example/team/app"] {
            assert!(trusts(trusted, "a.example/team/app:1"), "{trusted}");
        }
        for other in ["a.exam", "a.example/te", "a.example/team/app/more", "team", "", "/"] {
            assert!(!trusts(other, "a.example/team/app:1"), "{other:?}");
        }
    }
}
