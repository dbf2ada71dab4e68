//! What is printed: lines, tables, templates, progress.

pub(crate) mod format;
pub(crate) mod progress;
pub(crate) mod table;

use std::io::{Write, stdout};

use crate::failure::Failure;

/// Prints a line. Whoever reads us may have gone: that ends the command like SIGPIPE would.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    Ok(writeln!(out, "{line}").and_then(|()| out.flush())?)
}

/// Prints a text as it is.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// Asks for a yes on the terminal.
pub(crate) fn confirm(question: &str) -> Result<bool, Failure> {
    text(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
