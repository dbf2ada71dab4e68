//! `registry`: what this machine knows of registries.

use std::path::Path;

use berth_registry::{Explained, Registries};
use berth_types::ImageRef;
use clap::{Args, Subcommand};

use super::pull::registries;
use crate::failure::Outcome;
use crate::output;

/// Commands about registries.
#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Show every host that is asked for an image, with what credentials, and what it answers
    Explain(Explain),
}

/// Flags of `registry explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Another folder of hosts.toml files than this machine's
    #[arg(long, value_name = "FOLDER")]
    hosts_dir: Vec<std::path::PathBuf>,
    /// The image
    image: String,
}

impl Registry {
    pub(crate) async fn run(self) -> Outcome {
        let Self::Explain(Explain { hosts_dir, image }) = self;
        let reference: ImageRef = image.parse()?;
        let registries = if hosts_dir.is_empty() { registries() } else { with_folders(hosts_dir) };
        let hosts = registries.explain(&reference).await?;
        output::line(&reference.to_string())?;
        for (number, host) in hosts.iter().enumerate() {
            output::text(&shown(number + 1, host))?;
        }
        let found = hosts.iter().any(|host| host.answer.is_ok());
        Ok(u8::from(!found))
    }
}

fn with_folders(folders: Vec<std::path::PathBuf>) -> Registries {
    Registries::new(berth_registry::Config { hosts: folders, ..super::pull::config() })
}

fn shown(number: usize, host: &Explained) -> String {
    let capabilities: Vec<String> = host.capabilities.iter().map(ToString::to_string).collect();
    let kind = match (host.mirror, host.alternate) {
        (_, true) => "asked if the one before is not understood; ",
        (true, _) => "mirror; ",
        _ => "",
    };
    let from = host.from.as_deref().map_or("no file: this holds without any".into(), Path::to_string_lossy);
    let credentials = match &host.credentials {
        Ok(Some(found)) => found.clone(),
        Ok(None) => "none".to_owned(),
        Err(error) => error.chain(),
    };
    let answer = match &host.answer {
        Ok(Some(found)) => format!("{} ({}, {} bytes)", found.digest, found.media_type, found.size),
        Ok(None) => "it is there".to_owned(),
        Err(why) => why.clone(),
    };
    format!(
        "{number}. {} ({kind}{})\n   from         {from}\n   credentials  {credentials}\n   answer       {answer}\n",
        host.address,
        capabilities.join(", "),
    )
}
