//! `tag`: one more name for an image.

use clap::Args;

use super::manifest::name;
use crate::context::Context;
use crate::failure::Outcome;

/// Flags of `tag`.
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The image
    source: String,
    /// Its new name
    target: String,
}

impl Tag {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let source = context.image(&self.source).await?;
        let target = name(&self.target)?;
        berth_transfer::tag(&*context.client, context.scope(), &source.name, &target).await?;
        Ok(0)
    }
}
