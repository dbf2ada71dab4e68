//! What is checked without running anything.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{dependencies, layers, shape, step};

/// Layers, shape, dependencies, format, and clippy with every warning an error.
pub(crate) fn run(root: &Path) -> Result<()> {
    layers::check(root)?;
    shape::check(root)?;
    dependencies::check(root)?;
    step::run(Command::new("cargo").args(["fmt", "--all", "--check"]).current_dir(root))?;
    let mut clippy = Command::new("cargo");
    clippy.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    step::run(clippy.current_dir(root))
}
