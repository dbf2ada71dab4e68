//! Containers of the daemon on cgroup v2 alone, and the daemon as a service of systemd.

use vm::Guest;

use crate::bed::Daemon;

#[test]
fn limits_are_in_the_files_of_cgroup_v2() {
    let Ok(guest) = Guest::shared() else { return };
    let out = Daemon::start(guest).ok("$run --rm --memory 64m --memory-swap 96m --cpus 0.5 --cpu-shares 1024 \
         --pids-limit 77 $root sh -c 'cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max cpu.weight pids.max'");
    assert_eq!(out, "67108864\n33554432\n50000 100000\n100\n77\n");
}

#[test]
fn who_runs_out_of_memory_is_killed_and_told_so() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    daemon.ok("$run -d --name greedy --memory 16m --memory-swap 16m $root sh -c 'cat /dev/zero | tail'");
    assert_eq!(daemon.ok("berth wait greedy"), "137\n");
    assert_eq!(
        daemon.ok("berth inspect -f '{{.State.OOMKilled}}' greedy; berth rm greedy"),
        "true\ngreedy\n"
    );
}

#[test]
fn a_device_is_opened_only_when_a_rule_allows_it() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let script = "$run --rm $root sh -c 'mknod /tmp/mem c 1 1 && head -c 0 /tmp/mem'";
    assert!(daemon.fails(script).contains("not permitted"));
    assert_eq!(daemon.ok("$run --rm $root sh -c 'head -c 3 /dev/zero | grep -c .; echo fine'"), "1\nfine\n");
    daemon.ok("$run --rm --device /dev/nvme1n1 $root sh -c 'head -c 512 /dev/nvme1n1 >/dev/null'");
}

#[test]
fn a_container_freezes_thaws_and_tells_its_figures() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    daemon.ok("$run -d --name sleeper --memory 64m $root sleep 1000; berth pause sleeper");
    let events = "cat /sys/fs/cgroup/default/$(berth inspect -f '{{.Id}}' sleeper)/cgroup.events";
    assert!(daemon.ok(events).contains("frozen 1"));
    daemon.ok("berth unpause sleeper");
    assert!(daemon.ok(events).contains("frozen 0"));
    let stats = daemon.ok("berth stats --no-stream --format '{{.MemUsage}}' sleeper; berth rm -f sleeper");
    assert!(stats.contains("/ 64MiB"), "{stats}");
}

#[test]
fn a_profile_of_apparmor_that_is_not_there_is_an_error_and_one_that_is_confines() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let said = daemon.fails("$run --rm --security-opt apparmor=nosuch $root echo hi");
    assert!(said.contains("label") || said.contains("AppArmor"), "{said}");
    daemon.ok("echo 'profile berth-tight flags=(attach_disconnected,mediate_deleted) { file, signal, deny /tmp/** w, }' \
         | apparmor_parser -r -K");
    let script = "$run --rm --security-opt apparmor=berth-tight $root \
         sh -c 'cat /proc/self/attr/current; echo x 2>/dev/null >/tmp/x || echo refused'";
    assert_eq!(daemon.ok(script), "berth-tight (enforce)\nrefused\n");
}

#[test]
fn containers_survive_the_restart_of_the_service() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    daemon.ok("$run -d --name lasting $root sleep 1000");
    let pid = "berth inspect -f '{{.State.Pid}}' lasting";
    let before = daemon.ok(pid);
    daemon.ok("systemctl restart berthd");
    assert_eq!(daemon.ok(pid), before);
    assert_eq!(daemon.ok("berth exec lasting echo still; berth rm -f lasting"), "still\nlasting\n");
    assert_eq!(
        daemon.ok("systemctl show berthd -p Type,ActiveState | sort"),
        "ActiveState=active\nType=notify\n"
    );
}
