//! `publish`: an event of a shim that cannot speak ttrpc to the daemon.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_client::Client;
use berth_core::Catalog;
use berth_proto as proto;
use berth_types::Namespace;
use clap::Args;
use proto::prost::Message;

/// How long the daemon may take; the shim waits for this program.
const LIMIT: Duration = Duration::from_secs(10);
/// Events are small; what is longer is something else.
const LONGEST: u64 = 16 << 20;

/// What to publish.
#[derive(Args)]
pub(super) struct Options {
    /// Namespace to publish to
    #[arg(long, value_name = "NAME", default_value = "")]
    namespace: String,
    /// Topic of the event
    #[arg(long, value_name = "TOPIC", default_value = "")]
    topic: String,
}

pub(super) fn run(address: &str, options: Options) -> Result<()> {
    let Options { namespace, topic } = options;
    if topic.is_empty() {
        bail!("topic required to publish event: invalid argument");
    }
    let namespace: Namespace = namespace.parse().context("cannot publish the event")?;
    let mut payload = Vec::new();
    std::io::stdin().take(LONGEST).read_to_end(&mut payload).context("cannot read the event from stdin")?;
    let message = proto::prost_types::Any::decode(payload.as_slice())
        .context("what came on stdin is no protobuf Any")?;
    let event = proto::convert::from_event(topic, proto::convert::from_any(message));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let events = Client::connect(address).events();
        match tokio::time::timeout(LIMIT, events.publish(&namespace, event)).await {
            Ok(published) => published.map_err(|error| anyhow::anyhow!(error.chain())),
            Err(_) => bail!("no answer from {address} within {LIMIT:?}"),
        }
    })
}
