//! `cargo xtask test`: everything that has to pass, in the order in which a failure is cheapest.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{lint, peers, step};

/// What to leave out.
#[derive(Args)]
#[group(id = "suite")]
pub(crate) struct Options {
    /// Does not bring the programs that end-to-end tests compare with; such tests then say that they skip.
    #[arg(long)]
    no_peers: bool,
    /// Does not check format, lints, layers and shape.
    #[arg(long)]
    no_lint: bool,
    #[command(flatten)]
    peers: peers::Options,
}

/// Runs it all; the first failure ends it.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let folder = if options.no_peers { None } else { Some(peers::bring(&options.peers)?) };
    if !options.no_lint {
        lint::run(root)?;
    }
    // The end-to-end tests start the real programs, which `cargo test` of another crate does not build.
    step::run(cargo(root, folder.as_deref()).args(["build", "--workspace"]))?;
    step::run(cargo(root, folder.as_deref()).args(["test", "--workspace", "--no-fail-fast"]))
}

fn cargo(root: &Path, peers: Option<&Path>) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root);
    if let Some(folder) = peers {
        cargo.env("BERTH_PEERS", folder);
    }
    cargo
}
