//! Debian's dockerd with berthd in the place of its containerd.

use std::time::SystemTime;

use e2e::Docker;
use testkit::{Daemon, Kind, image, wait};

const IMAGE: &str = "berth.test/busybox:1";

/// A daemon and a dockerd on it, with the image loaded.
fn start(kind: Kind) -> Option<(Daemon, Docker)> {
    let image = image::busybox().ok()?;
    let daemon = Daemon::start(kind).ok()?;
    let docker = Docker::start(&daemon).ok()?;
    let archive = daemon.scratch().file("busybox.tar", image.docker_archive());
    let loaded = docker.run("load -q -i").arg(archive).ok();
    assert!(loaded.contains(IMAGE), "{loaded}");
    Some((daemon, docker))
}

#[test]
fn dockerd_runs_containers_without_and_with_the_hosts_network() {
    let Some((daemon, docker)) = start(Kind::Berth) else { return };
    assert_eq!(docker.run(&format!("run --rm --network none {IMAGE} echo hello")).ok(), "hello\n");
    let devices = docker.run(&format!("run --rm --network none {IMAGE} ls /sys/class/net")).ok();
    assert_eq!(devices.trim(), "lo");
    let host = docker.run(&format!("run --rm --network host {IMAGE} readlink /proc/self/ns/net")).ok();
    let ours = std::fs::read_link("/proc/self/ns/net").expect("every process is in a network namespace");
    assert_eq!(host.trim(), ours.to_string_lossy());
    let outcome = docker.run(&format!("run --rm --network none {IMAGE} sh -c")).arg("exit 42").outcome();
    assert_eq!(outcome.code(), 42, "{outcome}");
    let outcome = docker.run(&format!("run --rm --network none {IMAGE} /no/such/command")).outcome();
    assert_eq!(outcome.code(), 127, "{outcome}");
    drop(docker);
    daemon.finish();
}

#[test]
fn dockerd_manages_a_running_container() {
    let Some((daemon, docker)) = start(Kind::Berth) else { return };
    let script = "trap 'exit 7' TERM; echo started; while :; do sleep 0.1; done";
    docker.run(&format!("run -d --name one --network none --memory 64m {IMAGE} sh -c")).arg(script).ok();
    wait::soon("its first line", || docker.run("logs one").ok() == "started\n");
    assert_eq!(docker.run("exec -i one cat").input("binary\0\u{ff}\n").ok(), "binary\0\u{ff}\n");
    assert_eq!(docker.run("exec one sh -c").arg("exit 9").outcome().code(), 9);
    let stats = docker.run("stats --no-stream --format {{.PIDs}};{{.MemUsage}} one").ok();
    assert!(stats.contains("/ 64MiB") && !stats.starts_with('0'), "{stats}");
    docker.run("pause one").ok();
    assert_eq!(docker.run("inspect -f {{.State.Status}} one").ok().trim(), "paused");
    docker.run("unpause one").ok();
    let top = docker.run("top one").ok();
    assert!(top.contains("sh -c"), "{top}");
    docker.run("update --memory 128m --memory-swap 128m one").ok();
    let stats = docker.run("stats --no-stream --format {{.MemUsage}} one").ok();
    assert!(stats.contains("/ 128MiB"), "{stats}");
    docker.run("kill --signal TERM one").ok();
    assert_eq!(docker.run("wait one").ok().trim(), "7");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_secs();
    let line = format!("events --since {} --until {} --filter container=one", now - 300, now + 1);
    let events = docker.run(&line).args(["--format", "{{.Action}}"]).ok();
    let events: Vec<&str> = events.lines().filter(|action| !action.starts_with("exec")).collect();
    assert_eq!(events, ["create", "start", "pause", "unpause", "top", "update", "kill", "die"]);
    docker.run("rm one").ok();
    drop(docker);
    daemon.finish();
}

#[test]
fn containers_outlive_a_killed_daemon_beneath_dockerd() {
    let Some((mut daemon, docker)) = start(Kind::Berth) else { return };
    docker.run(&format!("run -d --name stays --network none {IMAGE} sleep 1000")).ok();
    docker.run(&format!("run -d --name ends --network none {IMAGE} sh -c")).arg("read line; exit 3").ok();
    docker.run(&format!("run -d -i --name waits --network none {IMAGE} sh -c")).arg("sleep 2; exit 5").ok();
    let pid = docker.run("inspect -f {{.State.Pid}} stays").ok();
    daemon.kill();
    daemon.restart();
    wait::soon("dockerd to find the daemon again", || {
        docker.run("exec stays true").outcome().status.success()
    });
    assert_eq!(docker.run("inspect -f {{.State.Pid}} stays").ok(), pid, "the same process");
    assert_eq!(docker.run("wait waits").ok().trim(), "5");
    docker.run("rm -f stays ends waits").ok();
    drop(docker);
    daemon.finish();
}
