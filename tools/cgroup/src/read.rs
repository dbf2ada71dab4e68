//! The few forms in which the kernel writes a cgroup's figures. A file that is not there reads as nothing.

use std::io;
use std::path::Path;

/// A file's text; empty when there is none.
pub(crate) fn text(folder: &Path, file: &str) -> io::Result<String> {
    let path = folder.join(file);
    std::fs::read_to_string(&path).or_else(|error| match error.raw_os_error() {
        // A controller can be missing, a cgroup can go while it is read, and pressure may not be measured.
        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP) => Ok(String::new()),
        _ => Err(named(&path, &error)),
    })
}

/// An error that says which file it is about.
pub(crate) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// One number; `max`, which means no limit, is the largest, and what is missing is 0.
pub(crate) fn number(folder: &Path, file: &str) -> io::Result<u64> {
    Ok(parse(text(folder, file)?.trim()))
}

/// The same of a limit in whose figures 0 means none.
pub(crate) fn limit(folder: &Path, file: &str) -> io::Result<u64> {
    number(folder, file).map(|limit| if limit == u64::MAX { 0 } else { limit })
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

/// The value among words of `NAME=VALUE`; `0` when there is none.
pub(crate) fn value<'a>(words: &'a str, name: &str) -> &'a str {
    let mut words = words.split_whitespace();
    words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or("0")
}

/// Lines of `DEVICE hca_handle=N hca_object=N`; `entry` is given device, handles and objects.
pub(crate) fn rdma<T>(folder: &Path, file: &str, entry: fn(String, u32, u32) -> T) -> io::Result<Vec<T>> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let count = |name| u32::try_from(parse(value(rest, name))).unwrap_or(u32::MAX);
        Some(entry(device.to_owned(), count("hca_handle"), count("hca_object")))
    };
    Ok(text(folder, file)?.lines().filter_map(entry).collect())
}

/// The sizes of huge pages that are counted, each in a file `hugetlb.SIZE.USAGE`.
pub(crate) fn huge_pages(folder: &Path, usage: &str) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|error| named(folder, &error))?;
    let size = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(usage)?.strip_suffix('.')?;
        // Of reservations there are files as well.
        (!size.contains("rsvd")).then(|| size.to_owned())
    };
    Ok(entries.flatten().filter_map(size).collect())
}
