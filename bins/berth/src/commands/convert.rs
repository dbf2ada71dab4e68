//! `image convert`: the same image with its layers compressed in another way.

use berth_archive::Compression;
use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Flags of `image convert`.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// Layers become zstd
    #[arg(long, conflicts_with = "gzip")]
    zstd: bool,
    /// Layers become gzip
    #[arg(long)]
    gzip: bool,
    /// The image
    source: String,
    /// The name of the new one
    target: String,
}

impl Convert {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let compression = match (self.gzip, self.zstd) {
            (true, false) => Compression::Gzip,
            (false, true) => Compression::Zstd,
            _ => return Err(Failure::new("into what? --zstd or --gzip")),
        };
        let source = context.image(&self.source).await?.name;
        let target = super::manifest::name(&self.target)?;
        let made = berth_transfer::convert(&*context.client, context.scope(), &source, &target, compression);
        output::line(made.await?.target.digest.as_str())?;
        Ok(0)
    }
}
