//! SIGUSR1: how the daemon is, in one line of the log.

use std::fs;

/// Tells the log what the daemon holds.
pub(crate) fn report() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
    };
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    tracing::info!(
        tasks = metrics.num_alive_tasks(),
        queued = metrics.global_queue_depth(),
        workers = metrics.num_workers(),
        threads = field("Threads"),
        resident = field("VmRSS"),
        peak = field("VmHWM"),
        descriptors,
        "how the daemon is"
    );
}
