//! `system`: the daemon by name, and the disk.

use berth_workload::{human, parse};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{images, info, ps};
use crate::address::Place;
use crate::cli::Global;
use crate::context::Context;
use crate::daemon;
use crate::failure::{Failure, Outcome};
use crate::output::{self, table};

/// The daemon and the disk.
#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Start the daemon in the background
    Start,
    /// Stop the daemon; its containers go on
    Stop,
    /// Say whether the daemon runs
    Status,
    /// Show what takes the disk
    Df(Df),
    /// Remove what is not in use
    Prune(Prune),
    /// Show facts of the daemon and the host
    Info(info::Info),
    /// Show what happens in the daemon
    Events(super::events::Events),
}

/// Flags of `system df`.
#[derive(Debug, Args)]
pub(crate) struct Df {
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show each thing
    #[arg(short, long)]
    verbose: bool,
}

/// Flags of `system prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove all images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Ask nothing
    #[arg(short, long)]
    force: bool,
    /// Remove volumes that no container uses, too
    #[arg(long)]
    volumes: bool,
    /// until=TIME
    #[arg(long)]
    filter: Vec<String>,
}

impl System {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Start => start(global).await,
            Self::Stop => stop(global).await,
            Self::Status => status(global).await,
            Self::Df(df) => df.run(&Context::open(global).await?).await,
            Self::Prune(prune) => prune.run(&Context::open(global).await?).await,
            Self::Info(info) => info.run(&Context::open(global).await?).await,
            Self::Events(events) => events.run(&Context::open(global).await?).await,
        }
    }
}

async fn start(global: &Global) -> Outcome {
    let place = Place::of(global)?;
    if let Some(pid) = daemon::pid_at(&place.address) {
        output::line(&format!("berthd runs already (pid {pid}) at {}", place.address.display()))?;
        return Ok(0);
    }
    if !place.is_default() {
        return Err(Failure::new(format!(
            "only the daemon at {} is started by name; for another, run berthd --address {}",
            crate::address::DEFAULT_ADDRESS,
            place.address.display()
        )));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(daemon::not_root());
    }
    let pid = daemon::start(&place).await?;
    output::line(&format!("berthd runs (pid {pid}) at {}", place.address.display()))?;
    Ok(0)
}

async fn stop(global: &Global) -> Outcome {
    let place = Place::of(global)?;
    match daemon::stop(&place.address).await? {
        Some(pid) => output::line(&format!("berthd (pid {pid}) has ended; containers go on"))?,
        None => output::line(&format!("no daemon runs at {}", place.address.display()))?,
    }
    Ok(0)
}

async fn status(global: &Global) -> Outcome {
    let place = Place::of(global)?;
    let Some(pid) = daemon::pid_at(&place.address) else {
        output::line(&format!("no daemon runs at {}", place.address.display()))?;
        // As `systemctl status` has it.
        return Ok(3);
    };
    let context = Context::open(global).await?;
    let (version, _) = context.client.introspection().version().await?;
    let rows = context.workload.list().await?;
    let running = rows.iter().filter(|row| row.status == berth_workload::Status::Running).count();
    output::line(&format!("the daemon runs (pid {pid}) at {}", place.address.display()))?;
    output::line(&format!("version     {version}"))?;
    output::line(&format!(
        "containers  {running} running, {} in all, in namespace {}",
        rows.len(),
        place.namespace
    ))?;
    Ok(0)
}

impl Df {
    async fn run(self, context: &Context) -> Outcome {
        let usage = context.workload.disk_usage().await?;
        let part = |name: &str, part: &berth_workload::Part| {
            let share = (part.reclaimable * 100).checked_div(part.size).unwrap_or(0);
            json!({
                "Type": name,
                "TotalCount": part.total.to_string(),
                "Active": part.active.to_string(),
                "Size": human::size(part.size, 4),
                "Reclaimable": format!("{} ({share}%)", human::size(part.reclaimable, 4)),
            })
        };
        let rows = [
            part("Images", &usage.images),
            part("Containers", &usage.containers),
            part("Local Volumes", &usage.volumes),
        ];
        if !self.verbose || self.format.is_some() {
            let heads: table::Heads<'_> = &[
                ("Type", "TYPE"),
                ("TotalCount", "TOTAL"),
                ("Active", "ACTIVE"),
                ("Size", "SIZE"),
                ("Reclaimable", "RECLAIMABLE"),
            ];
            let default = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
            table::print(&rows, self.format.as_deref(), default, heads)?;
            return Ok(0);
        }
        output::line("Images space usage:\n")?;
        let rows: Vec<Value> = usage.image_rows.iter().map(|row| images::document(row, false)).collect();
        let default = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
        let heads: table::Heads<'_> = &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
        ];
        table::print(&rows, None, default, heads)?;
        output::line("\nContainers space usage:\n")?;
        let rows: Vec<Value> = usage
            .container_rows
            .iter()
            .map(|(row, size)| ps::document(row, false, Some(human::size(*size, 3))))
            .collect();
        let default = "table {{.ID}}\t{{.Image}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
        let heads: table::Heads<'_> = &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Size", "SIZE"),
            ("RunningFor", "CREATED"),
            ("Status", "STATUS"),
            ("Names", "NAMES"),
        ];
        table::print(&rows, None, default, heads)?;
        output::line("\nLocal Volumes space usage:\n")?;
        let rows: Vec<Value> = usage
            .volume_rows
            .iter()
            .map(|(volume, size, links)| {
                json!({ "Name": volume.name, "Links": links.to_string(), "Size": human::size(*size, 3) })
            })
            .collect();
        let heads: table::Heads<'_> = &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
        table::print(&rows, None, "table {{.Name}}\t{{.Links}}\t{{.Size}}", heads)?;
        Ok(0)
    }
}

impl Prune {
    async fn run(self, context: &Context) -> Outcome {
        if !self.force {
            let images = if self.all { "images that no container uses" } else { "images without a name" };
            let volumes = if self.volumes { ", volumes that no container uses" } else { "" };
            let question = format!("This removes containers that do not run, {images}{volumes}. Go on?");
            if !output::confirm(&question)? {
                return Ok(0);
            }
        }
        let until = until(&self.filter)?;
        let containers = context.workload.prune_containers(until).await?;
        let mut freed = containers.freed;
        told("Deleted Containers:", &containers.removed)?;
        if self.volumes {
            let volumes = context.workload.prune_volumes(false).await?;
            freed += volumes.freed;
            told("Deleted Volumes:", &volumes.removed)?;
        }
        let images = context.workload.prune_images(self.all, until).await?;
        freed += images.freed;
        told("Deleted Images:", &images.removed)?;
        output::line(&format!("Total reclaimed space: {}", human::size(freed, 4)))?;
        Ok(0)
    }
}

/// The time of `until=`.
pub(crate) fn until(filters: &[String]) -> Result<Option<std::time::SystemTime>, Failure> {
    let mut until = None;
    for text in filters {
        match text.split_once('=') {
            Some(("until", value)) => {
                until = Some(parse::instant(value, std::time::SystemTime::now())?);
            }
            _ => return Err(Failure::new(format!("invalid filter '{text}': use until=TIME"))),
        }
    }
    Ok(until)
}

/// Prints what was removed under a title.
pub(crate) fn told(title: &str, removed: &[String]) -> Result<(), Failure> {
    if removed.is_empty() {
        return Ok(());
    }
    output::line(title)?;
    for name in removed {
        output::line(name)?;
    }
    output::line("")
}
