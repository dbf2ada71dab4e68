//! `save`: images as an archive.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::PathBuf;

use berth_oci::image::{PlatformMatch, parse_platform};
use berth_transfer::{Exported, Platforms, Without, export};
use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::progress::Bars;

/// Flags of `save`.
#[derive(Debug, Args)]
pub(crate) struct Save {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Platform to save
    #[arg(long)]
    platform: Option<String>,
    /// Save every platform that is here
    #[arg(long)]
    all_platforms: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Images
    #[arg(required = true)]
    images: Vec<String>,
}

impl Save {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let mut images = Vec::new();
        for name in &self.images {
            let image = context.image(name).await?;
            images.push((Some(image.name), image.target));
        }
        let platform = match self.platform.as_deref() {
            Some(text) => parse_platform(text)?,
            None => context.workload.settings().platform.clone(),
        };
        let docker = PlatformMatch::only(&platform);
        let platforms =
            if self.all_platforms { Platforms::All } else { Platforms::Best(PlatformMatch::only(&platform)) };
        let output: Box<dyn Write + Send> = match &self.output {
            Some(path) => {
                let file = File::create(path)
                    .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
                Box::new(BufWriter::with_capacity(1 << 20, file))
            }
            None if stdout().is_terminal() => {
                return Err(Failure::new("cowardly refusing to save to a terminal: use -o or redirect"));
            }
            None => Box::new(stdout()),
        };
        let bars = Bars::new(self.quiet || self.output.is_none());
        let request =
            Exported { images, platforms, docker, without: Without::default(), progress: bars.reporter() };
        let written = export(&*context.client, context.scope(), &request, output).await;
        bars.finish();
        match written {
            Ok(mut output) => output.flush()?,
            Err(error) => {
                if let Some(path) = &self.output {
                    // Half an archive would be taken for a whole one.
                    let _ = std::fs::remove_file(path);
                }
                return Err(error.into());
            }
        }
        Ok(0)
    }
}
