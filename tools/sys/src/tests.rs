//! Tests that need root: they run in a mount namespace of their own thread and leave nothing.

use std::fs;
use std::io;
use std::path::Path;

use berth_types::Mount;

use crate::mount::{detach_all, info, mount_all, unmount_all};
use crate::thread::in_private_mounts;
use crate::userns::IdMapping;

/// Whether this test can run; without root it prints why not, except under CI where it fails.
pub(crate) fn root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "this test needs root");
    println!("skipped: needs root");
    false
}

fn mount(kind: &str, source: &Path, options: &[&str]) -> Mount {
    Mount {
        kind: kind.into(),
        source: source.to_string_lossy().into_owned(),
        target: String::new(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    }
}

/// Runs `test` in a folder of its own and a mount namespace of its own.
fn isolated(test: impl FnOnce(&Path) + Send) {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    in_private_mounts(|| {
        rustix::mount::mount("tmpfs", folder.path(), "tmpfs", rustix::mount::MountFlags::empty(), None)?;
        test(folder.path());
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_overlay_of_many_layers_shows_all_of_them() {
    isolated(|dir| {
        let long = dir.join("a-rather-long-folder-name-that-fills-the-page-sooner");
        let mut lower = Vec::new();
        for n in 0..120 {
            let layer = long.join(format!("{n}/fs"));
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(format!("file-{n}")), b"x").unwrap();
            lower.push(layer.to_string_lossy().into_owned());
        }
        for name in ["upper", "work", "merged"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let options = [
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", dir.join("upper").display()),
            format!("workdir={}", dir.join("work").display()),
            "X-containerd.mkdir.path=/ignored".to_owned(),
        ];
        assert!(options[0].len() > 4096);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let merged = dir.join("merged");
        mount_all(&[mount("overlay", Path::new("overlay"), &options)], &merged).unwrap();
        assert_eq!(fs::read_dir(&merged).unwrap().count(), 120);
        unmount_all(&merged).unwrap();
        assert_eq!(fs::read_dir(&merged).unwrap().count(), 0);
    });
}

#[test]
fn a_read_only_bind_refuses_writes_and_a_failing_list_is_undone() {
    isolated(|dir| {
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("f"), b"x").unwrap();
        mount_all(&[mount("bind", &from, &["rbind", "ro"])], &to).unwrap();
        assert_eq!(fs::write(to.join("g"), b"").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        unmount_all(&to).unwrap();

        let mounts = [mount("bind", &from, &["bind"]), mount("nonsense", &from, &[])];
        let error = mount_all(&mounts, &to).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(!to.join("f").exists(), "the first mount is undone");
    });
}

#[test]
fn a_target_below_the_root_cannot_lead_out() {
    isolated(|dir| {
        for name in ["from", "to", "to/inner", "outside"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("/outside", dir.join("to/link")).unwrap();
        fs::write(dir.join("from/f"), b"x").unwrap();
        let mut inner = mount("bind", &dir.join("from"), &["bind"]);
        inner.target = "/inner".into();
        mount_all(std::slice::from_ref(&inner), &dir.join("to")).unwrap();
        assert!(dir.join("to/inner/f").exists());
        inner.target = "link".into();
        assert!(mount_all(&[inner], &dir.join("to")).is_err(), "/outside does not exist inside the root");
    });
}

#[test]
fn unmount_all_takes_every_layer_and_accepts_none() {
    isolated(|dir| {
        let to = dir.join("to");
        fs::create_dir(&to).unwrap();
        for _ in 0..3 {
            mount_all(&[mount("tmpfs", Path::new("tmpfs"), &["size=64k", "nosuid"])], &to).unwrap();
        }
        // The thread's own view: the process' mountinfo shows another namespace.
        let count = |to: &Path| {
            let all = info::read(Path::new("/proc/thread-self/mountinfo")).unwrap();
            all.iter().filter(|m| m.point == to).count()
        };
        assert_eq!(count(&to), 3);
        let busy = fs::File::create(to.join("busy")).unwrap();
        unmount_all(&to).unwrap();
        assert_eq!(count(&to), 0);
        drop(busy);
        unmount_all(&to).unwrap();
        unmount_all(&dir.join("missing")).unwrap();
    });
}

#[test]
fn an_overlay_that_is_detached_is_gone_at_once_and_its_layers_can_be_mounted_again() {
    isolated(|dir| {
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let option = |key: &str, name: &str| format!("{key}={}", dir.join(name).display());
        let options = [option("lowerdir", "lower"), option("upperdir", "upper"), option("workdir", "work")];
        let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
        // As the snapshotter mounts them, where the kernel knows it.
        if Path::new("/sys/module/overlay/parameters/index").exists() {
            options.push("index=off");
        }
        let (merged, overlay) = (dir.join("merged"), mount("overlay", Path::new("overlay"), &options));
        for round in 0..3 {
            mount_all(std::slice::from_ref(&overlay), &merged).unwrap();
            assert_eq!(fs::read_dir(&merged).unwrap().count(), round, "what was written before is there");
            fs::write(merged.join(round.to_string()), b"x").unwrap();
            let rest = detach_all(&merged).unwrap();
            fs::remove_dir(&merged).unwrap();
            assert!(dir.join("upper").join(round.to_string()).exists());
            fs::create_dir(&merged).unwrap();
            if round == 1 {
                // The next one comes while this one is still on its way out.
                mount_all(std::slice::from_ref(&overlay), &merged).unwrap();
                assert_eq!(fs::read_dir(&merged).unwrap().count(), round + 1);
                drop(detach_all(&merged).unwrap());
            }
            drop(rest);
        }
        drop(detach_all(&merged).unwrap());
        drop(detach_all(&dir.join("nowhere")).unwrap());
    });
}

#[test]
fn mapped_mounts_show_other_owners() {
    use std::os::unix::fs::MetadataExt as _;
    isolated(|dir| {
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("lower/f"), b"x").unwrap();
        let maps = ["uidmap=0:1000:10", "gidmap=0:2000:10"];
        let merged = dir.join("merged");
        mount_all(&[mount("bind", &dir.join("lower"), &["rbind", maps[0], maps[1]])], &merged).unwrap();
        let seen = fs::metadata(merged.join("f")).unwrap();
        assert_eq!((seen.uid(), seen.gid()), (1000, 2000));
        unmount_all(&merged).unwrap();

        let lower = format!("lowerdir={}", dir.join("lower").display());
        let upper = format!("upperdir={}", dir.join("upper").display());
        let work = format!("workdir={}", dir.join("work").display());
        let overlay = mount("overlay", Path::new("overlay"), &[maps[0], &lower, &upper, &work, maps[1]]);
        mount_all(&[overlay], &merged).unwrap();
        assert_eq!(fs::metadata(merged.join("f")).unwrap().uid(), 1000);
        unmount_all(&merged).unwrap();
        let left = fs::read_dir("/run").unwrap().filter_map(Result::ok);
        let own = format!("berth-idmap-{}-", std::process::id());
        assert!(!left.into_iter().any(|e| e.file_name().to_string_lossy().starts_with(&own)));
    });
}

#[test]
fn a_loop_option_mounts_a_file() {
    isolated(|dir| {
        let image = dir.join("image");
        fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let made = std::process::Command::new("mkfs.ext4").arg("-q").arg(&image).status();
        if !made.is_ok_and(|s| s.success()) {
            println!("skipped: needs mkfs.ext4");
            return;
        }
        let to = dir.join("to");
        fs::create_dir(&to).unwrap();
        mount_all(&[mount("ext4", &image, &["loop", "ro"])], &to).unwrap();
        assert!(to.join("lost+found").is_dir());
        unmount_all(&to).unwrap();
    });
}

#[test]
fn id_mappings_parse_or_are_refused() {
    let one = IdMapping { inside: 0, outside: 1000, length: 65536 };
    assert_eq!(IdMapping::parse_list("0:1000:65536"), Some(vec![one]));
    for bad in ["", "0:1", "0:1:2:3", "0:1:0", "a:b:c", "0:4294967296:1", "-1:0:1"] {
        assert_eq!(IdMapping::parse_list(bad), None, "{bad}");
    }
}

#[test]
fn a_mountinfo_line_with_escapes_parses() {
    let line =
        b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
    let parsed = info::MountInfo::parse(line).unwrap();
    assert_eq!(parsed.point, Path::new("/mnt 2"));
    assert_eq!((parsed.id, parsed.parent, parsed.device), (36, 35, (98, 0)));
    assert!(parsed.is_shared());
    assert_eq!((parsed.kind.as_str(), parsed.super_options.as_str()), ("ext3", "rw,errors=continue"));
    assert_eq!(info::MountInfo::parse(b"36 35 98:0 /"), None);
}

proptest::proptest! {
    #[test]
    fn no_mountinfo_line_panics(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = info::MountInfo::parse(&line);
    }
}
