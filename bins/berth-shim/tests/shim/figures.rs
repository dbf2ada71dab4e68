//! What a shim costs: printed by `cargo test --release -p berth-shim --test shim figures -- --nocapture`.

use std::time::{Duration, Instant};

use testkit::wait;

use crate::pod::{Kind, Pod, Streams};

/// The bound that the design promises, in KiB.
const PRIVATE_DIRTY: u64 = 250;

/// A figure of `/proc/PID/smaps_rollup` in KiB.
fn rollup(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

fn tell(what: &str, pid: u32) {
    eprintln!(
        "{what}: private dirty {} KiB, clean {} KiB, resident {} KiB, threads {}",
        rollup(pid, "Private_Dirty"),
        rollup(pid, "Private_Clean"),
        rollup(pid, "Rss"),
        threads(pid),
    );
}

#[test]
fn a_shim_is_small_and_soon_there() {
    let Some(pod) = Pod::new(Kind::Native) else { return };
    let mut times: Vec<Duration> = Vec::new();
    for round in 0..20 {
        let bundle = pod.bundle(&format!("t{round}"), "true");
        let began = Instant::now();
        let task = pod.start(&format!("t{round}"), &bundle);
        times.push(began.elapsed());
        task.shutdown();
    }
    times.sort();
    eprintln!("exec to first answer: min {:?}, median {:?}", times[0], times[times.len() / 2]);
    let log = format!("berth-json://{}", pod.scratch.path("a-json.log").display());
    let streams = Streams { stdout: log.clone(), stderr: log, ..Streams::default() };
    let mut task = pod.launch("a", "echo hello; sleep 1000", &streams);
    let pid = task.shim;
    tell("with one container", pid);
    for round in 0..10 {
        let exec = format!("e{round}");
        task.exec(&exec, "true", &Streams::default()).unwrap();
        task.start(&exec).unwrap();
        task.wait(&exec);
        task.delete(&exec).unwrap();
    }
    wait::soon("the threads to end", || threads(pid) == 1);
    tell("after ten execs", pid);
    if std::env::var_os("BERTH_SMAPS").is_some() {
        eprintln!("{}", std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap());
    }
    // The promise is made for what is shipped; without optimisation the program is another.
    if !cfg!(debug_assertions) || std::env::var_os("BERTH_SHIM").is_some() {
        assert!(rollup(pid, "Private_Dirty") < PRIVATE_DIRTY);
    }
    task.kill("", 9, false).unwrap();
    task.wait("");
    task.finish();
}

#[test]
fn a_container_is_soon_there() {
    let Some(pod) = Pod::new(Kind::Native) else { return };
    let mut parts: [Vec<Duration>; 5] = Default::default();
    for round in 0..20 {
        let id = format!("a{round}");
        let bundle = pod.bundle(&id, "true");
        let mut began = Instant::now();
        let mut lap = |part: usize| {
            parts[part].push(began.elapsed());
            began = Instant::now();
        };
        let mut task = pod.start(&id, &bundle);
        lap(0);
        task.create(&pod, &Streams::default()).unwrap();
        lap(1);
        task.start("").unwrap();
        lap(2);
        task.wait("");
        lap(3);
        task.delete("").unwrap();
        lap(4);
        task.shutdown();
    }
    for (name, times) in ["shim", "create", "start", "wait", "delete"].iter().zip(&mut parts) {
        times.sort();
        eprintln!("{name}: min {:?}, median {:?}", times[0], times[times.len() / 2]);
    }
}
