//! Paths with links, dots and missing parts, against a directory that must not be left.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use proptest::prelude::*;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::*;

struct Place {
    folder: tempfile::TempDir,
    root: OwnedFd,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("root")).unwrap();
    let root = fs::File::open(folder.path().join("root")).unwrap().into();
    Place { folder, root }
}

impl Place {
    fn inside(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    fn make(&self, path: &str, leaf: Leaf) -> Result<PathBuf> {
        let made = find_or_make(self.root.as_fd(), &CString::new(path).unwrap(), leaf)?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&made));
        Ok(fs::read_link(link).unwrap().strip_prefix(self.folder.path()).unwrap().to_owned())
    }
}

#[test]
fn missing_parts_are_made_inside_whatever_links_say() {
    let place = place();
    fs::create_dir(place.folder.path().join("outside")).unwrap();
    symlink("/outside", place.inside("absolute")).unwrap();
    symlink("../../outside", place.inside("relative")).unwrap();
    symlink("loop", place.inside("loop")).unwrap();
    let expect = |path: &str, to: &str| {
        assert_eq!(place.make(path, Leaf::Directory).unwrap(), PathBuf::from(to), "{path}");
    };
    expect("a/b/c", "root/a/b/c");
    expect("absolute/x", "root/outside/x");
    expect("relative/y", "root/outside/y");
    expect("../../../z", "root/z");
    expect("a/../d//./e/", "root/d/e");
    expect("", "root");
    assert_eq!(place.make("loop/x", Leaf::Directory), Err(Errno::LOOP));
    assert_eq!(place.make("f/g", Leaf::File).unwrap(), PathBuf::from("root/f/g"));
    assert!(place.inside("f/g").is_file());
    assert_eq!(place.make("f/g/h", Leaf::File), Err(Errno::NOTDIR));
    assert_eq!(fs::read_dir(place.folder.path().join("outside")).unwrap().count(), 0);
}

#[test]
fn the_parent_of_a_path_is_made_and_its_name_returned() {
    let place = place();
    let path = CString::new("dev/net/tun").unwrap();
    let (_, name) = parent_of(place.root.as_fd(), &path).unwrap();
    assert_eq!(name, c"tun");
    assert!(place.inside("dev/net").is_dir());
    let (_, name) = parent_of(place.root.as_fd(), c"alone").unwrap();
    assert_eq!(name, c"alone");
}

#[test]
fn plain_paths_have_no_links() {
    let place = place();
    fs::create_dir(place.inside("real")).unwrap();
    symlink("real", place.inside("link")).unwrap();
    let flags = OFlags::PATH;
    assert!(find_plain(place.root.as_fd(), c"real", flags).is_ok());
    assert_eq!(find_plain(place.root.as_fd(), c"link", flags).unwrap_err(), Errno::LOOP);
    assert!(find(place.root.as_fd(), c"link", flags).is_ok());
}

proptest! {
    #[test]
    fn nothing_leaves_the_root(
        links in prop::collection::vec((0usize..4, "[abd./]{1,12}"), 0..4),
        path in "[abd./]{0,16}",
    ) {
        let place = place();
        // A real directory: through a link the test itself would write outside.
        fs::create_dir(place.inside("d")).unwrap();
        for (name, target) in links {
            let _ = symlink(target, place.inside(["a", "b", "d/a", "d/b"][name]));
        }
        let _ = place.make(&path, Leaf::Directory);
        let names: Vec<_> = fs::read_dir(place.folder.path()).unwrap()
            .map(|e| e.unwrap().file_name().into_vec()).collect();
        prop_assert_eq!(names, vec![b"root".to_vec()]);
    }
}
