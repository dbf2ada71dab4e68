//! What pods have left on a node.

use std::fs;
use std::path::Path;

use testkit::{cgroups, mounts, processes, wait};

use super::Node;

/// The folder of pods in the daemon's root and in its state.
const PODS: &str = "io.containerd.grpc.v1.cri";

impl Node {
    /// Demands that within a minute nothing is left of pods and containers: neither in the daemon's answers nor on the
    /// machine.
    #[track_caller]
    pub fn demand_bare(&self) {
        let deadline = std::time::Instant::now() + wait::SOON / 2;
        let left = wait::until("nothing but a list", wait::SOON * 2, || {
            let left = self.left();
            (left.is_empty() || std::time::Instant::now() > deadline).then_some(left)
        });
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }

    /// Everything that is left, a line each.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.pods().iter().map(|pod| format!("pod {}", pod.id)));
        left.extend(self.containers().iter().map(|container| format!("container {}", container.id)));
        for what in ["containers", "tasks", "leases"] {
            let list = self.ctr(&format!("{what} list --quiet")).ok();
            left.extend(list.split_whitespace().map(|id| format!("{what} of ctr: {id}")));
        }
        let snapshots = self.ctr("snapshots list").ok();
        let is_active = |line: &&str| line.split_whitespace().any(|word| word == "Active" || word == "View");
        left.extend(snapshots.lines().filter(is_active).map(|line| format!("snapshot {line}")));
        for folder in [self.daemon.root().join(PODS), self.daemon.state().join(PODS)] {
            for kind in ["sandboxes", "containers", "netns", "execs", "images"] {
                left.extend(names(&folder.join(kind)).map(|name| format!("{kind}/{name}")));
            }
        }
        let bundles = self.daemon.state().join("io.containerd.runtime.v2.task/k8s.io");
        left.extend(names(&bundles).map(|name| format!("bundle {name}")));
        let hosts = self.daemon.state().join("io.containerd.sandbox.controller.v1.shim/k8s.io");
        left.extend(names(&hosts).map(|name| format!("bundle of sandbox {name}")));
        let addresses = names(&self.path("leases/pods")).filter(|name| name.starts_with("10."));
        left.extend(addresses.map(|name| format!("address {name}")));
        left.extend(devices().filter(|name| name.starts_with("veth")).map(|name| format!("device {name}")));
        left.extend(mounts::beneath(&self.daemon.state()).iter().map(|at| format!("mount {}", at.display())));
        let shims = processes::tagged(self.daemon.tag()).into_iter();
        let shims = shims.filter(|process| Some(process.pid) != self.daemon.pid());
        left.extend(shims.map(|process| format!("process {} {}", process.pid, process.command)));
        let cgroups = cgroups::tagged(self.daemon.tag());
        let containers = cgroups.iter().flat_map(|cgroup| folders(cgroup));
        left.extend(containers.map(|path| format!("cgroup {path}")));
        left
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path().display().to_string()).collect()
}

/// The network devices of the host that the calling thread is on.
fn devices() -> impl Iterator<Item = String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names: Vec<String> = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect();
    names.into_iter()
}
