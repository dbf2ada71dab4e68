//! `rm`: containers.

use berth_workload::RemoveOptions;
use clap::Args;

use super::each;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Flags of `rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// End it if it runs; be content with one that is not there
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let options = RemoveOptions { force: self.force, volumes: self.volumes };
        each(&self.containers, |name| async move {
            match context.workload.find(&name).await {
                Err(error) if self.force && error.kind() == berth_types::ErrorKind::NotFound => {
                    eprintln!("berth: {error}");
                    Ok(String::new())
                }
                found => {
                    context.workload.remove(&found?, options).await.map_err(Failure::from)?;
                    Ok(name)
                }
            }
        })
        .await
    }
}
