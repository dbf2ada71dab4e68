//! `load`: images from an archive.

use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;

use berth_oci::image::{PlatformMatch, parse_platform};
use berth_transfer::{Import, Platforms, Source, import};
use berth_types::{ImageRef, Platform};
use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, progress::Bars};

/// Flags of `load`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Read a file or a folder with an OCI layout instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Platforms to take
    #[arg(long)]
    platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let source = match &self.input {
            Some(path) if path.is_dir() => Source::Layout(path.clone()),
            Some(path) => {
                let file = File::open(path)
                    .map_err(|error| Failure::new(format!("open {}: {error}", path.display())))?;
                Source::Archive(Box::new(file))
            }
            None if std::io::stdin().is_terminal() => {
                return Err(Failure::new(
                    "requested load from stdin, but stdin is empty: use -i or redirect",
                ));
            }
            None => Source::Archive(Box::new(std::io::stdin())),
        };
        let platform: Option<Platform> = self.platform.as_deref().map(parse_platform).transpose()?;
        let platforms = match &platform {
            Some(platform) => Platforms::Matching(PlatformMatch::only(platform)),
            None => Platforms::All,
        };
        let bars = Bars::new(self.quiet);
        let options = Import { platforms, progress: bars.reporter(), ..Import::default() };
        let imported = import(&*context.client, context.scope(), source, &options).await;
        let imported = match imported {
            Ok(imported) => imported,
            Err(error) => {
                bars.finish();
                return Err(error.into());
            }
        };
        let platform = platform.unwrap_or_else(|| context.workload.settings().platform.clone());
        for image in &imported.images {
            // Unpacking now is what makes the first run fast; an image for other machines cannot be.
            let request = berth_transfer::Unpack {
                target: image.target.clone(),
                platform: PlatformMatch::only(&platform),
                snapshotter: context.place.snapshotter.clone(),
                progress: bars.reporter(),
            };
            if let Err(error) = berth_transfer::unpack(&*context.client, context.scope(), &request).await
                && error.kind() != berth_types::ErrorKind::NotFound
            {
                bars.finish();
                return Err(error.into());
            }
        }
        bars.finish();
        for image in &imported.images {
            let name = image.name.as_str().parse::<ImageRef>().map(|name| name.familiar());
            output::line(&format!("Loaded image: {}", name.unwrap_or_else(|_| image.name.to_string())))?;
        }
        for target in &imported.unnamed {
            output::line(&format!("Loaded image ID: {}", target.digest))?;
        }
        Ok(0)
    }
}
