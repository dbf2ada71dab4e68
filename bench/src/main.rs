//! berth beside containerd with runc, on the same machine, by turns.
//!
//! Every round runs the same step on one subject after the other, so that what the machine does meanwhile meets
//! both. Printed are medians with their spread (the tenth and ninetieth percentile) and the ratio of the medians.
//! `cargo bench-berth` runs all, `cargo bench-berth start exec` some; `--write FILE` puts the table into a page.
//! The programs are those beside this one: `cargo build --release` first.

mod machine;
mod measure;
mod memory;
mod scenario;
mod subject;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use crate::scenario::Scenario;
use crate::table::Table;

/// Measures berth beside containerd.
#[derive(Parser)]
struct Arguments {
    /// What to measure; everything without it.
    scenarios: Vec<Scenario>,
    /// How often each step runs on each subject.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// The page whose table is to be replaced, as Markdown.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for program in ["berth", "berthd", "berth-shim"] {
        testkit::programs::own(program)
            .with_context(|| format!("{program} is not beside this program: cargo build --release"))?;
    }
    machine::set_up()?;
    println!("{}", machine::description());
    let mut table = Table::default();
    let chosen = if arguments.scenarios.is_empty() { Scenario::all() } else { arguments.scenarios };
    for scenario in chosen {
        scenario.run(arguments.rounds, &mut table)?;
    }
    if let Some(path) = arguments.write {
        table.write(&path)?;
    }
    Ok(())
}
