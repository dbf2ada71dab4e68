//! The daemon's own figures, as every Prometheus client library names them.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use crate::page::{Kind, Page};

/// Fields of `/proc/PID/stat` after the name of the program (proc_pid_stat(5)), counted from its closing bracket.
mod field {
    pub(super) const USER: usize = 11;
    pub(super) const SYSTEM: usize = 12;
    pub(super) const START: usize = 19;
    pub(super) const VIRTUAL: usize = 20;
    pub(super) const RESIDENT: usize = 21;
}

/// Adds what the kernel says of this process; what it does not say is left out.
pub(crate) fn collect(page: &mut Page) {
    let ticks = clock_ticks_per_second() as f64;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let of = |index: usize| fields.get(index).copied();

    if let (Some(user), Some(system)) = (of(field::USER), of(field::SYSTEM)) {
        let help = "Processor time of the daemon, user and system, in seconds.";
        page.add("process_cpu_seconds_total", Kind::Counter, help, &[], (user + system) / ticks);
    }
    if let Some(bytes) = of(field::VIRTUAL) {
        let help = "Address space of the daemon in bytes.";
        page.add("process_virtual_memory_bytes", Kind::Gauge, help, &[], bytes);
    }
    if let Some(pages) = of(field::RESIDENT) {
        let help = "Resident memory of the daemon in bytes.";
        page.add("process_resident_memory_bytes", Kind::Gauge, help, &[], pages * page_size() as f64);
    }
    if let (Some(start), Some(boot)) = (of(field::START), boot_time()) {
        let help = "Start of the daemon in seconds since the Unix epoch.";
        page.add("process_start_time_seconds", Kind::Gauge, help, &[], boot + start / ticks);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the folder that is being read.
        let count = open.count().saturating_sub(1);
        page.add("process_open_fds", Kind::Gauge, "Open file descriptors.", &[], count as f64);
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        page.add("process_max_fds", Kind::Gauge, "Most file descriptors.", &[], limit as f64);
    }
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_knows_its_memory_and_its_descriptors() {
        let mut page = Page::default();
        collect(&mut page);
        let text = page.render();
        for name in ["process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"] {
            assert!(text.contains(&format!("\n{name} ")), "{name} is missing: {text}");
        }
        let resident = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
            .and_then(|figure| figure.parse::<f64>().ok());
        assert!(resident.is_some_and(|bytes| bytes > 100_000.0), "{text}");
    }
}
