//! The disk that brings our programs into the guest: an ext4 image of a folder, made anew for each run.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use testkit::need::{self, Missing};
use testkit::{Invocation, programs};

/// Our programs.
const OWN: [&str; 3] = ["berth", "berthd", "berth-shim"];
/// The test executables that run in the guest too, by the name of their target.
const TESTS: [&str; 4] = ["inside", "life", "security", "shim"];
/// What the tests compare with, or put into containers, from Debian's packages.
const PEERS: [&str; 4] = ["busybox", "runc", "ctr", "tini"];

/// Makes the image in the folder `within`.
pub(crate) fn make(within: &Path) -> Result<PathBuf, Missing> {
    let folder = within.join("disk");
    let bin = folder.join("bin");
    let tests = folder.join("tests");
    let peers = folder.join("peers/debian-12/usr/bin");
    for path in [&bin, &tests, &peers] {
        fs::create_dir_all(path).expect("the folder takes folders");
    }
    fs::write(folder.join("agent.sh"), include_str!("agent.sh")).expect("the folder takes a file");
    for name in OWN {
        let program = programs::own(name);
        need::that(program.is_some(), &format!("{name} (cargo build)"))?;
        strip(&program.unwrap_or_default(), &bin.join(name));
    }
    symlink("berth-shim", bin.join("containerd-shim-runc-v2")).expect("the folder is new");
    for name in TESTS {
        let found = newest_test(name);
        need::that(
            found.is_some(),
            &format!("the test executable {name} (cargo test --no-run --workspace)"),
        )?;
        strip(&found.unwrap_or_default(), &tests.join(name));
    }
    for name in PEERS {
        let program = programs::debian(name);
        need::that(program.is_some(), &format!("Debian's {name} (cargo xtask peers)"))?;
        fs::copy(program.unwrap_or_default(), peers.join(name)).expect("the folder takes a file");
    }
    let crictl = programs::find("crictl");
    need::that(crictl.is_some(), "crictl (cargo xtask peers)")?;
    fs::copy(crictl.unwrap_or_default(), peers.join("crictl")).expect("the folder takes a file");
    // Only tests that are ignored want it.
    if let Some(youki) = programs::find("youki") {
        strip(&youki, &peers.join("youki"));
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/berthd.service");
    fs::copy(unit, folder.join("berthd.service")).expect("the unit is in the tree");
    let image = within.join("programs.ext4");
    Invocation::new(need::program("mkfs.ext4")?)
        .args(["-q", "-O", "^has_journal", "-d"])
        .arg(&folder)
        .arg(&image)
        .arg("512M")
        .ok();
    fs::remove_dir_all(&folder).expect("it is ours");
    Ok(image)
}

/// Copies a program without what only debuggers read, which the guest would have to read too.
fn strip(from: &Path, to: &Path) {
    Invocation::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from).ok();
}

/// The test executable of that name that cargo built last.
fn newest_test(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let entries = fs::read_dir(own.parent()?).ok()?.flatten();
    let built = entries.filter_map(|entry| {
        let file = entry.file_name().into_string().ok()?;
        let (stem, hash) = file.rsplit_once('-')?;
        let is_ours = stem == name && hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let time = entry.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        is_ours.then(|| (time, entry.path()))
    });
    built.max().map(|(_, path)| path)
}
