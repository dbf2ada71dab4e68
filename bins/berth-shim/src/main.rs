//! berth-shim: one process beside the containers of a pod, which makes them, keeps their streams and tells of
//! their ends, whatever becomes of the daemon.
//!
//! It speaks containerd's shim protocol (task service v2 and v3 over ttrpc, started as containerd 1.6 to 2.3 start
//! their shims) and is installed as `containerd-shim-runc-v2` too. It has no async runtime and, at rest, one thread.
//!
//! - [`start`] makes the socket, forks, and tells the daemon the address; the child serves ([`serve`]);
//! - [`service`] is the task service, over the state in [`serve::task`];
//! - [`runtime`] is the seam to the low-level runtime; [`stdio`] is where output goes;
//! - [`relay`] keeps the log of a container whose shim cannot;
//! - [`pause`] is what a pod's first process runs, which is this program under another name;
//! - [`delete`] clears away after a shim that was killed.

mod arguments;
mod bootstrap;
mod bundle;
mod cgroup;
mod children;
mod clock;
mod delete;
mod info;
mod jobs;
mod log;
mod options;
mod pause;
mod publish;
mod relay;
mod runtime;
mod serve;
mod service;
mod socket;
mod start;
mod stdio;

use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::{Action, Arguments, Environment};

fn main() -> ExitCode {
    berth_sys::memory::stay_small();
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    if program.rsplit('/').next() == Some(pause::NAME) {
        return pause::pause();
    }
    match run(words, &program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", start::RUNTIME);
            ExitCode::FAILURE
        }
    }
}

fn run(words: impl Iterator<Item = String>, program: &str) -> Result<()> {
    let mut words = words.peekable();
    if words.next_if(|word| word == relay::NAME).is_some() {
        return relay::start(words);
    }
    let arguments = Arguments::parse(words)?;
    let environment = Environment::read();
    match arguments.action {
        Action::Version => {
            let name = program.rsplit('/').next().unwrap_or_default();
            println!("{name}:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Action::Info => info::info(),
        Action::Start => start::start(&arguments, &environment),
        Action::Delete => delete::delete(&arguments),
        Action::Serve => start::serve_given(&arguments, &environment),
    }
}
