//! `berth oci`: the low-level runtime with runc's command line.
//!
//! Flags, output and exit codes are runc's, so that whoever drives runc (other shims, Docker, CRI-O,
//! scripts) can drive this instead; it answers under the name `runc` as well. All it does is in
//! berth-container; here are words.

mod args;
mod criu;
mod events;
mod foreground;
mod inspect;
mod launch;
mod log;
mod manage;
mod spec;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Cli, Command};
use self::log::Log;

/// What a command comes to: an exit code, or an error to be told.
type Outcome = Result<u8, Failure>;

/// An error and the exit code that it means.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }
}

impl From<berth_container::Error> for Failure {
    fn from(error: berth_container::Error) -> Self {
        Self::new(error.chain())
    }
}

/// Runs one of runc's commands; `words` are those behind the program's name.
pub(crate) fn run(words: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(std::iter::once(OsString::from("runc")).chain(words)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let log = Log::open(&cli.globals);
    if matches!(cli.command, Command::Create(_) | Command::Run(_) | Command::Exec(_))
        && let Err(error) = berth_sys::sealed::execute_again()
    {
        // Without the right to do that there is no right to make containers either, whose error says more.
        log.warnings(&[format!("cannot seal the program: {error}")]);
    }
    match dispatch(&cli, &log) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log.error(&failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: &Cli, log: &Log) -> Outcome {
    let globals = &cli.globals;
    match &cli.command {
        Command::Create(wanted) => launch::create(globals, wanted, log),
        Command::Start(one) => launch::start(globals, &one.id, log),
        Command::Run(wanted) => launch::run(globals, wanted, log),
        Command::Exec(wanted) => launch::exec(globals, wanted, log),
        Command::Kill(wanted) => manage::kill(globals, wanted),
        Command::Delete(wanted) => manage::delete(globals, wanted, log),
        Command::Pause(one) => manage::pause(globals, &one.id),
        Command::Resume(one) => manage::resume(globals, &one.id),
        Command::Update(wanted) => manage::update(globals, wanted, log),
        Command::State(one) => inspect::state(globals, &one.id),
        Command::List(wanted) => inspect::list(globals, wanted),
        Command::Ps(wanted) => inspect::ps(globals, wanted),
        Command::Features => inspect::features(),
        Command::Events(wanted) => events::events(globals, wanted),
        Command::Spec(wanted) => spec::spec(wanted),
        Command::Checkpoint(wanted) => criu::checkpoint(globals, wanted),
        Command::Restore(wanted) => criu::restore(globals, wanted, log),
    }
}
