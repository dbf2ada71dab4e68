//! `pods pull`: an image as a kubelet fetches it, with what it does not see: how far it is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use berth_client::Client;
use berth_core::{Catalog as _, Scope};
use berth_transfer::{Object, Progress, Reporter, State};
use berth_types::filter::Filters;
use clap::Args;

use crate::failure::Outcome;
use crate::output::{self, progress::Bars};

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);
/// The namespace of Kubernetes' images.
const NAMESPACE: &str = "k8s.io";

/// Flags of `pods pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// The image
    image: String,
}

impl Pull {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let pods = client.pods();
        let bars = Bars::new(self.quiet);
        let watched = watch(client, bars.reporter());
        let pulled = tokio::select! {
            pulled = pods.pull(&self.image) => pulled,
            never = watched => match never {},
        };
        bars.finish();
        output::line(&pulled?)?;
        Ok(0)
    }
}

/// Tells how far the ingests of Kubernetes' images are, whoever they are for: one pull serves all who ask.
async fn watch(client: &Client, reporter: Reporter) -> Infallible {
    let content = NAMESPACE.parse().map(|namespace| client.content(&Scope::new(namespace)));
    let mut known: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(content) = &content else { continue };
        // What cannot be told now is told at the next look.
        let Ok(ingests) = content.ingests(&Filters::default()).await else { continue };
        let mut now = BTreeMap::new();
        for ingest in ingests {
            now.insert(ingest.reference.to_string(), (ingest.offset, ingest.total));
        }
        for (reference, (_, total)) in known.iter().filter(|(reference, _)| !now.contains_key(*reference)) {
            reporter.tell(progress(reference, State::Complete, *total, *total));
        }
        for (reference, (offset, total)) in &now {
            reporter.tell(progress(reference, State::Transferring, *offset, *total));
        }
        known = now;
    }
}

/// An ingest is named after the kind of what it is and its digest.
fn progress(reference: &str, state: State, offset: u64, total: u64) -> Progress {
    let (kind, digest) = reference.split_once('-').unwrap_or(("", reference));
    let object = match kind {
        "layer" => Object::Layer,
        "config" => Object::Config,
        "manifest" | "index" => Object::Document,
        _ => Object::File,
    };
    Progress { name: digest.into(), object, state, offset, total }
}
