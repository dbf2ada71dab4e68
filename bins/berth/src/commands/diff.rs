//! `diff`: what a container changed.

use clap::Args;

use crate::context::Context;
use crate::failure::Outcome;
use crate::output;

/// Flags of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Container
    container: String,
}

impl Diff {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        for change in context.workload.changes(&found).await? {
            output::line(&format!("{} {}", change.kind.letter(), change.path.display()))?;
        }
        Ok(0)
    }
}
