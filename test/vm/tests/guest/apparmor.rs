//not berth's own profile of AppArmor.

use vm::Guest;

use crate::bed::Daemon;

/// Forgets the profile, as a reboot does.
const FORGET: &str = "echo 'profile berth-default { }' | apparmor_parser --remove 2>/dev/null || true\n";
const CURRENT: &str = "cat /proc/self/attr/current";

#[test]
fn the_default_profile_is_loaded_when_it_is_needed_and_confines() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let loaded = "grep -c '^berth-default (enforce)' /sys/kernel/security/apparmor/profiles";
    let out = daemon.ok(&format!("{FORGET} {loaded} || true; $run --rm $root {CURRENT}; {loaded}"));
    assert_eq!(out, "0\nberth-default (enforce)\n1\n");
    let info = daemon.ok("berth info -f '{{json .SecurityOptions}}'");
    assert!(info.contains("apparmor,profile=berth-default"), "{info}");

    // With rights that the profile takes back.
    let script = "busybox mount -t tmpfs none /tmp 2>/dev/null && echo mounted; \
         echo 1 2>/dev/null >/proc/sys/vm/drop_caches && echo written; head -c 1 /proc/kcore >/dev/null 2>&1 && echo read; \
         echo x >/tmp/x && cat /tmp/x; (sleep 10 & kill $!; wait); echo fine >/proc/self/comm; ls /sys >/dev/null; echo end";
    let start =
        "$run --rm --cap-add ALL --security-opt seccomp=unconfined --security-opt systempaths=unconfined";
    let out = daemon.ok(&format!("{start} $root sh -c '{script}'"));
    assert_eq!(out, "x\nend\n");
    let out = daemon.ok(&format!("{start} --security-opt apparmor=unconfined $root sh -c '{script}'"));
    assert_eq!(
        out,
        "mounted\nwritten\nx\nend\n"
            .replace("written\n", if out.contains("read") { "written\nread\n" } else { "written\n" })
    );
}

#[test]
fn a_container_has_the_profile_that_it_asks_for() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let current = |options: &str| daemon.ok(&format!("$run --rm {options} $root {CURRENT}"));
    assert_eq!(current("--security-opt apparmor=unconfined"), "unconfined\n");
    assert_eq!(current("--privileged"), "unconfined\n");
    assert_eq!(current("--privileged --security-opt apparmor=berth-default"), "berth-default (enforce)\n");
    let said = daemon.fails("$run --rm --security-opt apparmor=nosuch $root echo hi");
    assert!(said.contains("nosuch") && said.contains("not loaded"), "{said}");
}

#[test]
fn a_container_that_is_started_again_after_a_reboot_has_its_profile_and_so_has_what_joins_it() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let out = daemon.ok(&format!(
        "$run -d --name again $root sleep 1000 >/dev/null; berth stop -t 0 again; {FORGET}
         berth start again; berth exec again {CURRENT}; berth inspect -f '{{{{.AppArmorProfile}}}}' again; berth rm -f again"
    ));
    assert_eq!(out, "again\nagain\nberth-default (enforce)\nberth-default\nagain\n");
}

#[test]
fn another_low_level_runtime_finds_the_profile_loaded() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let out = daemon.ok(&format!("{FORGET} $run --rm --runtime runc $root {CURRENT}"));
    assert_eq!(out, "berth-default (enforce)\n");
}
