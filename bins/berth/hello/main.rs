//! The demonstration: shows from inside a container what isolates it.
//!
//! Everything is read where any program could read it: in /proc and /sys. The host's own namespaces, which nothing
//! inside can see, come in `BERTH_HOST_NAMESPACES` as `kind=id` with blanks between.

use std::collections::BTreeMap;
use std::fs;

fn main() {
    let host: BTreeMap<String, String> = std::env::var("BERTH_HOST_NAMESPACES")
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(kind, id)| (kind.to_owned(), id.to_owned()))
        .collect();
    println!("\nHello from inside a container.\n");
    println!("What isolates it");
    for (name, kind, fact) in [
        ("processes", "pid", processes()),
        ("files", "mnt", mounts()),
        ("network", "net", network()),
        ("host name", "uts", read("/proc/sys/kernel/hostname")),
        ("shared memory", "ipc", String::new()),
        ("cgroups", "cgroup", read("/proc/self/cgroup").lines().last().unwrap_or_default().to_owned()),
        ("users", "user", user()),
    ] {
        row(name, &namespace(kind, &host), &fact);
    }
    println!("\nWhat it may use");
    row("memory", &limit(&["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]), "");
    row("processors", &processors(), "");
    row("processes", &limit(&["/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"]), "");
    println!("\nWhat it may do");
    let status = read("/proc/self/status");
    row("capabilities", &capabilities(&status), "");
    row("system calls", &seccomp(&status), "");
    row("root", &root(), "");
    println!();
}

fn row(name: &str, value: &str, fact: &str) {
    println!("{}", format!("  {name:<15}{value:<14}{fact}").trim_end());
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn namespace(kind: &str, host: &BTreeMap<String, String>) -> String {
    let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
    match host.get(kind) {
        None => "unknown".to_owned(),
        Some(id) if own.to_string_lossy().contains(id.as_str()) => "the host's".to_owned(),
        Some(_) => "its own".to_owned(),
    }
}

fn processes() -> String {
    let count = names("/proc").filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).count();
    format!("this is process {} of {count}", std::process::id())
}

fn mounts() -> String {
    let text = read("/proc/self/mountinfo");
    let kind = text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (before.split(' ').nth(4)? == "/").then(|| after.split(' ').next().unwrap_or_default().to_owned())
    });
    format!("{} mounts, the root is {}", text.lines().count(), kind.unwrap_or_default())
}

fn network() -> String {
    let mut devices: Vec<String> = names("/sys/class/net").collect();
    devices.sort();
    if devices.is_empty() { "no devices".to_owned() } else { devices.join(" ") }
}

fn names(folder: &str) -> impl Iterator<Item = String> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn user() -> String {
    let status = read("/proc/self/status");
    let id = |key: &str| field(&status, key).split_whitespace().next().unwrap_or_default().to_owned();
    format!("user {}, group {}", id("Uid:"), id("Gid:"))
}

fn field(status: &str, key: &str) -> String {
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
}

fn limit(paths: &[&str]) -> String {
    let text = paths.iter().map(|path| read(path)).find(|text| !text.is_empty()).unwrap_or_default();
    match text.parse::<u64>() {
        // Without a limit, cgroup v1 gives the largest number of whole pages.
        Ok(number) if number < 1 << 60 && number >= 1 << 20 => format!("{:.1} MiB", number as f64 / 1_048_576.0),
        Ok(number) if number < 1 << 60 => number.to_string(),
        _ => "no limit".to_owned(),
    }
}

fn processors() -> String {
    let two = read("/sys/fs/cgroup/cpu.max");
    let (quota, period) = match two.split_once(' ') {
        Some((quota, period)) => (quota.to_owned(), period.to_owned()),
        None => (read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
    };
    match (quota.parse::<f64>(), period.parse::<f64>()) {
        (Ok(quota), Ok(period)) if quota > 0.0 && period > 0.0 => format!("{:.2}", quota / period),
        _ => "no limit".to_owned(),
    }
}

fn capabilities(status: &str) -> String {
    let bits = |key: &str| u64::from_str_radix(&field(status, key), 16).unwrap_or(0).count_ones();
    let last: u32 = read("/proc/sys/kernel/cap_last_cap").parse().unwrap_or(40);
    format!("{} of {}, {} inherited", bits("CapEff:"), last + 1, bits("CapInh:"))
}

fn seccomp(status: &str) -> String {
    match field(status, "Seccomp:").as_str() {
        "2" => "filtered".to_owned(),
        "0" => "not filtered".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn root() -> String {
    let mut entries: Vec<String> = names("/").collect();
    entries.sort();
    let writable = fs::write("/.hello", "").is_ok();
    let _ = fs::remove_file("/.hello");
    format!("{}: {}", if writable { "writable" } else { "read-only" }, entries.join(" "))
}
