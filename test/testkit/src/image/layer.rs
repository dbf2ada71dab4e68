//! One layer of an image.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::tar::{Entry, Kind, Tar};

/// A layer being written.
#[derive(Clone, Debug, Default)]
pub struct Layer(Tar);

impl Layer {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(&Entry { mode, ..Entry::new(Kind::Folder, path) })
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, bytes: &[u8], mode: u32) -> Self {
        self.entry(&Entry { mode, bytes: bytes.to_vec(), ..Entry::new(Kind::File, path) })
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(&Entry { mode: 0o777, link: target.to_owned(), ..Entry::new(Kind::Symlink, path) })
    }

    /// Adds a second name for `target`.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(&Entry { link: target.to_owned(), ..Entry::new(Kind::Hardlink, path) })
    }

    /// Takes `name` in `folder` away from the layers beneath.
    #[must_use]
    pub fn whiteout(self, folder: &str, name: &str) -> Self {
        self.entry(&Entry::new(Kind::File, &format!("{folder}/.wh.{name}")))
    }

    /// Hides everything that the layers beneath have in `folder`.
    #[must_use]
    pub fn opaque(self, folder: &str) -> Self {
        self.entry(&Entry::new(Kind::File, &format!("{folder}/.wh..wh..opq")))
    }

    /// Adds any entry.
    #[must_use]
    pub fn entry(self, entry: &Entry) -> Self {
        Self(self.0.entry(entry))
    }

    /// The tar.
    pub fn tar(self) -> Vec<u8> {
        self.0.finish()
    }
}

/// `bytes` as gzip.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector takes bytes");
    encoder.finish().expect("a vector takes bytes")
}
