//! Everything that can be told of a tree of files, to be compared: what a layer should have made, or
//! that a canary is untouched.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A tree by path; the empty path is its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, File>);

/// One file of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// `file`, `dir`, `link TARGET`, `char MAJOR:MINOR`, `block …`, `fifo`, `socket`.
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// SHA-256 of a regular file.
    pub content: Option<[u8; 32]>,
    /// Extended attributes, those of security modules and of overlayfs left out.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first path of an inode that has several inside the tree.
    pub same_as: Option<PathBuf>,
}

impl Tree {
    /// Reads the tree at `root`, following no link.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self(BTreeMap::new());
        tree.add(root, PathBuf::new());
        let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for (path, file) in &mut tree.0 {
            let metadata = fs::symlink_metadata(root.join(path)).expect("the tree is not changed meanwhile");
            if metadata.nlink() > 1 && !metadata.is_dir() {
                let inode = (metadata.dev(), metadata.ino());
                let known = first.entry(inode).or_insert_with(|| path.clone());
                file.same_as = (known != path).then(|| known.clone());
            }
        }
        tree
    }

    fn add(&mut self, root: &Path, path: PathBuf) {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full)
            .unwrap_or_else(|error| panic!("cannot look at {}: {error}", full.display()));
        let file = File {
            kind: kind(&full, &metadata),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            content: metadata.is_file().then(|| {
                let bytes =
                    fs::read(&full).unwrap_or_else(|error| panic!("cannot read {}: {error}", full.display()));
                Sha256::digest(bytes).into()
            }),
            xattrs: xattrs(&full),
            same_as: None,
        };
        self.0.insert(path.clone(), file);
        if metadata.is_dir() {
            for entry in
                fs::read_dir(&full).unwrap_or_else(|error| panic!("cannot list {}: {error}", full.display()))
            {
                self.add(root, path.join(entry.expect("a directory can be read").file_name()));
            }
        }
    }

    /// Forgets what changes by merely writing beside or mounting: times of directories, and the root.
    pub fn without_directory_times(mut self) -> Self {
        for file in self.0.values_mut().filter(|file| file.kind == "dir") {
            file.mtime = (0, 0);
        }
        self
    }

    /// Forgets the root itself.
    pub fn without_root(mut self) -> Self {
        self.0.remove(Path::new(""));
        self
    }

    /// Forgets fractions of seconds.
    pub fn in_whole_seconds(mut self) -> Self {
        for file in self.0.values_mut() {
            file.mtime.1 = 0;
        }
        self
    }

    /// What differs, one line each; empty when nothing does.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let paths: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differing = paths.into_iter().filter(|path| self.0.get(*path) != other.0.get(*path));
        differing
            .map(|path| format!("{}:\n  {:?}\n  {:?}", path.display(), self.0.get(path), other.0.get(path)))
            .collect()
    }

    /// Fails with the differences, if there are any.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, what: &str) {
        let differences = self.differences(other);
        assert!(
            differences.is_empty(),
            "{what}: {} differences\n{}",
            differences.len(),
            differences.join("\n")
        );
    }
}

fn kind(path: &Path, metadata: &fs::Metadata) -> String {
    let kind = metadata.file_type();
    let device = || {
        let number = metadata.rdev();
        format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
    };
    if kind.is_dir() {
        "dir".into()
    } else if kind.is_symlink() {
        format!("link {}", fs::read_link(path).expect("a link can be read").display())
    } else if kind.is_char_device() {
        format!("char {}", device())
    } else if kind.is_block_device() {
        format!("block {}", device())
    } else if kind.is_fifo() {
        "fifo".into()
    } else if kind.is_socket() {
        "socket".into()
    } else {
        "file".into()
    }
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut list = vec![0_u8; 65_536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let ours = names.filter(|name| {
        !name.starts_with(b"trusted.overlay.")
            && !name.starts_with(b"user.overlay.")
            && *name != b"security.selinux"
    });
    ours.map(|name| {
        let mut value = vec![0_u8; 65_536];
        let name = OsString::from_vec(name.to_vec());
        let length = rustix::fs::lgetxattr(path, &name, &mut value[..]).unwrap_or(0);
        value.truncate(length);
        (name, value)
    })
    .collect()
}
