//! The systemd cgroup driver.

use vm::Guest;

use crate::bed;

#[test]
fn a_container_is_a_scope_with_its_limits_and_the_scope_goes_with_it() {
    let Ok(guest) = Guest::shared() else { return };
    let bundle = bed::bundle(guest, "scoped", "\"sleep\",\"1000\"");
    guest.ok(&format!(
        "cd {bundle}; sed -i 's/\"linux\": *{{/\"linux\": {{\"cgroupsPath\": \"made-up.slice:berth:scoped\",/' config.json
         sed -i 's/\"resources\": *{{/\"resources\": {{\"memory\": {{\"limit\": 67108864}}, \"pids\": {{\"limit\": 77}},/' config.json
         berth oci --systemd-cgroup run -d scoped"
    ));
    let shown =
        guest.ok("systemctl show berth-scoped.scope -p Slice,Delegate,ActiveState,MemoryMax,TasksMax | sort");
    assert_eq!(
        shown,
        "ActiveState=active\nDelegate=yes\nMemoryMax=67108864\nSlice=made-up.slice\nTasksMax=77\n"
    );
    let files = "cd /sys/fs/cgroup/made.slice/made-up.slice/berth-scoped.scope; cat memory.max pids.max; wc -l <cgroup.procs";
    assert_eq!(guest.ok(files), "67108864\n77\n1\n");
    guest.ok("berth oci --systemd-cgroup delete -f scoped");
    assert_eq!(guest.ok("systemctl show berth-scoped.scope -p ActiveState"), "ActiveState=inactive\n");
    guest.ok("test ! -e /sys/fs/cgroup/made.slice/made-up.slice/berth-scoped.scope");
}

#[test]
fn a_container_that_cannot_be_made_says_why_and_not_that_systemd_is_slow() {
    let Ok(guest) = Guest::shared() else { return };
    let bundle = bed::bundle(guest, "rootless", "\"true\"");
    let said = guest.fails(&format!(
        "cd {bundle}; rm -r rootfs/proc; ln -s /tmp rootfs/proc; berth oci --systemd-cgroup run -d rootless"
    ));
    assert!(said.contains("ordinary directory") && !said.contains("in time"), "{said}");
}
