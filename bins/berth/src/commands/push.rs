//! `push`: an image to a registry.

use berth_oci::image::{PlatformMatch, parse_platform};
use berth_transfer::Push as Request;
use berth_types::ImageRef;
use clap::Args;

use super::pull::registries;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{self, progress::Bars};

/// Flags of `push`.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Send only the image for a platform
    #[arg(long)]
    platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// The image
    image: String,
}

impl Push {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let image = context.image(&self.image).await?;
        let reference: ImageRef = image.name.as_str().parse()?;
        let platform = self.platform.as_deref().map(parse_platform).transpose()?;
        let bars = Bars::new(self.quiet);
        let request = Request {
            platform: platform.as_ref().map(PlatformMatch::only),
            progress: bars.reporter(),
            ..Request::new(image.target, reference.clone())
        };
        let pushed = berth_transfer::push(&*context.client, context.scope(), &registries(), &request).await;
        bars.finish();
        let pushed = pushed?;
        if self.quiet {
            output::line(&reference.to_string())?;
        } else {
            let tag = reference.tag().unwrap_or("latest");
            output::line(&format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size))?;
        }
        Ok(0)
    }
}
