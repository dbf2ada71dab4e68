//! Runs one program and says so; a failure names the whole command.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Runs `command` with the terminal as its own. Prints it first and its time afterwards.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let words = words(command);
    eprintln!("── {words}");
    let began = Instant::now();
    let status = command.status().with_context(|| format!("cannot start `{words}`"))?;
    if !status.success() {
        bail!("`{words}` ended with {status}");
    }
    eprintln!("── done in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Runs `command` and gives what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let words = words(command);
    let output = command.output().with_context(|| format!("cannot start `{words}`"))?;
    if !output.status.success() {
        bail!("`{words}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

fn words(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    command.get_args().fold(program, |text, word| text + " " + &word.to_string_lossy())
}
