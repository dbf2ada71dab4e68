//! `berth`: containers, images and volumes on the command line, with Docker's names, flags and output.
//!
//! Composition and words only: what a container is lies in berth-workload, what an image is in berth-transfer, the
//! way to the daemon in berth-client. One thread runs it all; threads of their own copy streams.
//!
//! Under the name `docker-init` it is the first process of a container that asked for `--init`; under the name `runc`
//! it has runc's command line, like `berth oci`.

mod address;
mod cli;
mod commands;
mod context;
mod daemon;
mod failure;
mod hello;
mod init;
mod logger;
mod metrics;
mod oci;
mod output;
mod reaper;
mod terminal;
mod unpack;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    match std::path::Path::new(&name).file_name().and_then(std::ffi::OsStr::to_str) {
        Some("docker-init") => return init::run(words.collect()),
        Some("runc") => return oci::run(words.collect()),
        _ => {}
    }
    // Logger and runtime are programs of their own, whose words are not ours to parse.
    match words.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("internal-logger") => return logger::run(words.next()),
        Some("oci") => return oci::run(words.collect()),
        _ => {}
    }
    let words: Vec<_> = std::env::args_os().collect();
    let cli = match cli::Cli::read(&words) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::ENGINE } else { 0 });
        }
    };
    commands::run(cli)
}
