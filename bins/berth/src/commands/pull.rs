//! `pull`: an image from a registry.

use std::path::PathBuf;

use berth_core::UnpackedBlobs;
use berth_oci::image::{PlatformMatch, parse_platform};
use berth_registry::{Config, Registries};
use berth_transfer::{Platforms, Pull as Request};
use berth_types::{Image, ImageRef};
use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, progress::Bars};

/// Flags of `pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Platform, such as linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// Fetch the images of every platform
    #[arg(long)]
    all_platforms: bool,
    /// Do not keep the compressed layers once they are unpacked
    #[arg(long)]
    discard: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// The image
    image: String,
}

impl Pull {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let reference: ImageRef = self.image.parse()?;
        let wanted = Wanted {
            platform: self.platform.as_deref(),
            all: self.all_platforms,
            blobs: if self.discard { UnpackedBlobs::Recipes } else { UnpackedBlobs::Kept },
        };
        let pulled = pull(context, &reference, wanted, self.quiet).await?;
        for (layer, why) in &pulled.kept {
            eprintln!("layer {layer} is kept compressed: {why}");
        }
        if !self.quiet {
            let tag = reference.tag().map_or_else(String::new, |tag| format!("{tag}: "));
            if reference.tag().is_some() && !self.image.contains(['@']) && reference.tag() == Some("latest") {
                eprintln!("Using default tag: latest");
            }
            output::line(&format!("{tag}Pulled from {}", reference.path()))?;
            output::line(&format!("Digest: {}", pulled.image.target.digest))?;
            let what = if pulled.changed { "Downloaded newer image" } else { "Image is up to date" };
            output::line(&format!("Status: {what} for {}", reference.familiar()))?;
        }
        output::line(&reference.to_string())?;
        Ok(0)
    }
}

/// Fetches an image, unpacked for its platform.
pub(crate) async fn fetch(
    context: &Context,
    text: &str,
    platform: Option<&str>,
    quiet: bool,
) -> Result<Image, Failure> {
    let reference: ImageRef = text.parse()?;
    let wanted = Wanted { platform, all: false, blobs: UnpackedBlobs::Kept };
    Ok(pull(context, &reference, wanted, quiet).await?.image)
}

/// What of an image is wanted.
struct Wanted<'a> {
    /// For which platform, if not this machine's.
    platform: Option<&'a str>,
    /// The images of every platform come along.
    all: bool,
    blobs: UnpackedBlobs,
}

async fn pull(
    context: &Context,
    reference: &ImageRef,
    Wanted { platform, all, blobs }: Wanted<'_>,
    quiet: bool,
) -> Result<berth_transfer::Pulled, Failure> {
    let platform = match platform {
        Some(text) => parse_platform(text)?,
        None => context.workload.settings().platform.clone(),
    };
    let matching = PlatformMatch::only(&platform);
    let bars = Bars::new(quiet);
    let request = Request {
        platforms: if all { Platforms::All } else { Platforms::Best(matching.clone()) },
        unpack: Some((matching, context.place.snapshotter.clone())),
        blobs,
        progress: bars.reporter(),
        ..Request::new(reference.clone())
    };
    let pulled = berth_transfer::pull(&*context.client, context.scope(), &registries(), &request).await;
    bars.finish();
    Ok(pulled?)
}

/// The machine's registries, with the credentials that `docker login` left.
pub(crate) fn registries() -> Registries {
    Registries::new(config())
}

/// What the command line knows of registries.
pub(crate) fn config() -> Config {
    Config::system(docker().as_deref())
}

/// The user's Docker configuration: `$DOCKER_CONFIG` or `~/.docker`.
pub(crate) fn docker() -> Option<PathBuf> {
    let docker = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    docker.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))
}
