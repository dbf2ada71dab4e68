//! What `ls`, `inspect` and `rm` have in common, whatever they are about, as long as it has a name.

use berth_types::ErrorKind;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::each;
use super::inspect::{Document, print};
use crate::failure::{Failure, Outcome};
use crate::output::table;

/// Flags of `ls`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show names only
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A Go template, or `json`
    #[arg(short, long)]
    format: Option<String>,
    /// Names
    #[arg(required = true)]
    names: Vec<String>,
}

/// Flags of `rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Be content with one that is not there
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true)]
    names: Vec<String>,
}

impl List {
    /// Prints rows, each with a `Name`.
    pub(super) fn print(&self, rows: &[Value], default: &str, heads: table::Heads<'_>) -> Outcome {
        let format = if self.quiet { Some("{{.Name}}") } else { self.format.as_deref() };
        table::print(rows, format, default, heads)?;
        Ok(0)
    }
}

impl Inspect {
    /// Prints what `describe` says of each, and which ones it cannot describe.
    pub(super) async fn run<F, D>(self, mut describe: impl FnMut(String) -> F) -> Outcome
    where
        F: Future<Output = Result<D, Failure>>,
        D: Serialize,
    {
        let mut documents = Vec::new();
        let mut code = 0;
        for name in self.names {
            match describe(name).await {
                Ok(document) => documents.push(Document::new(&document)?),
                Err(failure) => {
                    eprintln!("berth: {failure}");
                    code = 1;
                }
            }
        }
        print(&documents, self.format.as_deref())?;
        Ok(code)
    }
}

impl Rm {
    /// Removes each, and prints its name.
    pub(super) async fn run<F>(self, mut remove: impl FnMut(String) -> F) -> Outcome
    where
        F: Future<Output = berth_types::Result<()>>,
    {
        each(&self.names, |name| {
            let removing = remove(name.clone());
            async move {
                match removing.await {
                    Err(error) if self.force && error.kind() == ErrorKind::NotFound => Ok(name),
                    other => other.map(|()| name).map_err(Failure::from),
                }
            }
        })
        .await
    }
}
