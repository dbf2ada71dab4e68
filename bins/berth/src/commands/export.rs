//! `export`: a container's files as a tar.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Flags of `export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Write to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Container
    container: String,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        let mut output: Box<dyn Write + Send> = match &self.output {
            Some(path) => Box::new(BufWriter::new(
                File::create(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
            )),
            None if stdout().is_terminal() => {
                return Err(Failure::new("cowardly refusing to save to a terminal: use -o or redirect"));
            }
            None => Box::new(BufWriter::new(stdout())),
        };
        context.workload.tar_out(&found, Path::new("/"), &mut output).await?;
        Ok(0)
    }
}
