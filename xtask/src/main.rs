//! The developer's one entry: `cargo xtask test` does all that has to pass, the other commands are
//! its steps. Nothing of it is in the product.

mod dependencies;
mod fresh;
mod layers;
mod lint;
mod peers;
mod shape;
mod step;
mod suite;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, checks and tests berth.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What can be asked for.
#[derive(Subcommand)]
enum Command {
    /// Everything: peers, layers, shape, format, lints, build, all tests. What CI runs.
    Test(suite::Options),
    /// Checks who imports whom, from the folders that the crates are in.
    Layers,
    /// Checks the length of files and that each crate says what it is.
    Shape,
    /// Checks licences, sources and the shim's budget of crates.
    Dependencies,
    /// Format, lints, layers, shape and dependencies, without running anything.
    Lint,
    /// Runs README's first commands on a fresh Debian with Rust and nothing else. Takes a release build's time.
    Fresh(fresh::Options),
    /// Brings the programs that berth is compared with, into a cache folder.
    Peers(peers::Options),
}

fn main() -> ExitCode {
    let root = workspace();
    let done = match Arguments::parse().command {
        Command::Test(options) => suite::run(&root, &options),
        Command::Layers => layers::check(&root),
        Command::Shape => shape::check(&root),
        Command::Dependencies => dependencies::check(&root),
        Command::Lint => lint::run(&root),
        Command::Fresh(options) => fresh::run(&root, &options),
        Command::Peers(options) => peers::bring(&options).map(drop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: the one above this crate's.
fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}
