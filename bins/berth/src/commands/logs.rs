//! `logs`: what a container has written.

use std::io::{Write, stderr, stdout};
use std::time::SystemTime;

use berth_types::ProcessRef;
use berth_workload::logs::{Entry, Query, Reader, Stream, Watch};
use berth_workload::{human, parse};
use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::terminal::awaited;

/// Flags of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on as it grows
    #[arg(short, long)]
    follow: bool,
    /// Show only the last lines
    #[arg(short = 'n', long, default_value = "all", value_name = "NUMBER")]
    tail: String,
    /// From a time on, or from so long ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to a time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show what is kept with each line
    #[arg(long)]
    details: bool,
    /// Container
    container: String,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        let definition = found.definition()?;
        let path = context.workload.home().log(&found.container.id);
        if definition.host.log_config.kind == "none" {
            return Err(Failure::new("configured logging driver does not support reading"));
        }
        if !path.parent().is_some_and(std::path::Path::exists) {
            return Err(Failure::new(format!(
                "no log of container {} is here: another tool made it, and keeps its log elsewhere",
                found.name()
            )));
        }
        let now = SystemTime::now();
        let query = Query {
            since: self.since.as_deref().map(|text| parse::instant(text, now)).transpose()?,
            until: self.until.as_deref().map(|text| parse::instant(text, now)).transpose()?,
            tail: match self.tail.as_str() {
                "all" | "-1" => None,
                number => Some(number.parse().map_err(|_| {
                    Failure::new(format!("invalid value for \"--tail\": {number} is no number"))
                })?),
            },
        };
        let watch = if self.follow { Some(Watch::open(&path)?) } else { None };
        let mut reader = Reader::open(&path, &query)?;
        let more = self.show(&mut reader)?;
        let Some(watch) = watch.filter(|_| more) else { return Ok(0) };
        let tasks = context.client.tasks(context.scope());
        let process = ProcessRef::init(found.container.id.clone());
        let mut ended = std::pin::pin!(awaited(&tasks, &process));
        loop {
            tokio::select! {
                biased;
                changed = watch.changed() => {
                    changed?;
                    if !self.show(&mut reader)? {
                        return Ok(0);
                    }
                }
                // Without a task there is nothing to wait for; with one, its shim has written all when it tells the end.
                _ = &mut ended => {
                    self.show(&mut reader)?;
                    return Ok(0);
                }
            }
        }
    }

    fn show(&self, reader: &mut Reader) -> Result<bool, Failure> {
        let (mut out, mut err) = (std::io::BufWriter::new(stdout().lock()), stderr().lock());
        let mut broken = None;
        let more = reader.read(&mut |entry| {
            let line = self.line(&entry);
            let written = match entry.stream {
                Stream::Stdout => out.write_all(line.as_bytes()),
                Stream::Stderr => out.flush().and_then(|()| err.write_all(line.as_bytes())),
            };
            broken = written.err();
            Ok(broken.is_none())
        })?;
        match broken.map_or_else(|| out.flush(), Err) {
            Ok(()) => Ok(more),
            Err(error) => Err(error.into()),
        }
    }

    fn line(&self, entry: &Entry) -> String {
        let mut line = String::new();
        if self.timestamps {
            let time = SystemTime::try_from(entry.time).unwrap_or(SystemTime::UNIX_EPOCH);
            line.push_str(&human::timestamp(time));
            line.push(' ');
        }
        if self.details && !entry.attributes.is_empty() {
            let pairs: Vec<String> =
                entry.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
            line.push_str(&pairs.join(","));
            line.push(' ');
        }
        line.push_str(&entry.text);
        line
    }
}
