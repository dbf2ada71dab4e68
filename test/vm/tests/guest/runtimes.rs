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
