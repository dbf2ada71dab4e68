//! `lazy status`: which layers of `berth-lazyd` are here, and how they are used. What else there is about them is below.

mod publish;

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use berth_workload::human;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::output::{self, table};

/// How long the answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Commands about layers that are used before they have arrived.
#[derive(Debug, Subcommand)]
pub(crate) enum Lazy {
    /// Show which layers are mounted, how much of them is here, and how reads were answered
    Status(Status),
    /// Put indexes of an image's layers beside it in its registry, so that nodes that trust them need not fetch layers
    /// whole
    Publish(publish::Publish),
}

/// Flags of `lazy status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The socket of berth-lazyd's status
    #[arg(long, value_name = "PATH", default_value = "/run/berth-lazyd/status.sock")]
    socket: PathBuf,
    /// Show whole digests
    #[arg(long)]
    no_trunc: bool,
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
}

/// What berth-lazyd tells.
#[derive(Debug, Deserialize)]
struct Told {
    cache: Cache,
    layers: Vec<Layer>,
}

#[derive(Debug, Deserialize)]
struct Cache {
    bytes: u64,
    chunks: u64,
    limit: u64,
    evicted: u64,
    damaged: u64,
}

#[derive(Debug, Deserialize)]
struct Layer {
    layer: String,
    point: String,
    bytes: u64,
    local: u64,
    figures: Figures,
}

#[derive(Debug, Deserialize)]
struct Figures {
    fetched: u64,
    hits: u64,
    misses: u64,
    failures: u64,
}

impl Lazy {
    pub(crate) async fn run(self) -> Outcome {
        match self {
            Self::Status(status) => status.run(),
            Self::Publish(publish) => publish.run().await,
        }
    }
}

impl Status {
    fn run(self) -> Outcome {
        let told = self.ask()?;
        let row = |layer: &Layer| -> Value {
            let Layer { layer, point, bytes, local, figures } = layer;
            let Figures { fetched, hits, misses, failures } = figures;
            json!({
                "Layer": if self.no_trunc { layer.as_str() } else { short(layer) },
                "Size": human::size(*bytes, 4),
                "Local": percent(*local, *bytes),
                "Fetched": human::size(*fetched, 4),
                "Reads": (hits + misses + failures).to_string(),
                "Hits": percent(*hits, hits + misses + failures),
                "Failures": failures.to_string(),
                "Mountpoint": point,
            })
        };
        let rows: Vec<Value> = told.layers.iter().map(row).collect();
        let heads = &[
            ("Layer", "LAYER"),
            ("Size", "SIZE"),
            ("Local", "LOCAL"),
            ("Fetched", "FETCHED"),
            ("Reads", "READS"),
            ("Hits", "HITS"),
            ("Failures", "FAILURES"),
            ("Mountpoint", "MOUNTPOINT"),
        ];
        let columns =
            "table {{.Layer}}\t{{.Size}}\t{{.Local}}\t{{.Fetched}}\t{{.Reads}}\t{{.Hits}}\t{{.Failures}}";
        table::print(&rows, self.format.as_deref(), columns, heads)?;
        if self.format.is_none() {
            let Cache { bytes, chunks, limit, evicted, damaged } = told.cache;
            let (bytes, limit) = (human::size(bytes, 4), human::size(limit, 4));
            output::line(&format!(
                "Cache: {bytes} of {limit} in {chunks} chunks; {evicted} made room for others, {damaged} were damaged"
            ))?;
        }
        Ok(0)
    }

    fn ask(&self) -> Result<Told, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            let socket = self.socket.display();
            Failure::new(format!(
                "cannot ask berth-lazyd at {socket}: {error}; does it run? --socket says where"
            ))
        };
        let mut socket = UnixStream::connect(&self.socket).map_err(|error| failed(&error))?;
        socket.set_read_timeout(Some(LIMIT)).map_err(|error| failed(&error))?;
        let mut text = String::new();
        socket.read_to_string(&mut text).map_err(|error| failed(&error))?;
        serde_json::from_str(&text).map_err(|error| failed(&error))
    }
}

fn short(layer: &str) -> &str {
    let hex = layer.split_once(':').map_or(layer, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

fn percent(part: u64, all: u64) -> String {
    let part = part.saturating_mul(100).checked_div(all);
    part.map_or_else(|| "-".to_owned(), |part| format!("{part}%"))
}
