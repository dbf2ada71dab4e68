//! The config file, of a form that containerd 1.6, containerd 2.3 and berthd all read.

use std::fs;

use super::Daemon;

/// The CRI in containerd.
const KUBERNETES: [&str; 3] =
    ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"];

/// Parts of containerd that reach outside the daemon's own folders or need a network.
const DISABLED: [&str; 7] = [
    "io.containerd.nri.v1.nri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs",
];

/// Writes the daemon's config file.
pub(super) fn write(daemon: &Daemon) {
    let kubernetes = KUBERNETES.iter().filter(|_| !daemon.setup.kubernetes);
    // What a test configures it wants, and in its own folders.
    let unwanted = DISABLED.iter().filter(|plugin| !daemon.setup.config.contains(**plugin));
    let disabled: Vec<String> = unwanted.chain(kubernetes).map(|plugin| format!("  {plugin:?},\n")).collect();
    let text = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\n{}]\n\n[grpc]\n  address = {:?}\n\n\
         [ttrpc]\n  address = {:?}\n\n{}",
        daemon.root(),
        daemon.state(),
        disabled.concat(),
        daemon.address(),
        daemon.scratch().path("d.sock.ttrpc"),
        daemon.setup.config.replace("SCRATCH", &daemon.scratch().folder().display().to_string()),
    );
    fs::write(daemon.config(), text).expect("the scratch folder takes a config");
}
