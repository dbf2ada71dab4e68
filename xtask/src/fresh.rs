//! README's first commands on a fresh Debian: a tree out of Debian's packages that has Rust and nothing else, entered by
//! chroot in namespaces of its own (mounts, processes, network, host name), so that nothing of this machine helps.
//!
//! The tree's network namespace has no way out: crates come from this machine's cargo home, as they would from the
//! registry. Its kernel and its cgroups are this machine's. Needs root's rights; takes as long as a release build does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::peers::debian;
use crate::step;

/// What is in the tree beside Debian's essential packages: the linker that Rust calls.
const PACKAGES: &str = "gcc,libc6-dev";
const TOOLS: [(&str, &str); 2] = [("mmdebstrap", "/usr/bin/mmdebstrap"), ("git", "/usr/bin/git")];
/// What the second command has to say.
const PROOF: &str = "Hello from inside a container.";

/// Prepares the tree from inside its namespaces, and runs the commands in it. `$1` is the tree, `$2` and `$3` the homes
/// of cargo and rustup, `$4` the script.
const ENTER: &str = r#"set -eu
tree=$1
mount --make-rprivate /
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount -t sysfs sysfs "$tree/sys"
mount --rbind /sys/fs/cgroup "$tree/sys/fs/cgroup"
mount --rbind /dev "$tree/dev"
mount -t tmpfs tmpfs "$tree/run"
mount -t tmpfs tmpfs "$tree/tmp"
mount --bind -o ro "$2/bin" "$tree/root/.cargo/bin"
mount --bind -o ro "$2/registry" "$tree/root/.cargo/registry"
mount --bind -o ro "$3" "$tree/root/.rustup"
hostname fresh
exec chroot "$tree" /usr/bin/env -i HOME=/root TERM=dumb CARGO_NET_OFFLINE=true RUSTUP_TOOLCHAIN="$5" \
    PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c "$4"
"#;

/// Where the tree is made.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The folder for the tree; removed in the end
    #[arg(long, value_name = "FOLDER", default_value = "/var/tmp/berth-fresh")]
    folder: PathBuf,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    debian::install(&TOOLS)?;
    let tree = Tree::make(&options.folder)?;
    let clone = tree.0.join("root/berth");
    step::run(Command::new("git").args(["clone", "--quiet", "--no-hardlinks"]).arg(root).arg(&clone))?;
    let readme = fs::read_to_string(clone.join("README.md")).context("the clone has no README.md")?;
    let commands = first_commands(&readme)?;
    let said = enter(&tree, &commands)?;
    if !said.contains(PROOF) {
        bail!("README's first commands ran, and {PROOF:?} is not in what they said:\n{said}");
    }
    eprintln!("fresh: {} ran a container on a Debian with Rust alone", commands.join("; "));
    Ok(())
}

/// A tree that goes when it is dropped.
struct Tree(PathBuf);

impl Tree {
    fn make(folder: &Path) -> Result<Self> {
        if folder.exists() {
            bail!("{} is there already: remove it, or name another with --folder", folder.display());
        }
        let tree = Self(folder.to_owned());
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--quiet", "--mode=root", "--variant=minbase", &format!("--include={PACKAGES}")]);
        step::run(bootstrap.arg("bookworm").arg(folder))?;
        for path in ["root/.cargo/bin", "root/.cargo/registry", "root/.rustup"] {
            fs::create_dir_all(folder.join(path))?;
        }
        Ok(tree)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Its mounts were in a namespace that has ended. What cannot be removed is named by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The commands of the first block of a README, as they stand behind its prompts.
fn first_commands(readme: &str) -> Result<Vec<String>> {
    let block = readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next());
    let commands: Vec<_> = block
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .map(str::to_owned)
        .collect();
    if commands.is_empty() {
        bail!("README.md begins with no commands");
    }
    Ok(commands)
}

/// Runs the commands in the clone; gives what they wrote. When they have ended, so has everything that they started.
fn enter(tree: &Tree, commands: &[String]) -> Result<String> {
    let script =
        format!("set -e; ip link set lo up 2>/dev/null || true; cd /root/berth; {}", commands.join("\n"));
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]);
    unshare.args(["/bin/sh", "-c", ENTER, "sh"]).arg(&tree.0);
    unshare.arg(home("CARGO_HOME", ".cargo")).arg(home("RUSTUP_HOME", ".rustup")).arg(script);
    unshare.arg(toolchain()?);
    let said = step::output(&mut unshare)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn home(variable: &str, otherwise: &str) -> PathBuf {
    let own = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(otherwise);
    std::env::var_os(variable).map_or_else(own, PathBuf::from)
}

/// The toolchain that this program was built with; its name is what rustup knows it by.
fn toolchain() -> Result<String> {
    let active = step::output(Command::new("rustup").args(["show", "active-toolchain"]))?;
    let active = String::from_utf8_lossy(&active).into_owned();
    active.split_whitespace().next().map(str::to_owned).context("rustup names no active toolchain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_those_behind_the_prompts_of_the_first_block() {
        let readme = "# x\n\n```console\n# one --a\noutput\n# two\n```\n\n```console\n# three\n```\n";
        assert_eq!(first_commands(readme).unwrap(), ["one --a", "two"]);
        assert!(first_commands("# nothing").is_err());
    }
}
