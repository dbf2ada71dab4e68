//! `stats`: what containers use, again and again.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use berth_workload::{Row, Sample, Status, Usage, human};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::metrics::decode;
use crate::output::{self, table};

const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";
const HEADS: table::Heads<'static> = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
/// Between two looks: the time over which shares are taken.
const INTERVAL: Duration = Duration::from_secs(1);

/// Flags of `stats`.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Show all, not only those that run
    #[arg(short, long)]
    all: bool,
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Show everything at full length
    #[arg(long)]
    no_trunc: bool,
    /// Containers; all that run without any
    containers: Vec<String>,
}

type Samples = BTreeMap<String, (SystemTime, Sample)>;

impl Stats {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let clear = !self.no_stream && std::io::stdout().is_terminal();
        let mut before = Samples::new();
        let mut first = true;
        loop {
            let rows = self.rows(context).await?;
            let ids: Vec<_> = rows.iter().map(|row| &row.container.id).collect();
            let samples = context.workload.samples(&ids, &decode).await?;
            // Shares need two looks, so the first one is not shown.
            if !first {
                let documents: Vec<Value> =
                    rows.iter().map(|row| self.document(row, &before, &samples)).collect();
                if clear {
                    output::text("\u{1b}[H\u{1b}[2J")?;
                }
                table::print(&documents, self.format.as_deref(), TABLE, HEADS)?;
                if self.no_stream {
                    return Ok(0);
                }
            }
            first = false;
            before = samples;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn rows(&self, context: &Context) -> Result<Vec<Row>, Failure> {
        if self.containers.is_empty() {
            let mut rows = context.workload.list().await?;
            rows.retain(|row| self.all || matches!(row.status, Status::Running | Status::Paused));
            return Ok(rows);
        }
        let mut rows = Vec::new();
        for name in &self.containers {
            let found = context.find(name).await?;
            rows.push(context.workload.row_of(found.container).await?);
        }
        Ok(rows)
    }

    fn document(&self, row: &Row, before: &Samples, now: &Samples) -> Value {
        let id = row.container.id.as_str();
        let pid = row.task.as_ref().map_or(0, |task| task.pid);
        let usage = now.get(id).map(|(time, sample)| {
            let before = before.get(id);
            let apart = before.and_then(|(then, _)| time.duration_since(*then).ok()).unwrap_or(INTERVAL);
            Usage::between(before.map(|(_, sample)| sample), sample, apart, pid)
        });
        let running = usage.is_some();
        let usage = usage.unwrap_or_default();
        let shown = if self.no_trunc || id.len() < 64 { id } else { &id[..12] };
        let or_none = |text: String| if running { text } else { "--".to_owned() };
        let memory =
            format!("{} / {}", human::binary_size(usage.memory), human::binary_size(usage.memory_limit));
        json!({
            "Container": shown,
            "ID": shown,
            "Name": row.name(),
            "CPUPerc": or_none(format!("{:.2}%", usage.cpu_percent)),
            "MemUsage": or_none(memory),
            "MemPerc": or_none(format!("{:.2}%", usage.memory_percent)),
            "NetIO": or_none(format!("{} / {}", human::size(usage.received, 3), human::size(usage.sent, 3))),
            "BlockIO": or_none(format!("{} / {}", human::size(usage.block_read, 3), human::size(usage.block_written, 3))),
            "PIDs": or_none(usage.pids.to_string()),
        })
    }
}
