//! `create`: make a container and leave it at that.

use clap::Args;

use super::options::ContainerOptions;
use super::run::{discard, prepare, write_cidfile};
use crate::cli::Global;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Flags of `create`.
#[derive(Debug, Args)]
#[command(override_usage = "berth create [OPTIONS] IMAGE [COMMAND] [ARGUMENT]...")]
pub(crate) struct Create {
    #[command(flatten)]
    options: ContainerOptions,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image, the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARGUMENT]...")]
    words: Vec<String>,
}

impl Create {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let mut context = Context::open(global).await?;
        let mut request = self.options.request(&self.words[0], self.words[1..].to_vec())?;
        prepare(&mut context, &self.options, &self.words[0], &mut request).await?;
        let created = context.workload.create(request).await.map_err(Failure::from)?;
        if let Err(failure) = write_cidfile(self.options.cidfile.as_ref(), &created) {
            discard(&context.workload, &created).await;
            return Err(failure);
        }
        output::line(created.container.id.as_str())?;
        Ok(0)
    }
}
