//! A look into a root filesystem that no container has mounted for us.
//!
//! Everything happens in a mount namespace of its own, which ends with the look: nothing can be left mounted,
//! and no container or daemon sees it.

use std::path::Path;

use berth_sys::beneath::Root;
use berth_sys::mount::mount_all;
use berth_sys::thread::in_private_mounts;
use berth_types::{Error, Mount, Result};

/// Mounts a list at the empty folder `at` and gives its root to `look`. Looks at the same folder do not disturb one
/// another.
pub fn look_into<T: Send>(
    mounts: &[Mount],
    at: &Path,
    look: impl FnOnce(&Root, &Path) -> Result<T> + Send,
) -> Result<T> {
    let looked = in_private_mounts(|| {
        Ok(mount_all(mounts, at)
            .map_err(|error| Error::unknown("cannot mount the root filesystem").caused_by(error))
            .and_then(|()| {
                let root =
                    Root::open(at).map_err(|error| Error::io("cannot open the root filesystem", error))?;
                look(&root, at)
            }))
    });
    looked.map_err(|error| Error::io("cannot have a mount namespace of our own", error))?
}

/// The same mounts without the right, and without the need, to write.
pub fn read_only(mounts: &[Mount]) -> Vec<Mount> {
    let one = |mount: &Mount| {
        let mut mount = mount.clone();
        mount.options.retain(|option| option != "rw");
        if mount.kind == "overlay" {
            // Two overlays must never share an upper folder; beneath a read-only one it becomes the top layer.
            let upper = take(&mut mount.options, "upperdir=");
            take(&mut mount.options, "workdir=");
            if let Some(upper) = upper
                && let Some(lower) = mount.options.iter_mut().find(|option| option.starts_with("lowerdir="))
            {
                *lower = format!("lowerdir={upper}:{}", &lower["lowerdir=".len()..]);
            }
        }
        mount.options.push("ro".to_owned());
        mount
    };
    mounts.iter().map(one).collect()
}

fn take(options: &mut Vec<String>, prefix: &str) -> Option<String> {
    let at = options.iter().position(|option| option.starts_with(prefix))?;
    Some(options.remove(at)[prefix.len()..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_overlay_has_the_upper_folder_on_top() {
        let mount = Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/b:/a"].map(str::to_owned).into(),
            ..Mount::default()
        };
        assert_eq!(read_only(&[mount])[0].options, ["index=off", "lowerdir=/u:/b:/a", "ro"]);
    }
}
