//! `version`: of the command line and of the daemon.

use std::fmt::Write;

use berth_client::Client;
use berth_core::Catalog;
use clap::Args;
use serde_json::{Value, json};

use crate::address::Place;
use crate::cli::Global;
use crate::failure::{Failure, Outcome};
use crate::output::{self, format::Format};

/// Flags of `version`.
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// A Go template, or `json`
    #[arg(short, long)]
    format: Option<String>,
}

impl Version {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let place = Place::of(global)?;
        let client = Client::connect(&place.address);
        // Asking for the version starts nothing.
        let server = if client.is_listening() { client.introspection().version().await.ok() } else { None };
        let arch = std::env::consts::ARCH;
        let document = json!({
            "Client": { "Version": env!("CARGO_PKG_VERSION"), "Os": "linux", "Arch": arch },
            "Server": server.as_ref().map(|(version, revision)| json!({
                "Version": version, "GitCommit": revision, "Os": "linux", "Arch": arch,
            })),
        });
        match self.format.as_deref() {
            Some(format) => output::line(&Format::parse(format)?.apply(&document)?)?,
            None => output::text(&shown(&document))?,
        }
        if server.is_none() {
            return Err(Failure::new(format!("no daemon answers at {}", place.address.display())));
        }
        Ok(0)
    }
}

fn shown(document: &Value) -> String {
    let mut text = String::new();
    for part in ["Client", "Server"] {
        let Some(fields) = document[part].as_object() else { continue };
        let _ = writeln!(text, "{part}:");
        for key in ["Version", "GitCommit", "Os", "Arch"] {
            if let Some(value) = fields.get(key).and_then(Value::as_str) {
                let _ = writeln!(text, " {:<12}{value}", format!("{key}:"));
            }
        }
    }
    text
}
