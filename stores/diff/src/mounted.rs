//! The trees that lists of mounts describe, opened.
//!
//! A folder or the upper folder of an overlay is opened where it lies. Anything else is mounted in a
//! mount namespace of one thread, which ends with the work: nobody else sees the mount, and nothing is
//! left of it whatever happens.

use std::io;
use std::path::{Path, PathBuf};

use berth_sys::beneath::Root;
use berth_sys::mount::{MountError, mount_all};
use berth_sys::thread::in_private_mounts;
use berth_types::{Error, Mount, Result};

/// Where a list is mounted in the thread's namespace. Every Linux machine has this folder, and no
/// snapshot lies below it.
const POINT: &str = "/sys";

/// How removals of lower files are written into a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// By removing them: the tree is the whole.
    Remove,
    /// By the marks of overlayfs: the tree is the upper folder of an overlay.
    Overlay {
        /// `trusted.overlay.` or `user.overlay.`.
        prefix: &'static str,
        /// The folders below, nearest first.
        lowers: Vec<PathBuf>,
        /// Whether the folders below are not known yet, and how much may be guessed.
        apart: Apart,
    },
}

/// What is done in an upper folder whose lower ones are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// They are known.
    No,
    /// As in containerd, what a layer does not tell of its folders is taken to be root's with mode 0755.
    Guess,
    /// A layer that needs them is refused.
    Refuse,
}

/// The option, to nobody but us, of a tree that gets its parents later: what needs them is refused.
const REFUSE: &str = "x-berth.apart";

/// An overlay mount as its options tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) upper: Option<PathBuf>,
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) user_xattrs: bool,
    /// Whether ids are mapped, so that the folders don't look as the mount does.
    pub(crate) mapped: bool,
    pub(crate) apart: Apart,
}

impl Overlay {
    /// Reads the one overlay of a list; `None` for any other list.
    pub(crate) fn of(mounts: &[Mount]) -> Option<Self> {
        let [Mount { kind, target, options, .. }] = mounts else { return None };
        if kind != "overlay" || !target.is_empty() {
            return None;
        }
        let value = |key: &str| options.iter().find_map(|option| option.strip_prefix(key));
        let Some(lowers) = value("lowerdir=") else {
            // An upper folder alone is none that can be mounted, but one that can be filled.
            let has = |word: &str| options.iter().any(|option| option == word);
            return Some(Self {
                upper: Some(PathBuf::from(value("upperdir=")?)),
                lowers: Vec::new(),
                user_xattrs: has("userxattr"),
                mapped: false,
                apart: if has(REFUSE) { Apart::Refuse } else { Apart::Guess },
            });
        };
        // Escaped colons and data-only layers are the kernel's to read.
        if lowers.contains('\\') || lowers.contains("::") {
            return None;
        }
        Some(Self {
            upper: value("upperdir=").map(PathBuf::from),
            lowers: lowers.split(':').map(PathBuf::from).collect(),
            user_xattrs: options.iter().any(|option| option == "userxattr"),
            mapped: value("uidmap=").or(value("gidmap=")).is_some(),
            apart: Apart::No,
        })
    }

    pub(crate) fn prefix(&self) -> &'static str {
        if self.user_xattrs { "user.overlay." } else { "trusted.overlay." }
    }
}

/// The folder that a list of one plain bind mount shows, and whether it may be written.
pub(crate) fn bound(mounts: &[Mount]) -> Option<(&Path, Access)> {
    let [Mount { kind, source, target, options }] = mounts else { return None };
    let has = |word: &str| options.iter().any(|option| option == word);
    let bind = kind == "bind" || has("bind") || has("rbind");
    let plain = options.iter().all(|option| matches!(&**option, "bind" | "rbind" | "rw" | "ro"));
    let access = if has("ro") { Access::Read } else { Access::Write };
    (bind && plain && target.is_empty()).then_some((Path::new(source), access))
}

/// What may be done in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Works on the tree that is to take a layer.
pub(crate) fn for_writing<T: Send>(
    mounts: &[Mount],
    work: impl FnOnce(Root, Whiteouts) -> Result<T> + Send,
) -> Result<T> {
    if mounts.is_empty() {
        return Err(Error::invalid_argument("no mounts to apply the layer to"));
    }
    match bound(mounts) {
        Some((folder, Access::Write)) => return work(open(folder)?, Whiteouts::Remove),
        Some((folder, Access::Read)) => {
            return Err(Error::failed_precondition(format!(
                "{} is mounted read-only: prepare a snapshot instead of a view",
                folder.display()
            )));
        }
        None => {}
    }
    // A user namespace may not make the device nodes that mark removals.
    if let Some(overlay) = Overlay::of(mounts).filter(|_| !in_user_namespace())
        && let Some(upper) = &overlay.upper
    {
        let (prefix, lowers) = (overlay.prefix(), overlay.lowers.clone());
        let whiteouts = Whiteouts::Overlay { prefix, lowers, apart: overlay.apart };
        return work(open(upper)?, whiteouts);
    }
    privately(mounts, |root| work(root, Whiteouts::Remove))
}

/// Works on a tree that is only read.
pub(crate) fn for_reading<T: Send>(
    mounts: &[Mount],
    work: impl FnOnce(Root) -> Result<T> + Send,
) -> Result<T> {
    if let Some((folder, _)) = bound(mounts) {
        return work(open(folder)?);
    }
    let mounts: Vec<Mount> = mounts.iter().map(readable).collect();
    privately(&mounts, work)
}

/// The mount without what only matters for writing: an overlay that was mounted volatile once refuses
/// to be mounted that way again.
fn readable(mount: &Mount) -> Mount {
    let mut mount = mount.clone();
    if mount.kind == "overlay" {
        mount.options.retain(|option| option != "volatile" && option != "fsync=volatile");
    }
    mount
}

fn privately<T: Send>(mounts: &[Mount], work: impl FnOnce(Root) -> Result<T> + Send) -> Result<T> {
    let done = in_private_mounts(|| {
        let point = Path::new(POINT);
        let mounted = mount_all(mounts, point).map_err(as_io);
        Ok(mounted.and_then(|()| open_alone(point, mounts.len())).map_err(no_tree).and_then(work))
    });
    done.map_err(|error| Error::io("cannot make a private mount namespace", error))?
}

/// Opens what is mounted at a place. A single mount is taken from there: it has ended when the root is closed, before
/// anybody can be told that the work is done, and the place is free for another subvolume of the same filesystem.
fn open_alone(point: &Path, mounts: usize) -> io::Result<Root> {
    let root = Root::open(point)?;
    if mounts == 1 {
        berth_sys::mount::detach(point).map_err(as_io)?;
    }
    Ok(root)
}

fn as_io(error: MountError) -> io::Error {
    let number = error.raw_os_error();
    let kind =
        number.map_or(io::ErrorKind::InvalidInput, |number| io::Error::from_raw_os_error(number).kind());
    io::Error::new(kind, error)
}

fn no_tree(error: io::Error) -> Error {
    Error::io("cannot mount the tree", error)
}

fn open(folder: &Path) -> Result<Root> {
    Root::open(folder).map_err(|error| Error::io(format!("cannot open {}", folder.display()), error))
}

/// Whether this process lives in a user namespace.
pub(crate) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let numbers: Vec<&str> = map.split_whitespace().collect();
    !map.is_empty() && numbers != ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Mount { kind: kind.into(), source: source.into(), target: String::new(), options }
    }

    #[test]
    fn only_plain_binds_are_opened_where_they_lie() {
        let found = |options: &[&str]| bound(&[mount("bind", "/a", options)]).map(|(_, access)| access);
        assert_eq!(found(&["rw", "rbind"]), Some(Access::Write));
        assert_eq!(found(&["ro", "rbind"]), Some(Access::Read));
        assert_eq!(found(&["uidmap=0:1:1", "gidmap=0:1:1", "rbind"]), None);
        assert_eq!(bound(&[]), None);
    }

    #[test]
    fn an_overlays_folders_are_read_from_its_options() {
        let found =
            Overlay::of(&[mount("overlay", "overlay", &["workdir=/w", "upperdir=/u", "lowerdir=/b:/a"])]);
        let found = found.unwrap();
        assert_eq!(found.upper, Some("/u".into()));
        assert_eq!(found.lowers, [PathBuf::from("/b"), PathBuf::from("/a")]);
        assert_eq!(found.prefix(), "trusted.overlay.");
        assert_eq!(Overlay::of(&[mount("overlay", "overlay", &["lowerdir=/a\\:b"])]), None);
    }
}
