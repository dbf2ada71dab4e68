//! Mounts beneath a test's folder.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// The mount points beneath `folder`, the deepest last, as this process sees them.
pub fn beneath(folder: &Path) -> Vec<PathBuf> {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
    let points =
        table.lines().filter_map(|line| line.split(' ').nth(4)).map(|word| PathBuf::from(unescape(word)));
    points.filter(|point| point.starts_with(folder)).collect()
}

/// Takes every mount beneath `folder` away, the latest first.
pub fn unmount_beneath(folder: &Path) {
    for point in beneath(folder).iter().rev() {
        // What is left is found by the caller, which looks again.
        let _ = unmount(point, UnmountFlags::DETACH);
    }
}

/// The kernel writes blanks, tabs, newlines and backslashes as `\ooo`.
fn unescape(word: &str) -> String {
    let mut parts = word.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => text.push_str(part),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }

    #[test]
    fn every_mount_is_beneath_the_root() {
        assert!(!beneath(Path::new("/")).is_empty());
    }
}
