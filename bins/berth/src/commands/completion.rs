//! `completion`: scripts that complete commands in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::Outcome;
use crate::output;

/// Flags of `completion`.
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::cli::Cli::command(), "berth", &mut script);
        output::text(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}
