//! Overlay mounts whose options need more than a plain mount(2): many layers, mapped layers.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, UnmountFlags};

use super::idmap::mapped_clone;
use crate::thread::in_own_directory;
use crate::userns::IdMapping;

const LOWER: &str = "lowerdir=";
/// mount(2) copies one page of options and silently drops the rest.
const PAGE: usize = 4096;

/// The options joined for mount(2), with the folder they are relative to when that had to be split off.
pub(super) struct Data {
    pub text: CString,
    pub directory: Option<PathBuf>,
}

/// Joins `options`; shortens `lowerdir` by its layers' common folder when they exceed a page.
///
/// E2BIG when they do not fit even then.
pub(super) fn join(options: &[String]) -> io::Result<Data> {
    let joined = options.join(",");
    if joined.len() < PAGE {
        return Ok(Data { text: CString::new(joined)?, directory: None });
    }
    let too_long = || io::Error::from_raw_os_error(libc::E2BIG);
    let lower = options.iter().find_map(|o| o.strip_prefix(LOWER)).ok_or_else(too_long)?;
    let common = common_folder(lower).ok_or_else(too_long)?;
    let short: Vec<&str> = lower.split(':').filter_map(|layer| layer.strip_prefix(common)).collect();
    let short = format!("{LOWER}{}", short.join(":"));
    let options: Vec<&str> =
        options.iter().map(|o| if o.starts_with(LOWER) { short.as_str() } else { o.as_str() }).collect();
    let joined = options.join(",");
    if joined.len() >= PAGE {
        return Err(too_long());
    }
    Ok(Data { text: CString::new(joined)?, directory: Some(PathBuf::from(common)) })
}

/// The longest folder (with its slash) that all layers of a colon-separated list lie below.
fn common_folder(lower: &str) -> Option<&str> {
    let mut layers = lower.split(':');
    let first = layers.next()?;
    let mut end = first.rfind('/')? + 1;
    for layer in layers {
        while !(layer.len() > end && layer.as_bytes()[..end] == first.as_bytes()[..end]) {
            end = first[..end - 1].rfind('/')? + 1;
        }
    }
    Some(&first[..end])
}

/// Mounts an overlay, from the layers' common folder if the options are relative to it.
pub(super) fn mount(source: &str, target: &Path, flags: MountFlags, data: &Data) -> io::Result<()> {
    let call = |target: &Path| {
        rustix::mount::mount(source, target, "overlay", flags, data.text.as_c_str()).map_err(io::Error::from)
    };
    let Some(directory) = &data.directory else { return call(target) };
    let target = std::path::absolute(target)?;
    in_own_directory(directory, || call(&target))
}

/// Copies of the lower layers with their owners mapped, mounted in a folder of their own.
///
/// Overlay takes its own reference to each, so they are let go as soon as it is mounted.
pub(super) struct MappedLayers {
    folder: PathBuf,
    mounted: Vec<PathBuf>,
}

impl MappedLayers {
    /// Maps every layer of `lowerdir` and puts the copies' paths in its place.
    pub(super) fn prepare(
        options: &mut [String],
        uids: &[IdMapping],
        gids: &[IdMapping],
    ) -> io::Result<Option<Self>> {
        let Some(option) = options.iter_mut().find(|o| o.starts_with(LOWER)) else { return Ok(None) };
        let userns = crate::userns::open(uids, gids)?;
        let mut layers = Self { folder: fresh_folder()?, mounted: Vec::new() };
        for layer in option[LOWER.len()..].split(':') {
            let point = layers.folder.join(layers.mounted.len().to_string());
            fs::create_dir(&point)?;
            mapped_clone(Path::new(layer), super::attributes::Reach::One, &userns)?.attach(&point)?;
            layers.mounted.push(point);
        }
        let paths: Vec<_> = layers.mounted.iter().map(|p| p.to_string_lossy()).collect();
        *option = format!("{LOWER}{}", paths.join(":"));
        Ok(Some(layers))
    }
}

impl Drop for MappedLayers {
    fn drop(&mut self) {
        for point in &self.mounted {
            // The mount is ours alone; if the kernel refuses, the folder stays as a visible trace.
            let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
            let _ = fs::remove_dir(point);
        }
        // A layer that failed half-way left its empty folder.
        let _ = fs::remove_dir(self.folder.join(self.mounted.len().to_string()));
        let _ = fs::remove_dir(&self.folder);
    }
}

fn fresh_folder() -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/run/berth-idmap-{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(()) => return Ok(folder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_options_stay_as_they_are() {
        let data = join(&["lowerdir=/a/b:/a/c".into(), "index=off".into()]).unwrap();
        assert_eq!(data.text.to_bytes(), b"lowerdir=/a/b:/a/c,index=off");
        assert_eq!(data.directory, None);
    }

    #[test]
    fn long_layers_become_relative_to_what_they_share() {
        let layers: Vec<String> = (0..200).map(|n| format!("/var/lib/berth/snapshots/{n}/fs")).collect();
        let data = join(&[format!("lowerdir={}", layers.join(":")), "upperdir=/u".into()]).unwrap();
        assert_eq!(data.directory, Some(PathBuf::from("/var/lib/berth/snapshots/")));
        let text = data.text.to_str().unwrap();
        assert!(text.starts_with("lowerdir=0/fs:1/fs:") && text.ends_with("199/fs,upperdir=/u"), "{text}");
    }

    #[test]
    fn options_that_cannot_be_shortened_are_refused() {
        let long = "x".repeat(5000);
        let e = join(&[format!("lowerdir=/a/{long}:/a/b")]).err().unwrap();
        assert_eq!(e.raw_os_error(), Some(libc::E2BIG));
    }

    #[test]
    fn the_common_folder_ends_at_a_slash() {
        assert_eq!(common_folder("/a/bc/1:/a/bd/2"), Some("/a/"));
        assert_eq!(common_folder("/a/b:/a/b/c"), Some("/a/"));
        assert_eq!(common_folder("relative"), None);
    }
}
