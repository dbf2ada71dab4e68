//! Packages of Debian, unpacked beside the system and not installed: no service starts.

use std::fs;
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
