//! What both stand on: mounts of this process's own, so that the machine's are left alone and nothing of a round
//! is left to the next.
//!
//! `/run` and `/tmp`, where sockets and state are, are a tmpfs, as they are where systemd runs. A daemon's root is a
//! fresh ext4 on a sparse file of the machine's disk. The file has no name any more once it is mounted: with
//! the last process in these mounts, the kernel takes them and the file away.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use berth_sys::mount::mount_at;
use berth_types::Mount;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;
use testkit::{Invocation, Scratch};

/// Where the disks' files are made: on the machine's disk, which `/tmp` may not be.
const DISKS: &str = "/var/tmp";
/// Of a root's filesystem; the file is sparse.
const SIZE: u64 = 6 << 30;

/// Takes this process, and with it every daemon and client, aside. Before any thread is started.
pub(crate) fn set_up() -> Result<()> {
    let flags = UnshareFlags::NEWNS.bits() as i32;
    berth_sys::child::unshare(flags).context("cannot have mounts of our own: run it as root")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for point in ["/run", "/tmp"] {
        mount_at(&mount("tmpfs", "tmpfs", &["mode=1777"]), Path::new(point))?;
    }
    Ok(())
}

/// Puts a fresh filesystem where the root of a daemon is to be.
pub(crate) fn fresh_root(scratch: &Scratch) {
    let root = scratch.path("root");
    fs::create_dir(&root).and_then(|()| fresh_disk(&root)).expect("a fresh filesystem for the root");
}

/// Mounts a fresh ext4 at `point`, a folder.
pub(crate) fn fresh_disk(point: &Path) -> std::io::Result<()> {
    fresh(point, "ext4")
}

/// Mounts a fresh ext4 or btrfs at `point`, a folder.
pub(crate) fn fresh(point: &Path, kind: &str) -> std::io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = PathBuf::from(DISKS).join(format!("berth-bench-{}-{number}.img", std::process::id()));
    fs::File::create(&file)?.set_len(SIZE)?;
    let (program, words): (_, &[&str]) = match kind {
        "btrfs" => {
            let found = testkit::need::program("mkfs.btrfs").map_err(std::io::Error::other)?;
            (found, &["-q", "--nodiscard"])
        }
        _ => ("mkfs.ext4".into(), &["-q", "-F", "-E", "nodiscard"]),
    };
    Invocation::new(program).args(words).arg(&file).ok();
    let mounted = mount_at(&mount(kind, &file.to_string_lossy(), &["loop"]), point);
    fs::remove_file(&file)?;
    mounted.map_err(std::io::Error::other)
}

/// One line on the machine: figures of two machines cannot be compared.
pub(crate) fn description() -> String {
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let system = rustix::system::uname();
    format!(
        "{processors} × {}, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        system.release().to_string_lossy()
    )
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        kind: kind.to_owned(),
        source: source.to_owned(),
        target: String::new(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}
