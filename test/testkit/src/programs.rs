//! Where the programs are: berth's own beside the running test, the peers' in the folder that
//! `cargo xtask peers` fills, everything else in `PATH`.

use std::env;
use std::path::{Path, PathBuf};

/// The peers' folder when `BERTH_PEERS` is not set.
const PEERS: &str = "/var/cache/berth-peers";

/// The folders of one piece each, newest programs first.
const CONTAINERD: &str = "containerd-2.3.4/bin";
const DEBIAN: [&str; 4] =
    ["debian-12/usr/bin", "debian-12/usr/sbin", "debian-12/bin", "debian-12/usr/libexec/docker"];
const OTHERS: [&str; 9] = [
    "nerdctl-2.3.5/bin",
    "crictl-1.36.0/bin",
    "critest-1.36.0/bin",
    "youki-0.7.0/bin",
    "erofs-1.5/bin",
    "btrfs-6.2/bin",
    "stargz-0.19.1/bin",
    "stargz-snapshotter-0.19.1/bin",
    "soci-0.16.1/bin",
];

/// The peers' folder.
pub fn peers() -> PathBuf {
    env::var_os("BERTH_PEERS").map_or_else(|| PathBuf::from(PEERS), PathBuf::from)
}

/// containerd 2.3's `name`: `containerd`, `ctr` or `containerd-shim-runc-v2`.
pub fn containerd(name: &str) -> Option<PathBuf> {
    existing(peers().join(CONTAINERD).join(name))
}

/// Debian's `name`, as its packages hold it.
pub fn debian(name: &str) -> Option<PathBuf> {
    DEBIAN.iter().find_map(|folder| existing(peers().join(folder).join(name)))
}

/// berth's own `name`: `berth`, `berthd` or `berth-shim`. `BERTH_BIN` names their folder; without it
/// they are where cargo puts binaries, one above the running test's own.
pub fn own(name: &str) -> Option<PathBuf> {
    if let Some(folder) = env::var_os("BERTH_BIN") {
        return existing(Path::new(&folder).join(name));
    }
    let test = env::current_exe().ok()?;
    test.ancestors().skip(1).take(3).find_map(|folder| existing(folder.join(name)))
}

/// The first of: berth's own, containerd 2.3's, Debian's, the other peers', `PATH`'s.
pub fn find(name: &str) -> Option<PathBuf> {
    let others = || OTHERS.iter().find_map(|folder| existing(peers().join(folder).join(name)));
    own(name).or_else(|| containerd(name)).or_else(|| debian(name)).or_else(others).or_else(|| in_path(name))
}

/// A `PATH` for a daemon: `first`, the folders of `kind`'s generation, and the machine's own.
pub fn search_path(first: &[PathBuf], newest: bool) -> std::ffi::OsString {
    let mut folders = first.to_vec();
    if newest {
        folders.push(peers().join(CONTAINERD));
    }
    folders.extend(DEBIAN.iter().map(|folder| peers().join(folder)));
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(folders).unwrap_or_default()
}

fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find_map(|folder| existing(folder.join(name)))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}
