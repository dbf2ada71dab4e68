//! The few forms in which the kernel writes a cgroup's figures. A file that is not there reads as nothing.

use std::io;
use std::path::Path;

/// A file's text; empty when the file does not exist.
pub(crate) fn text(folder: &Path, file: &str) -> io::Result<String> {
    match std::fs::read_to_string(folder.join(file)) {
        // A controller can be missing, and a cgroup can go while it is read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(String::new())
        }
        other => other,
    }
}

/// One number; `max`, which means no limit, is the largest, and what is missing is 0.
pub(crate) fn number(folder: &Path, file: &str) -> io::Result<u64> {
    Ok(parse(text(folder, file)?.trim()))
}

/// A number as the kernel writes it.
pub(crate) fn parse(word: &str) -> u64 {
    if word == "max" { u64::MAX } else { word.parse().unwrap_or(0) }
}

/// Lines of `NAME NUMBER`.
#[derive(Debug, Default)]
pub(crate) struct Table(String);

impl Table {
    /// Reads a file of that form.
    pub(crate) fn read(folder: &Path, file: &str) -> io::Result<Self> {
        text(folder, file).map(Self)
    }

    /// The number of a name; 0 when there is none.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let mut pairs = self.0.lines().filter_map(|line| line.split_once(' '));
        pairs.find(|(key, _)| *key == name).map_or(0, |(_, value)| parse(value.trim()))
    }

    /// Whether there was nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Lines of `DEVICE hca_handle=N hca_object=N`: device, handles, objects.
pub(crate) fn rdma(folder: &Path, file: &str) -> io::Result<Vec<(String, u32, u32)>> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let value = |name: &str| {
            let found = rest.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map_or(0, |word| parse(word).min(u64::from(u32::MAX)) as u32)
        };
        Some((device.to_owned(), value("hca_handle"), value("hca_object")))
    };
    Ok(text(folder, file)?.lines().filter_map(entry).collect())
}
