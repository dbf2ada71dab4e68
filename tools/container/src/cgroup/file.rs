//! Files of the cgroup filesystem.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::error::{Doing as _, Result};

/// Writes a value; the error names file and value.
pub(super) fn write(directory: &Path, name: &str, value: &str) -> Result<()> {
    attempt(directory, name, value)
        .doing(|| format!("failed to write {value:?} to {}", directory.join(name).display()))
}

/// Writes a value; the caller judges the error.
pub(super) fn attempt(directory: &Path, name: &str, value: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(directory.join(name))?;
    file.write_all(value.as_bytes())
}

/// Reads a file; empty when it does not exist.
pub(super) fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap_or_default()
}

/// Reads a number; `max` is the greatest, anything else 0.
pub(super) fn number(directory: &Path, name: &str) -> u64 {
    parse(read(directory, name).trim())
}

/// A number as cgroup files have them.
pub(super) fn parse(text: &str) -> u64 {
    match text {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}
