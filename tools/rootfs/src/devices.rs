//! Devices of the host, as a container can have them.

use std::fs;
use std::path::Path;

use berth_oci::runtime::Device;
use berth_types::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, major, minor};

/// How deep folders of devices go.
const MAX_DEPTH: usize = 4;
/// What the runtime makes itself, or what would be the host's own terminals and memory.
const LEFT_OUT: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", "console"];

/// The device at a path, under the name `target`; none if something else is there, also a link.
pub fn device(path: &Path, target: &str) -> Option<Device> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return None,
    };
    Some(Device {
        path: target.to_owned(),
        kind: kind.to_owned(),
        major: i64::from(major(stat.st_rdev)),
        minor: i64::from(minor(stat.st_rdev)),
        file_mode: Some(stat.st_mode & 0o7777),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
    })
}

/// The devices in a folder and its folders, below `target`. Terminals, shared memory and links are left out.
pub fn devices_below(folder: &Path, target: &str) -> Result<Vec<Device>> {
    let mut found = Vec::new();
    collect(folder, target, 0, &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, target: &str, depth: usize, found: &mut Vec<Device>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(_) if depth > 0 => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot list {}", folder.display()), error)),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if LEFT_OUT.contains(&name.as_ref()) {
            continue;
        }
        let target = format!("{target}/{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                collect(&entry.path(), &target, depth + 1, found)?;
            }
            Ok(kind) if kind.is_symlink() => {}
            _ => found.extend(device(&entry.path(), &target)),
        }
    }
    Ok(())
}

/// The device or devices that a path of the host leads to, followed to its end: one, or those below a folder; nothing
/// for anything else.
pub fn devices_at(path: &Path, target: &str) -> Result<Vec<Device>> {
    #[expect(clippy::disallowed_methods, reason = "a device of the host, named by its administrator")]
    let path = fs::canonicalize(path)
        .map_err(|error| Error::io(format!("cannot find the device {}", path.display()), error))?;
    if let Some(device) = device(&path, target) {
        return Ok(vec![device]);
    }
    if path.is_dir() { devices_below(&path, target) } else { Ok(Vec::new()) }
}
