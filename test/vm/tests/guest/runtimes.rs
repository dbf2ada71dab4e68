//! Other low-level runtimes through our shim, by its usual options.

use testkit::{need, programs};
use vm::Guest;

use crate::bed::Daemon;

/// What is asked for, by name or by path. (Debian's crun does not run on the mixed hierarchies of the host.)
const CRUN: &str = "crun";
const YOUKI: &str = "/berth/peers/debian-12/usr/bin/youki";

#[test]
fn crun_by_its_name_runs_executes_freezes_and_ends() {
    let Ok(guest) = Guest::shared() else { return };
    lives(&Daemon::start(guest), CRUN);
}

#[test]
#[ignore = "youki takes minutes to build: cargo xtask peers --peer youki; cargo test -p vm -- --ignored youki"]
fn youki_by_its_path_runs_executes_freezes_ends_and_is_a_scope() {
    let Ok(guest) = Guest::shared() else { return };
    if need::that(programs::find("youki").is_some(), "youki (cargo xtask peers --peer youki)").is_err() {
        return;
    }
    let daemon = Daemon::start(guest);
    lives(&daemon, YOUKI);
    is_scope(&daemon, YOUKI);
}

/// A container's life with that low-level runtime.
fn lives(daemon: &Daemon, binary: &str) {
    let out = daemon.ok(&format!(
        "ctr=/berth/peers/debian-12/usr/bin/ctr; at='-a /run/berth/berth.sock -n other'
             $ctr $at run -d --env PATH=/bin --runc-binary {binary} --rootfs $root other /bin/sleep 1000
             ls /run/containerd/runc/other/; $ctr $at task exec --exec-id e other /bin/echo inside
             $ctr $at task pause other; $ctr $at task ls | grep -c PAUSED; $ctr $at task resume other
             $ctr $at task kill -s KILL other; until $ctr $at task ls | grep -q STOPPED; do sleep 0.1; done
             $ctr $at task rm other 2>/dev/null || true; $ctr $at container rm other
             ls /run/containerd/runc/other/ | wc -l"
    ));
    assert_eq!(out, "other\ninside\n1\n0\n", "{binary}");
}

#[test]
fn the_systemd_driver_is_used_through_daemon_and_shim_by_every_runtime() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    for binary in ["", CRUN, "runc"] {
        is_scope(&daemon, binary);
    }
}

/// `SystemdCgroup` with that low-level runtime, or with ours: the container is a scope of systemd's, with its limits, and
/// both go together.
fn is_scope(daemon: &Daemon, binary: &str) {
    let runtime = if binary.is_empty() { String::new() } else { format!("--runc-binary {binary}") };
    let out = daemon.ok(&format!(
        "ctr=/berth/peers/debian-12/usr/bin/ctr; at='-a /run/berth/berth.sock -n scopes'
             $ctr $at run -d --env PATH=/bin {runtime} --runc-systemd-cgroup --cgroup berth-test.slice:berth:scoped2 \
                 --memory-limit 67108864 --rootfs $root scoped2 /bin/sleep 1000
             systemctl show berth-scoped2.scope -p Slice,ActiveState,MemoryMax | sort
             cat /sys/fs/cgroup/berth.slice/berth-test.slice/berth-scoped2.scope/memory.max
             $ctr $at task exec --exec-id e scoped2 /bin/echo inside
             $ctr $at task metrics scoped2 | grep -c memory
             $ctr $at task kill -s KILL scoped2; until $ctr $at task ls | grep -q STOPPED; do sleep 0.1; done
             $ctr $at task rm scoped2 >/dev/null 2>&1 || true; $ctr $at container rm scoped2
             until systemctl show berth-scoped2.scope -p ActiveState | grep -q inactive; do sleep 0.1; done
             test ! -e /sys/fs/cgroup/berth.slice/berth-test.slice/berth-scoped2.scope"
    ));
    let mut lines = out.lines();
    let shown: Vec<&str> = lines.by_ref().take(5).collect();
    // Debian's crun 1.8 leaves a scope without its limits, whoever runs it.
    let (limit, bytes) = if binary == CRUN { ("infinity", "max") } else { ("67108864", "67108864") };
    let limit = format!("MemoryMax={limit}");
    let wanted = ["ActiveState=active", &limit, "Slice=berth-test.slice", bytes, "inside"];
    assert_eq!(shown, wanted, "{binary}: {out}");
    assert!(lines.next().is_some_and(|count| count != "0"), "{binary}: {out}");
}
