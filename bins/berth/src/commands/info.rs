//! `info`: the daemon and the host.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use berth_container::apparmor;
use berth_types::PluginState;
use berth_workload::{Status, human};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{self, format::Format};

/// Flags of `info`.
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// A Go template, or `json`
    #[arg(short, long)]
    format: Option<String>,
}

impl Info {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let introspection = context.client.introspection();
        let (version, server) = tokio::join!(introspection.version(), introspection.server());
        let (version, _) = version?;
        let rows = context.workload.list().await?;
        let count = |status: Status| rows.iter().filter(|row| row.status == status).count();
        let images =
            context.client.images(context.scope()).list(&berth_types::filter::Filters::default()).await?;
        let (mut snapshotters, mut without) = (Vec::new(), BTreeMap::new());
        for plugin in introspection.plugins(&["type==io.containerd.snapshotter.v1".to_owned()]).await? {
            match plugin.state {
                PluginState::Ready => snapshotters.push(plugin.id),
                PluginState::Skipped(why) => drop(without.insert(plugin.id, why)),
                PluginState::Failed(why) => drop(without.insert(plugin.id, format!("failed: {why}"))),
            }
        }
        let host = rustix::system::uname();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory: u64 = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
            .map_or(0, |kib: u64| kib * 1024);
        let two = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let document = json!({
            "ID": server.map(|server| server.uuid).unwrap_or_default(),
            "Containers": rows.len(),
            "ContainersRunning": count(Status::Running),
            "ContainersPaused": count(Status::Paused),
            "ContainersStopped": rows.len() - count(Status::Running) - count(Status::Paused),
            "Images": images.len(),
            "Driver": context.place.snapshotter.as_str(),
            "Snapshotters": snapshotters,
            "SnapshottersWithout": without,
            "Namespace": context.place.namespace.as_str(),
            "Address": context.place.address,
            "DataRoot": context.place.home,
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": if two { "2" } else { "1" },
            "KernelVersion": host.release().to_string_lossy(),
            "OperatingSystem": operating_system(),
            "OSType": "linux",
            "Architecture": host.machine().to_string_lossy(),
            "NCPU": std::thread::available_parallelism().map_or(0, usize::from),
            "MemTotal": memory,
            "Name": host.nodename().to_string_lossy(),
            "ServerVersion": version,
            "SecurityOptions": security(),
        });
        match self.format.as_deref() {
            Some(format) => output::line(&Format::parse(format)?.apply(&document)?)?,
            None => output::text(&shown(&document, memory))?,
        }
        Ok(0)
    }
}

/// What confines containers here that ask for nothing; AppArmor's profile is told as Docker tells seccomp's.
fn security() -> Vec<String> {
    let profile = apparmor::has_default().then(|| format!("apparmor,profile={}", apparmor::DEFAULT));
    profile.into_iter().chain(["seccomp", "cgroupns"].map(str::to_owned)).collect()
}

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn shown(document: &Value, memory: u64) -> String {
    let text = |key: &str| match &document[key] {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    let mut lines = format!("Client:\n Version:    {}\n\nServer:\n", env!("CARGO_PKG_VERSION"));
    for (title, key) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Snapshotters", "Snapshotters"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Security Options", "SecurityOptions"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Name", "Name"),
        ("ID", "ID"),
        ("Namespace", "Namespace"),
        ("Address", "Address"),
        ("Data Root", "DataRoot"),
    ] {
        let _ = writeln!(lines, " {title}: {}", text(key));
        if key == "Snapshotters" {
            for (name, why) in document["SnapshottersWithout"].as_object().into_iter().flatten() {
                let _ = writeln!(lines, "  without {name}: {}", why.as_str().unwrap_or_default());
            }
        }
    }
    let _ = writeln!(lines, " Total Memory: {}", human::binary_size(memory));
    lines
}
