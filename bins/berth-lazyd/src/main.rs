//! `berth-lazyd`: a snapshotter for berthd and containerd whose layers are used before they have arrived.
//!
//! Composition only: the command line and the configuration are read here; [`daemon`] puts the lazy snapshotter on
//! overlayfs and serves both by containerd's snapshots API on a socket, for `[proxy_plugins]`. It is a process of its
//! own so that a daemon's restart never touches a mount.

mod config;
mod daemon;
mod figures;
mod keeper;
mod status;

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Serves a snapshotter that mounts layers before they have arrived
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    /// Path to the configuration file
    #[arg(long, short, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Address for the gRPC server
    #[arg(long, short, value_name = "PATH")]
    address: Option<PathBuf>,
    /// The folder of snapshots, tables and the cache
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// Set the logging level [trace, debug, info, warn, error]
    #[arg(long, short, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Keep the mounts of servers that end, for those that follow: the socket is standard input, and the server starts it
    #[command(hide = true)]
    Keep {
        /// The socket.
        path: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-lazyd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(line: CommandLine) -> anyhow::Result<()> {
    let quiet = "h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn";
    let filter = EnvFilter::try_new(format!("{},{quiet}", line.log_level))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    if let Some(Command::Keep { path }) = line.command {
        let listener = std::io::stdin().as_fd().try_clone_to_owned()?;
        return berth_lazy::keep(&listener, &path)
            .with_context(|| format!("cannot keep mounts at {}", path.display()));
    }
    let mut config = Config::read(line.config.as_deref())?;
    config.address = line.address.unwrap_or(config.address);
    config.root = line.root.unwrap_or(config.root);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(daemon::serve(config));
    // Whoever waits for a file is not told that it failed: the next server answers.
    std::mem::forget(runtime);
    done
}
