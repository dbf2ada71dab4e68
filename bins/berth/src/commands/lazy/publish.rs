//! `lazy publish`: indexes of an image's layers are put beside the image, so that other nodes need not make them.

use std::path::PathBuf;

use berth_lazy::{Outcome as Became, Publication, Publicized};
use berth_oci::image::{PlatformMatch, parse_platform};
use berth_types::ImageRef;
use berth_workload::human;
use clap::Args;

use super::short;
use crate::commands::pull::registries;
use crate::failure::Outcome;
use crate::output;

/// Flags of `lazy publish`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Of a list, the image of this platform, such as linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// Where berth-lazyd of this machine keeps its indexes; one that is not there is made of the layer
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/berth-lazyd")]
    lazyd_root: PathBuf,
    /// Show the digest of what was published, and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// The image, which is in its registry
    image: String,
}

impl Publish {
    pub(super) async fn run(self) -> Outcome {
        let image: ImageRef = self.image.parse()?;
        let platform = match &self.platform {
            Some(text) => PlatformMatch::only(&parse_platform(text)?),
            None => PlatformMatch::host(),
        };
        let registries = registries();
        let publication = Publication {
            registries: &registries,
            image: &image,
            platform: &platform,
            root: &self.lazyd_root,
        };
        let Publicized { digest, size, layers } = publication.run().await?;
        if self.quiet {
            output::line(digest.as_str())?;
            return Ok(0);
        }
        for (layer, became, knows) in &layers {
            let became = match became {
                Became::Found => "index of berth-lazyd",
                Became::Made => "index made of the layer",
                Became::HasTable => "none needed: the layer has a table",
                Became::Unfit(why) => why,
            };
            let reads = if *knows { ", with what is read first" } else { "" };
            output::line(&format!("{}  {became}{reads}", short(layer.as_str())))?;
        }
        output::line(&format!("{} of indexes published as {digest}", human::size(size, 4)))?;
        Ok(0)
    }
}
