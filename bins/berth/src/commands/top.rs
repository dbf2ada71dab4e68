//! `top`: the processes of a container.

use clap::Args;

use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{self, table};

/// Flags of `top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The container, and arguments for ps
    #[arg(required = true, trailing_var_arg = true, value_name = "CONTAINER [PS ARGUMENT]...")]
    words: Vec<String>,
}

impl Top {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.words[0]).await?;
        let processes = context.workload.top(&found, &self.words[1..]).await?;
        let rows = std::iter::once(&processes.titles).chain(&processes.rows);
        let lines: Vec<String> = rows.map(|row| row.join("\t")).collect();
        output::text(&table::align(&lines))?;
        Ok(0)
    }
}
