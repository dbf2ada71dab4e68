//! Programs built from the crate registry, with the machine's Rust.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::debian;
use crate::step;

/// What youki's filter of system calls is built with.
const SECCOMP: [(&str, &str); 1] = [("libseccomp-dev", "/usr/include/seccomp.h")];

/// youki, with what its own releases can do but for WebAssembly. It is built without optimisation, which takes a tenth
/// of the time: tests ask what it does and not how fast.
pub(crate) fn youki(into: &Path) -> Result<()> {
    debian::install(&SECCOMP)?;
    let mut install = Command::new("cargo");
    // From the root, so that the settings of this project's own builds are not taken.
    install.current_dir("/").args([
        "install",
        "youki",
        "--version",
        "0.7.0",
        "--locked",
        "--debug",
        "--no-track",
    ]);
    install.args(["--no-default-features", "--features", "v1,v2,systemd,seccomp", "--root"]).arg(into);
    step::run(install.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_TARGET_DIR", into.join("target")))?;
    Ok(std::fs::remove_dir_all(into.join("target"))?)
}
