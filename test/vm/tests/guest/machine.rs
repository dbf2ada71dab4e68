//! The machine itself.

use vm::Guest;

#[test]
fn the_guest_has_systemd_and_cgroup_v2_alone_and_apparmor() {
    let Ok(guest) = Guest::shared() else { return };
    assert_eq!(guest.ok("cat /proc/1/comm"), "systemd\n");
    assert_eq!(guest.ok("stat -f -c %T /sys/fs/cgroup"), "cgroup2fs\n");
    assert_eq!(guest.ok("cat /sys/module/apparmor/parameters/enabled"), "Y\n");
}

#[test]
fn an_answer_has_both_streams_and_the_code() {
    let Ok(guest) = Guest::shared() else { return };
    let answer = guest.run("echo a; echo b >&2; exit 7");
    assert_eq!((answer.code, answer.stdout.as_str(), answer.stderr.as_str()), (7, "a\n", "b\n"));
}
