//! What is measured, a file each.

mod exec;
mod fleet;
mod images;
mod import;
mod lazy;
mod link;
mod memory;
mod metadata;
mod pods;
mod pull;
mod restart;
mod snapshotters;
mod start;
mod task;

use anyhow::Result;
use clap::ValueEnum;

use crate::table::Table;

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// `run --rm` of a trivial command.
    Start,
    /// A process more in a running container.
    Exec,
    /// The stages of a task, over the API.
    Task,
    /// A hundred containers, ten at a time, and their removal.
    Fleet,
    /// What the daemon and each container take.
    Memory,
    /// From exec of the daemon to its first answer, and again with a hundred containers running.
    Restart,
    /// Import and unpacking of an image of 200 MB.
    Import,
    /// Layers as EROFS images, beside unpacked ones.
    Images,
    /// Unpacking, disk, mount and unmount of every snapshotter.
    Snapshotters,
    /// Pulling from a registry on loopback: many layers, a large one, many files.
    Pull,
    /// Pulling over a link that is slower than this machine.
    Link,
    /// Containers that answer before their images have come, over such a link.
    Lazy,
    /// Records a second over the API.
    Metadata,
    /// A pod with one container, over the CRI.
    Pods,
    /// A hundred such pods at once and one after the other.
    PodFleet,
    /// Commands in a pod's container, a hundred a second for a minute.
    PodProbes,
    /// What each running pod takes.
    PodMemory,
    /// A restart with two hundred pods running.
    PodRestart,
}

impl Scenario {
    /// Everything.
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// Measures `rounds` times.
    pub(crate) fn run(self, rounds: usize, table: &mut Table) -> Result<()> {
        match self {
            Self::Start => start::run(rounds, table),
            Self::Exec => exec::run(rounds, table),
            Self::Task => task::run(rounds, table),
            Self::Fleet => fleet::run(rounds, table),
            Self::Memory => memory::run(rounds, table),
            Self::Restart => restart::run(rounds, table),
            Self::Import => import::run(rounds, table),
            Self::Images => images::run(rounds, table),
            Self::Snapshotters => snapshotters::run(rounds, table),
            Self::Pull => pull::run(rounds, table),
            Self::Link => link::run(rounds, table),
            Self::Lazy => lazy::run(rounds, table),
            Self::Metadata => metadata::run(rounds, table),
            Self::Pods => pods::life(rounds, table),
            Self::PodFleet => pods::fleet(rounds, table),
            Self::PodProbes => pods::probes(rounds, table),
            Self::PodMemory => pods::memory(rounds, table),
            Self::PodRestart => pods::restart(rounds, table),
        }
    }
}
