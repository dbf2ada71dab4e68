//! Other low-level runtimes through our shim, by its usual options.

use vm::Guest;

use crate::bed::Daemon;

/// Debian's crun does not run on the mixed hierarchies of the host.
#[test]
fn crun_by_its_name_runs_executes_freezes_and_ends() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let out = daemon.ok("ctr=/berth/peers/debian-12/usr/bin/ctr; at='-a /run/berth/berth.sock -n crun'
         $ctr $at run -d --runc-binary crun --rootfs $root crunned /bin/sleep 1000
         ls /run/containerd/runc/crun/; $ctr $at task exec --exec-id e crunned /bin/echo inside
         $ctr $at task pause crunned; $ctr $at task ls | grep -c PAUSED; $ctr $at task resume crunned
         $ctr $at task kill -s KILL crunned; until $ctr $at task ls | grep -q STOPPED; do sleep 0.1; done
         $ctr $at task rm crunned 2>/dev/null || true; $ctr $at container rm crunned; ls /run/containerd/runc/crun/ | wc -l");
    assert_eq!(out, "crunned\ninside\n1\n0\n");
}

/// `SystemdCgroup` with the three low-level runtimes: the container is a scope of systemd's, with its limits, and both
/// go together.
#[test]
fn the_systemd_driver_is_used_through_daemon_and_shim_by_every_runtime() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    for runtime in ["", "--runc-binary crun", "--runc-binary runc"] {
        let out = daemon.ok(&format!(
            "ctr=/berth/peers/debian-12/usr/bin/ctr; at='-a /run/berth/berth.sock -n scopes'
             $ctr $at run -d {runtime} --runc-systemd-cgroup --cgroup berth-test.slice:berth:scoped2 \
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
        let (limit, bytes) =
            if runtime.ends_with("crun") { ("infinity", "max") } else { ("67108864", "67108864") };
        let limit = format!("MemoryMax={limit}");
        let wanted = ["ActiveState=active", &limit, "Slice=berth-test.slice", bytes, "inside"];
        assert_eq!(shown, wanted, "{runtime}: {out}");
        assert!(lines.next().is_some_and(|count| count != "0"), "{runtime}: {out}");
    }
}
