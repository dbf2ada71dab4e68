//! `rmi`: images.

use berth_core::Deletion;
use berth_types::ErrorKind;
use clap::Args;

use super::each;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Flags of `rmi`.
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Remove it although a container was made from it; be content with one that is not there
    #[arg(short, long)]
    force: bool,
    /// Answer before what nobody uses any more is removed
    #[arg(long = "async")]
    later: bool,
    /// Images
    #[arg(required = true)]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let deletion = if self.later { Deletion::Later } else { Deletion::Synchronous };
        let code = each(&self.images, |name| async move {
            let image = match context.image(&name).await {
                Err(error) if self.force && error.kind() == ErrorKind::NotFound => {
                    eprintln!("berth: {error}");
                    return Ok(String::new());
                }
                found => found?,
            };
            let used = context.workload.list().await?;
            let user = used.iter().find(|row| row.container.image == image.name.as_str());
            if let Some(row) = user.filter(|_| !self.force) {
                return Err(Failure::new(format!(
                    "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {}",
                    &row.container.id.as_str()[..row.container.id.as_str().len().min(12)],
                    image.target.digest.short()
                )));
            }
            let images = context.client.images(context.scope());
            images.delete(&image.name, None, deletion).await?;
            let familiar = image.name.as_str().parse::<berth_types::ImageRef>().map(|name| name.familiar());
            let shown = familiar.unwrap_or_else(|_| image.name.to_string());
            let left = images.list(&berth_types::filter::Filters::default()).await?;
            let last = left.iter().all(|other| other.target.digest != image.target.digest);
            Ok(if last {
                format!("Untagged: {shown}\nDeleted: {}", image.target.digest)
            } else {
                format!("Untagged: {shown}")
            })
        })
        .await?;
        Ok(code)
    }
}
