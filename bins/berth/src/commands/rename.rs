//! `rename`: another name for a container.

use clap::Args;

use crate::context::Context;
use crate::failure::Outcome;

/// Flags of `rename`.
#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// Container
    container: String,
    /// Its new name
    name: String,
}

impl Rename {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        context.workload.rename(&found, &self.name).await?;
        Ok(0)
    }
}
