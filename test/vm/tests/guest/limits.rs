//! Limits that the host of the tests has no controllers or devices for.

use vm::Guest;

use crate::bed::Daemon;

#[test]
fn huge_pages_are_limited() {
    let Ok(guest) = Guest::shared() else { return };
    let bundle = crate::bed::bundle(guest, "huge", "\"sleep\",\"1000\"");
    let limits = "\"hugepageLimits\": [{\"pageSize\": \"2MB\", \"limit\": 4194304}],";
    let out = guest.ok(&format!(
        "cd {bundle}; sed -i 's/\"resources\": *{{/&{limits}/; s/\"linux\": *{{/&\"cgroupsPath\": \"\\/huge\",/' config.json
         detached run -d huge; cat /sys/fs/cgroup/huge/hugetlb.2MB.max /sys/fs/cgroup/huge/hugetlb.2MB.rsvd.max
         berth oci delete -f huge"
    ));
    assert_eq!(out, "4194304\n4194304\n");
    let said = guest.fails(&format!(
        "cd {bundle}; sed -i 's/\"2MB\"/\"3MB\"/' config.json; berth oci run -d huge </dev/null"
    ));
    assert!(said.contains("3MB"), "{said}");
}

#[test]
fn disks_are_slowed_down_and_weighed() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let out = daemon.ok(
        "device=$(cat /sys/block/nvme1n1/dev)
         $run -d --name slow --device-read-bps /dev/nvme1n1:1mb --device-write-iops /dev/nvme1n1:77 --blkio-weight 300 \
             --device /dev/nvme1n1 $root sleep 1000 >/dev/null
         cd /sys/fs/cgroup/default/$(berth inspect -f '{{.Id}}' slow)
         grep \"^$device \" io.max | cut -d' ' -f2-; cat io.weight
         begun=$(date +%s%N); berth exec slow dd if=/dev/nvme1n1 of=/dev/null bs=64k count=48 skip=6000 2>/dev/null
         test $(( ($(date +%s%N) - begun) / 1000000 )) -gt 1500 && echo slow
         berth rm -f slow",
    );
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("rbps=1048576 wbps=max riops=max wiops=77"), "{out}");
    assert_eq!(lines.next(), Some("default 2930"), "{out}");
    assert_eq!(lines.next(), Some("slow"), "three megabytes at one a second: {out}");
}
