//! The parts that are always there, and those that follow, in containerd's names: what `ctr plugins ls` shows.

use std::path::Path;

use berth_oci::image::host_platform;
use berth_transfer::Verifiers;
use berth_types::{PluginInfo, PluginState};

use crate::config::Config;
use crate::introspection::{plugin_uri, ready};
use crate::traces::{self, Wanted};
use crate::{figures, kubernetes};

const CONTENT: &str = "io.containerd.content.v1";
const DIFFER: &str = "io.containerd.differ.v1";
const EVENT: &str = "io.containerd.event.v1";
const GRPC: &str = "io.containerd.grpc.v1";
const METADATA: &str = "io.containerd.metadata.v1";
const SERVICE: &str = "io.containerd.service.v1";
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";

/// The gRPC services and what they stand on.
const SERVICES: [(&str, &[&str]); 17] = [
    ("containers", &[SERVICE]),
    ("content", &[SERVICE]),
    ("diff", &[SERVICE]),
    ("events", &[EVENT]),
    ("healthcheck", &[]),
    ("images", &[SERVICE]),
    ("introspection", &[SERVICE]),
    ("leases", &["io.containerd.lease.v1"]),
    ("mounts", &["io.containerd.mount-manager.v1"]),
    ("namespaces", &[SERVICE]),
    ("sandbox-controllers", &["io.containerd.sandbox.controller.v1", EVENT]),
    ("sandboxes", &["io.containerd.sandbox.store.v1"]),
    ("snapshots", &[SERVICE]),
    ("streaming", &["io.containerd.streaming.v1"]),
    ("tasks", &[SERVICE]),
    ("transfer", &["io.containerd.transfer.v1", "io.containerd.streaming.v1"]),
    ("version", &[]),
];

/// What the services stand on, under the names that clients look for.
const BASES: [(&str, &[&str]); 8] = [
    ("containers-service", &[EVENT, METADATA]),
    ("content-service", &[METADATA]),
    ("diff-service", &[DIFFER]),
    ("images-service", &[METADATA, "io.containerd.gc.v1"]),
    ("introspection-service", &[]),
    ("namespaces-service", &[EVENT, METADATA]),
    ("snapshots-service", &[METADATA]),
    ("tasks-service", &[EVENT, "io.containerd.runtime.v2", METADATA]),
];

/// The restart monitor's name in `disabled_plugins`.
pub(crate) const RESTART_MONITOR: &str = "io.containerd.monitor.container.v1.restart";

/// Parts without which the daemon can do, by their names in `disabled_plugins`.
const OPTIONAL: [&str; 9] = [
    RESTART_MONITOR,
    "io.containerd.image-verifier.v1.bindir",
    figures::URI,
    kubernetes::URI,
    kubernetes::IMAGES,
    kubernetes::NRI,
    kubernetes::RUNTIME,
    traces::PROCESSOR,
    traces::TRACING,
];

/// Records of everything but the open sets, which tell of themselves.
pub(crate) fn inventory(config: &Config) -> Vec<PluginInfo> {
    let mut records = vec![
        content(&config.root),
        ready(EVENT, "exchange", &[]),
        metadata(config),
        ready("io.containerd.cri.v1", "images", &[METADATA, SNAPSHOTTER]),
        ready("io.containerd.cri.v1", "runtime", &[EVENT, METADATA]),
        ready(GRPC, "cri", &["io.containerd.cri.v1"]),
        gc(config),
        ready("io.containerd.lease.v1", "manager", &[METADATA]),
        ready("io.containerd.monitor.task.v1", "cgroups", &[EVENT]),
        verifier(config),
        ready("io.containerd.mount-handler.v1", "erofs", &[]),
        ready("io.containerd.mount-manager.v1", "bolt", &[METADATA, "io.containerd.mount-handler.v1"]),
        ready("io.containerd.nri.v1", "nri", &[]),
        restart(),
        ready("io.containerd.podsandbox.controller.v1", "podsandbox", &[EVENT, METADATA]),
        ready("io.containerd.sandbox.controller.v1", "shim", &["io.containerd.shim.v1", EVENT]),
        ready("io.containerd.sandbox.store.v1", "local", &[METADATA]),
        ready("io.containerd.shim.v1", "manager", &[EVENT, METADATA]),
        task(),
        ready("io.containerd.warning.v1", "deprecations", &[]),
        traced("io.containerd.tracing.processor.v1", "otlp", &[], config),
        traced("io.containerd.internal.v1", "tracing", &["io.containerd.tracing.processor.v1"], config),
        ready("io.containerd.server.v1", "grpc", &[GRPC]),
        metrics(config),
        ready("io.containerd.server.v1", "ttrpc", &[GRPC]),
        ready("io.containerd.streaming.v1", "manager", &[METADATA]),
        ready(
            "io.containerd.transfer.v1",
            "local",
            &["io.containerd.lease.v1", METADATA, DIFFER, Verifiers::KIND, SNAPSHOTTER],
        ),
    ];
    records.extend(BASES.map(|(id, requires)| ready(SERVICE, id, requires)));
    records.extend(SERVICES.map(|(id, requires)| ready(GRPC, id, requires)));
    records.retain(|record| {
        let disabled = config.disabled_plugins.contains(&plugin_uri(record));
        let optional = OPTIONAL.contains(&plugin_uri(record).as_str());
        !disabled || !(optional || matches!(record.state, PluginState::Skipped(_)))
    });
    records
}

/// Parts that the configuration disables and that the daemon cannot do without.
pub(crate) fn needed(config: &Config) -> Vec<&String> {
    let all = inventory(config);
    let needed = |uri: &&String| {
        !OPTIONAL.contains(&uri.as_str())
            && all.iter().any(|one| one.state == PluginState::Ready && plugin_uri(one) == **uri)
    };
    config.disabled_plugins.iter().filter(needed).collect()
}

fn content(root: &Path) -> PluginInfo {
    let mut record = ready(CONTENT, "content", &[]);
    let folder = root.join(plugin_uri(&record)).display().to_string();
    record.exports.insert("root".to_owned(), folder);
    record
}

fn metadata(config: &Config) -> PluginInfo {
    let mut record = ready(METADATA, "bolt", &[CONTENT, EVENT, SNAPSHOTTER]);
    let policy = config.plugins.metadata.content_sharing_policy.clone();
    record.exports.insert("policy".to_owned(), policy);
    record
}

fn metrics(config: &Config) -> PluginInfo {
    let mut record = ready("io.containerd.server.v1", "metrics", &[]);
    if config.plugins.metrics.address.is_empty() {
        record.state = PluginState::Skipped("no address is configured".to_owned());
    }
    record
}

fn traced(kind: &str, id: &str, requires: &[&str], config: &Config) -> PluginInfo {
    let mut record = ready(kind, id, requires);
    record.state = match traces::wanted(config) {
        Wanted::On(_) => PluginState::Ready,
        Wanted::Off(why) => PluginState::Skipped(why),
        Wanted::Wrong(why) => PluginState::Failed(why),
    };
    record
}

fn gc(config: &Config) -> PluginInfo {
    let mut record = ready("io.containerd.gc.v1", "scheduler", &[METADATA]);
    let gc = &config.plugins.gc;
    let facts = [
        ("PauseThreshold", gc.pause_threshold.to_string()),
        ("DeletionThreshold", gc.deletion_threshold.to_string()),
        ("MutationThreshold", gc.mutation_threshold.to_string()),
        ("ScheduleDelay", gc.schedule_delay.to_string()),
    ];
    record.exports = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect();
    record
}

/// What the transfer engine reads, here and in the command line.
fn verifier(config: &Config) -> PluginInfo {
    let mut record = ready(Verifiers::KIND, Verifiers::ID, &[]);
    record.exports = config.plugins.verifier.verifiers().exports();
    record
}

fn restart() -> PluginInfo {
    let mut record =
        ready("io.containerd.monitor.container.v1", "restart", &["io.containerd.runtime.v2", METADATA]);
    record.capabilities = ["no", "always", "on-failure", "unless-stopped"].map(str::to_owned).into();
    record
}

fn task() -> PluginInfo {
    let mut record = ready("io.containerd.runtime.v2", "task", &["io.containerd.shim.v1"]);
    record.platforms = vec![host_platform()];
    record.exports.insert("log-uri-schemes".to_owned(), "binary,fifo,file".to_owned());
    record
}
