//! `berthd`, the daemon; under the name `containerd` it takes that daemon's places and name.
//!
//! Composition only: the command line and the configuration are read here, [`daemon`] opens the parts one after
//! the other, and the sockets open last.

mod activated;
mod catalog;
mod command;
mod config;
mod daemon;
mod figures;
mod identity;
mod introspection;
mod inventory;
mod kubernetes;
mod log;
mod notify;
mod parts;
mod places;
mod proxy;
mod reload;
mod report;
mod signals;
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    berth_sys::memory::share();
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let identity = identity::Identity::of(&program);
    match command::run(identity) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line that names every cause, as containerd prints it.
            eprintln!("{}: {error:#}", identity.name);
            ExitCode::FAILURE
        }
    }
}
