//! Packages of Debian, unpacked beside the system and not installed: no service starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step;

/// What is unpacked.
const PACKAGES: [&str; 6] = ["containerd", "runc", "docker.io", "docker-registry", "busybox-static", "tini"];

/// What those link to, with the file that shows that it is there. Installed when missing.
const LIBRARIES: [(&str, &str); 2] = [
    ("libseccomp2", "/usr/lib/x86_64-linux-gnu/libseccomp.so.2"),
    ("libdevmapper1.02.1", "/usr/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1"),
];

/// Downloads the packages and unpacks them under `into`.
pub(crate) fn unpack(into: &Path) -> Result<()> {
    packages(&PACKAGES, into)?;
    install(&LIBRARIES)
}

/// The CNI plugins, which need nothing else.
pub(crate) fn plugins(into: &Path) -> Result<()> {
    packages(&["containernetworking-plugins"], into)
}

/// What nft and iptables consist of. They are not installed: other programs act otherwise where they find them.
const FILTERS: [&str; 14] = [
    "nftables",
    "libnftables1",
    "libnftnl11",
    "libmnl0",
    "libjansson4",
    "libedit2",
    "libbsd0",
    "libmd0",
    "iptables",
    "libxtables12",
    "libip4tc2",
    "libip6tc2",
    "libnfnetlink0",
    "libnetfilter-conntrack3",
];

/// The programs of packet filters: `into/bin` holds one for each name, which finds its libraries beside it.
pub(crate) fn filters(into: &Path) -> Result<()> {
    packages(&FILTERS, into)?;
    for (name, program) in [
        ("nft", "sbin/nft"),
        ("iptables", "sbin/xtables-nft-multi iptables"),
        ("ip6tables", "sbin/xtables-nft-multi ip6tables"),
        ("iptables-save", "sbin/xtables-nft-multi iptables-save"),
    ] {
        wrapper(into, name, program)?;
    }
    Ok(())
}

/// What the programs of erofs-utils consist of.
const EROFS: [&str; 4] = ["erofs-utils", "liblz4-1", "libselinux1", "libpcre2-8-0"];

/// The programs of erofs-utils, in the same way.
pub(crate) fn erofs(into: &Path) -> Result<()> {
    packages(&EROFS, into)?;
    ["fsck.erofs", "mkfs.erofs", "dump.erofs"]
        .iter()
        .try_for_each(|name| wrapper(into, name, &format!("bin/{name}")))
}

/// mkfs.btrfs, in the same way.
pub(crate) fn btrfs(into: &Path) -> Result<()> {
    packages(&["btrfs-progs", "liblzo2-2"], into)?;
    // This package is not of those that moved below usr.
    wrapper(into, "mkfs.btrfs", "../sbin/mkfs.btrfs")
}

/// Makes `into/bin/NAME`, which runs a program below `into/usr` with its own libraries.
fn wrapper(into: &Path, name: &str, program: &str) -> Result<()> {
    let bin = into.join("bin");
    fs::create_dir_all(&bin)?;
    let text = format!(
        "#!/bin/sh\n\
         here=${{0%/*}}/..\n\
         export LD_LIBRARY_PATH=$here/usr/lib/x86_64-linux-gnu:$here/lib/x86_64-linux-gnu\n\
         export XTABLES_LIBDIR=$here/usr/lib/x86_64-linux-gnu/xtables\n\
         exec $here/usr/{program} \"$@\"\n"
    );
    fs::write(bin.join(name), text)?;
    fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).map_err(Into::into)
}

/// Downloads packages and unpacks them under `into`, without what they depend on.
pub(crate) fn packages(names: &[&str], into: &Path) -> Result<()> {
    let downloads = into.join("packages");
    fs::create_dir_all(&downloads)?;
    // APT's own user cannot write here; it then downloads as root and says so, which is no failure.
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args(["download", "-qq"]).args(names).current_dir(&downloads);
        apt
    };
    if step::run(&mut download()).is_err() {
        step::run(Command::new("apt-get").args(["update", "-qq"]))?;
        step::run(&mut download())?;
    }
    for entry in fs::read_dir(&downloads)? {
        step::run(Command::new("dpkg").arg("-x").arg(entry?.path()).arg(into))?;
    }
    fs::remove_dir_all(&downloads).context("cannot remove the downloaded packages")
}

/// Installs those packages of which the file beside the name is missing.
pub(crate) fn install(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing);
    step::run(apt.env("DEBIAN_FRONTEND", "noninteractive"))?;
    match wanted.iter().find(|(_, file)| !Path::new(file).exists()) {
        Some((name, file)) => bail!("{name} was installed but {file} is not there"),
        None => Ok(()),
    }
}
