use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Owner, Root};

struct Place {
    dir: tempfile::TempDir,
    root: Root,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::write(dir.path().join("canary"), b"untouched").unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        Self { dir, root }
    }

    fn inside(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn assert_canary(&self) {
        assert_eq!(fs::read(self.dir.path().join("canary")).unwrap(), b"untouched");
        let mut names: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["canary", "root"]);
    }

    fn write(&self, path: &str, data: &[u8]) -> std::io::Result<()> {
        let entry = self.root.entry_making_parents(Path::new(path), &mut |_, _| Ok(()))?;
        entry.create_file()?.write_all(data)
    }
}

#[test]
fn an_absolute_link_leads_to_a_place_inside() {
    let place = Place::new();
    fs::create_dir(place.inside("etc")).unwrap();
    symlink("/etc", place.inside("link")).unwrap();
    place.write("link/made", b"x").unwrap();
    assert_eq!(fs::read(place.inside("etc/made")).unwrap(), b"x");
    assert!(!Path::new("/etc/made").exists());
}

#[test]
fn dots_and_links_of_dots_stay_inside() {
    let place = Place::new();
    place.write("../../../one", b"1").unwrap();
    symlink("../../..", place.inside("up")).unwrap();
    place.write("up/canary", b"mine").unwrap();
    assert_eq!(fs::read(place.inside("one")).unwrap(), b"1");
    assert_eq!(fs::read(place.inside("canary")).unwrap(), b"mine");
    place.assert_canary();
}

#[test]
fn a_dangling_link_on_the_way_is_made_where_it_points_inside() {
    let place = Place::new();
    symlink("/deep/er", place.inside("link")).unwrap();
    place.write("link/x/file", b"1").unwrap();
    assert_eq!(fs::read(place.inside("deep/er/x/file")).unwrap(), b"1");
    assert!(!Path::new("/deep").exists());
}

#[test]
fn links_in_a_circle_are_an_error() {
    let place = Place::new();
    symlink("b", place.inside("a")).unwrap();
    symlink("a", place.inside("b")).unwrap();
    let error = place.write("a/file", b"").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
}

#[test]
fn magic_links_are_refused() {
    let place = Place::new();
    symlink("/proc/self/root/canary", place.inside("link")).unwrap();
    let proc = Root::open(Path::new("/proc")).unwrap();
    assert!(proc.open_file(Path::new("self/root/etc"), OFlags::RDONLY, Mode::empty()).is_err());
    assert!(place.root.open_file(Path::new("link"), OFlags::RDONLY, Mode::empty()).is_err());
}

#[test]
fn the_last_name_is_never_followed() {
    let place = Place::new();
    symlink(place.dir.path().join("canary"), place.inside("link")).unwrap();
    let entry = place.root.entry(Path::new("link")).unwrap();
    assert_eq!(entry.create_file().unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert!(entry.open(OFlags::WRONLY).is_err());
    assert_eq!(entry.set_mode(0o777).unwrap_err().raw_os_error(), Some(Errno::OPNOTSUPP.raw_os_error()));
    let hard = place.root.entry(Path::new("hard")).unwrap();
    hard.create_link(&entry).unwrap();
    assert_eq!(FileType::from_raw_mode(hard.stat().unwrap().st_mode), FileType::Symlink);
    place.assert_canary();
}

#[test]
fn the_root_itself_is_not_made_or_removed() {
    let place = Place::new();
    for path in ["", "/", ".", "./"] {
        let entry = place.root.entry(Path::new(path)).unwrap();
        assert!(entry.is_root(), "{path}");
        assert!(entry.remove_all().is_err());
        assert!(entry.create_dir().is_err());
        entry.set_mode(0o751).unwrap();
    }
    assert_eq!(fs::metadata(place.inside("")).unwrap().mode() & 0o7777, 0o751);
    assert!(place.root.entry(Path::new("a/..")).is_err());
}

#[test]
fn modes_and_owners_do_not_depend_on_the_umask_and_times_reach_links() {
    let place = Place::new();
    let file = place.root.entry(Path::new("node")).unwrap();
    file.create_node(FileType::Fifo, 0o600, 0).unwrap();
    file.set_mode(0o4777).unwrap();
    assert_eq!(file.stat().unwrap().st_mode & 0o7777, 0o4777);
    if rustix::process::geteuid().is_root() {
        file.set_owner(Owner { uid: 12, gid: 34 }).unwrap();
        assert_eq!((file.stat().unwrap().st_uid, file.stat().unwrap().st_gid), (12, 34));
    }
}

#[test]
fn extended_attributes_are_set_read_listed_and_removed() {
    let place = Place::new();
    place.write("file", b"").unwrap();
    let file = place.root.entry(Path::new("file")).unwrap();
    file.set_xattr(OsStr::new("user.one"), b"1").unwrap();
    file.set_xattr(OsStr::new("user.two"), b"2").unwrap();
    assert_eq!(file.xattr_names().unwrap(), ["user.one", "user.two"]);
    assert_eq!(file.xattr(OsStr::new("user.two")).unwrap().unwrap(), b"2");
    file.remove_xattr(OsStr::new("user.one")).unwrap();
    assert_eq!(file.xattr(OsStr::new("user.one")).unwrap(), None);
}

#[test]
fn removal_does_not_enter_links_and_ends_at_any_depth() {
    let place = Place::new();
    let mut at = Root::open(&place.inside("")).unwrap();
    for _ in 0..400 {
        at.entry(Path::new("d")).unwrap().create_dir().unwrap();
        at.entry(Path::new("f")).unwrap().create_file().unwrap();
        let next = at.entry(Path::new("d")).unwrap().open_dir().unwrap();
        at = Root::from_fd(next);
    }
    symlink(place.dir.path(), place.inside("d/away")).unwrap();
    place.root.entry(Path::new("d")).unwrap().remove_all().unwrap();
    place.root.entry(Path::new("d")).unwrap().remove_all().unwrap();
    assert!(!place.inside("d").exists());
    place.assert_canary();
}

#[test]
fn a_directory_replaced_by_a_link_is_not_remembered() {
    let place = Place::new();
    place.write("dir/one", b"1").unwrap();
    place.root.entry(Path::new("dir")).unwrap().remove_all().unwrap();
    place.root.entry(Path::new("dir")).unwrap().create_symlink(OsStr::new("/other")).unwrap();
    place.write("dir/two", b"2").unwrap();
    assert_eq!(fs::read(place.inside("other/two")).unwrap(), b"2");
}

#[test]
fn implied_parents_are_reported_and_readable_by_all() {
    let place = Place::new();
    let mut seen = Vec::new();
    place
        .root
        .entry_making_parents(Path::new("a/b/c/file"), &mut |path, _| {
            seen.push(path.to_owned());
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [Path::new("a"), Path::new("a/b"), Path::new("a/b/c")]);
    assert_eq!(fs::metadata(place.inside("a/b")).unwrap().permissions().mode() & 0o7777, 0o755);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_path_writes_outside(
        links in proptest::collection::vec(("[ab]", "(/|\\.\\./|[abc]/|\\./){0,4}[abc.]{0,2}"), 0..6),
        paths in proptest::collection::vec("(/|\\.\\./|[abc]/|\\./){0,5}[abc.]{0,3}", 1..8),
    ) {
        let place = Place::new();
        for (name, target) in &links {
            if !target.is_empty() {
                let _ = symlink(target, place.inside(name));
            }
        }
        for path in &paths {
            let _ = place.write(path, b"x");
            if let Ok(entry) = place.root.entry(Path::new(path)) {
                let _ = entry.set_mode(0o700);
            }
        }
        place.assert_canary();
    }
}
