//! `cp`: files between containers and the host.

use std::path::Path;

use berth_workload::{CopyOptions, Location};
use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Flags of `cp`.
#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// Keep owners as they are
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link at SOURCE points at
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path, or - for a tar on standard input
    source: String,
    /// CONTAINER:PATH, a path, or - for a tar on standard output
    target: String,
}

impl Cp {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let options = CopyOptions { archive: self.archive, follow: self.follow_link };
        let workload = &context.workload;
        match (self.source.parse()?, self.target.parse()?) {
            (Location::Container(name, source), Location::Stream) => {
                let found = context.find(&name).await?;
                workload.tar_out(&found, &source, &mut std::io::stdout()).await?;
            }
            (Location::Stream, Location::Container(name, target)) => {
                let found = context.find(&name).await?;
                workload.tar_in(&found, &target, &mut std::io::stdin()).await?;
            }
            (Location::Container(name, source), Location::Host(target)) => {
                let found = context.find(&name).await?;
                workload.copy_out(&found, &source, &target, options).await?;
            }
            (Location::Host(source), Location::Container(name, target)) => {
                if !source.as_os_str().is_empty() && std::fs::symlink_metadata(trimmed(&source)).is_err() {
                    return Err(Failure::new(format!(
                        "lstat {}: no such file or directory",
                        source.display()
                    )));
                }
                let found = context.find(&name).await?;
                workload.copy_in(&found, &source, &target, options).await?;
            }
            (Location::Container(..), Location::Container(..)) => {
                return Err(Failure::new("copying between containers is not supported"));
            }
            _ => return Err(Failure::new("must specify at least one container source")),
        }
        Ok(0)
    }
}

fn trimmed(path: &Path) -> &Path {
    path.to_str().map_or(path, |text| Path::new(text.trim_end_matches("/.")))
}
