//! Checkpoint and restore through CRIU, which works on the guest's kernel.

use vm::Guest;

use crate::bed::{self, Daemon};

/// A program that counts, in memory and in a file of the container's own /dev.
const COUNT: &str = r#""sh","-c","i=0; while :; do i=$((i+1)); echo $i >\/dev\/count; sleep 0.1; done""#;
/// Waits until the file `$1` of container `$2` holds more than `$3`.
const BEYOND: &str = "beyond() { for try in $(seq 300); do n=$(berth oci exec $2 cat $1); test \"$n\" -gt $3 && return; \
     sleep 0.1; done; echo \"$2 stays at $n\" >&2; exit 1; }\n";

/// A bundle whose container counts and runs.
fn counting<'a>(guest: &'a Guest, name: &str) -> (&'a Guest, String) {
    let bundle = bed::bundle(guest, name, COUNT);
    guest.ok(&format!("{BEYOND} cd {bundle}; detached run -d {name}; beyond /dev/count {name} 3"));
    (guest, bundle)
}

/// Changes a bundle's configuration, `c`, with statements of Python, which comes with CRIU.
fn change(guest: &Guest, bundle: &str, statements: &str) {
    guest.ok(&format!(
        "cd {bundle}; python3 -c 'import json; c = json.load(open(\"config.json\")); {statements}; \
         json.dump(c, open(\"config.json\", \"w\"))'"
    ));
}

/// The statement that puts a folder of the bundle into the container, at /data.
fn with_data(source: &str) -> String {
    format!(
        "c[\"mounts\"].append({{\"destination\": \"/data\", \"type\": \"bind\", \"source\": \"{source}\", \
         \"options\": [\"bind\", \"ro\"]}})"
    )
}

#[test]
fn a_container_comes_back_where_it_was() {
    let Ok(guest) = Guest::shared() else { return };
    let (guest, bundle) = counting(guest, "counted");
    guest.ok(&format!(
        "{BEYOND} cd {bundle}
         berth oci checkpoint --image-path saved --work-path work counted
         not berth oci state counted 2>/dev/null; test -s work/dump.log; test -s saved/inventory.img
         test ! -e /sys/fs/cgroup/counted
         detached restore -d --image-path saved --work-path work counted
         n=$(berth oci exec counted cat /dev/count); test \"$n\" -gt 3
         beyond /dev/count counted $n
         berth oci pause counted; berth oci state counted | grep -q paused; berth oci resume counted"
    ));
    let status = "grep -E 'CapInh|CapBnd|NoNewPrivs|Seccomp:' /proc/$(berth oci state counted | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')/status";
    let text = guest.ok(status);
    assert!(text.contains("CapInh:\t0000000000000000") && text.contains("NoNewPrivs:\t1"), "{text}");
    guest.ok(
        "berth oci delete -f counted; not grep -q counted /proc/mounts; test ! -e /run/berth/oci/counted",
    );
}

#[test]
fn a_container_may_go_on_while_it_is_saved_and_memory_may_be_saved_before() {
    let Ok(guest) = Guest::shared() else { return };
    let (guest, bundle) = counting(guest, "going");
    guest.ok(&format!(
        "{BEYOND} cd {bundle}
         berth oci checkpoint --pre-dump --image-path first going
         n=$(berth oci exec going cat /dev/count); beyond /dev/count going $n
         berth oci checkpoint --leave-running --parent-path ../first --image-path second going
         n=$(berth oci exec going cat /dev/count); beyond /dev/count going $n
         berth oci pause going; berth oci checkpoint --leave-running --image-path third going
         berth oci state going | grep -q paused; berth oci delete -f going
         detached restore -d --image-path second going
         n=$(berth oci exec going cat /dev/count); beyond /dev/count going $n; berth oci delete -f going"
    ));
}

#[test]
fn what_confines_comes_from_the_configuration_and_not_from_the_checkpoint() {
    let Ok(guest) = Guest::shared() else { return };
    let (guest, bundle) = counting(guest, "trusted");
    guest.ok(&format!(
        "cd {bundle}; berth oci checkpoint --image-path saved trusted; cp config.json good.json"
    ));
    let refused = |statements: &str| {
        change(guest, &bundle, statements);
        let said =
            guest.fails(&format!("cd {bundle}; berth oci restore -d --image-path saved trusted </dev/null"));
        guest.ok(&format!(
            "cd {bundle}; cp good.json config.json; not berth oci state trusted 2>/dev/null
             test ! -e /run/berth/oci/trusted; test ! -e /sys/fs/cgroup/trusted; not pgrep -f {bundle}
             test -z \"$(find . -name '.criu.*' -o -name '.berth-*')\"; not grep -q {bundle} /proc/mounts"
        ));
        said
    };
    let fewer = refused(
        "sets = c[\"process\"][\"capabilities\"]; [sets[s].remove(\"CAP_KILL\") for s in sets if \"CAP_KILL\" in sets[s]]",
    );
    assert!(fewer.contains("CAP_KILL"), "{fewer}");
    let more = refused(&with_data("/etc"));
    assert!(more.contains("/data") && more.contains("does not"), "{more}");
    let without =
        refused("c[\"mounts\"] = [m for m in c[\"mounts\"] if m[\"destination\"] != \"/dev/mqueue\"]");
    assert!(without.contains("/dev/mqueue"), "{without}");
    // And the same files with the configuration that they were made with still run; or in a namespace that it names.
    guest.ok(&format!(
        "{BEYOND} cd {bundle}; detached restore -d --image-path saved trusted
         n=$(berth oci exec trusted cat /dev/count); beyond /dev/count trusted $n; berth oci delete -f trusted"
    ));
    change(
        guest,
        &bundle,
        "ns = c[\"linux\"][\"namespaces\"]; [n.update(path=\"/proc/1/ns/uts\") for n in ns if n[\"type\"] == \"uts\"]; \
         c.pop(\"hostname\", 0)",
    );
    guest.ok(&format!(
        "cd {bundle}; detached restore -d --image-path saved --pid-file pid trusted
         test $(readlink /proc/$(cat pid)/ns/uts) = $(readlink /proc/1/ns/uts); berth oci delete -f trusted"
    ));
}

#[test]
fn processes_without_the_filter_that_the_configuration_demands_do_not_come_back() {
    let Ok(guest) = Guest::shared() else { return };
    let bundle = bed::bundle(guest, "loose", COUNT);
    guest.ok(&format!("cp {bundle}/config.json {bundle}/strict.json"));
    change(guest, &bundle, "c[\"linux\"].pop(\"seccomp\"); c[\"process\"][\"noNewPrivileges\"] = False");
    guest.ok(&format!(
        "{BEYOND} cd {bundle}; detached run -d loose; beyond /dev/count loose 2
         berth oci checkpoint --image-path saved loose; cp config.json loose.json; cp strict.json config.json"
    ));
    let said = guest.fails(&format!("cd {bundle}; berth oci restore -d --image-path saved loose </dev/null"));
    assert!(said.contains("filter of system calls"), "{said}");
    // That it may gain privileges is no more in the files than that it may not: it is as the configuration says.
    change(guest, &bundle, "c[\"linux\"].pop(\"seccomp\")");
    let fixed = guest.ok(&format!(
        "cd {bundle}; detached restore -d --image-path saved loose
         cat /proc/$(berth oci state loose | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"pid\"])')/status
         berth oci delete -f loose"
    ));
    assert!(fixed.contains("NoNewPrivs:\t1"), "{fixed}");
}

#[test]
fn mounts_and_the_filter_are_the_live_ones() {
    let Ok(guest) = Guest::shared() else { return };
    let words = r#""sh","-c","while :; do cat \/data\/name >\/dev\/name; chmod 700 \/dev\/shm 2>\/dev\/null \&\& echo yes >\/dev\/may || echo no >\/dev\/may; sleep 0.1; done""#;
    let bundle = bed::bundle(guest, "live", words);
    guest.ok(&format!(
        "cd {bundle}; ln -s busybox rootfs/bin/chmod; mkdir one two; echo one >one/name; echo two >two/name
         cp config.json plain.json"
    ));
    let refusing = "c[\"linux\"][\"seccomp\"] = {\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"chmod\", \
                    \"fchmodat\"], \"action\": \"SCMP_ACT_ERRNO\"}]}";
    change(guest, &bundle, &with_data("one"));
    let becomes = |file: &str, wanted: &str| {
        format!(
            "for try in $(seq 300); do got=$(berth oci exec live cat /dev/{file}); test \"$got\" = {wanted} && break; \
             sleep 0.1; done; test \"$got\" = {wanted} || {{ echo \"{file} stays $got\" >&2; exit 1; }}\n"
        )
    };
    guest.ok(&format!(
        "cd {bundle}; detached run -d live\n{}{}
         berth oci checkpoint --image-path saved live; cp plain.json config.json",
        becomes("name", "one"),
        becomes("may", "yes")
    ));
    change(guest, &bundle, &format!("{}; {refusing}", with_data("two")));
    guest.ok(&format!(
        "cd {bundle}; detached restore -d --image-path saved live\n{}{}
         not berth oci exec live sh -c 'echo x 2>/dev/null >/data/name'; berth oci delete -f live",
        becomes("name", "two"),
        becomes("may", "no")
    ));
}

#[test]
fn a_container_of_the_daemon_is_saved_listed_and_started_from_there() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let out = daemon.ok(
        "$run -d --name saved $root sh -c 'i=0; while :; do i=$((i+1)); echo line $i; echo $i >/dev/count; sleep 0.1; done'
         beyond() { for try in $(seq 300); do n=$(berth exec saved cat /dev/count); test \"$n\" -gt $1 && return; sleep 0.1; done; exit 1; }
         beyond 3; berth checkpoint create --leave-running saved one; beyond $n
         berth checkpoint create saved two; berth wait saved >/dev/null; berth inspect -f '{{.State.Status}}' saved
         berth checkpoint ls saved; not berth checkpoint create saved three 2>/dev/null
         n=$(berth logs saved | tail -n 1 | cut -d' ' -f2)
         berth start --checkpoint two saved; beyond $n; berth inspect -f '{{.State.Status}}' saved
         berth logs saved | grep -c \"^line $((n+1))$\"
         berth checkpoint rm saved one; berth checkpoint ls saved; not berth start --checkpoint one saved
         berth rm -f saved"
    );
    let expected =
        "one\ntwo\nexited\nCHECKPOINT NAME\none\ntwo\nsaved\nrunning\n1\nCHECKPOINT NAME\ntwo\nsaved\n";
    let id = out.lines().next().unwrap_or_default();
    assert_eq!(out.strip_prefix(&format!("{id}\n")), Some(expected), "{out}");
}

#[test]
fn ctr_saves_a_container_with_its_image_and_restores_it() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let out = daemon.ok(
        "ctr='/berth/peers/debian-12/usr/bin/ctr -a /run/berth/berth.sock -n default'
         tar -C $root -c . | berth import - counted:1 >/dev/null; image=docker.io/library/counted:1
         $ctr run -d $image ctred /bin/sh -c 'i=0; while :; do i=$((i+1)); echo $i >/dev/count; sleep 0.1; done'
         beyond() { for try in $(seq 300); do n=$($ctr task exec --exec-id e$try$RANDOM ctred cat /dev/count); test \"$n\" -gt $1 && return; sleep 0.1; done; exit 1; }
         beyond 3; $ctr container checkpoint --task --image --rw ctred saved:1 >/dev/null
         $ctr task kill -s KILL ctred; until $ctr task ls | grep -q STOPPED; do sleep 0.1; done
         $ctr task rm ctred >/dev/null 2>&1; $ctr container rm ctred
         $ctr container restore --live --rw ctred saved:1; beyond $n; $ctr task ls | grep -c RUNNING
         $ctr task kill -s KILL ctred; until $ctr task ls | grep -q STOPPED; do sleep 0.1; done
         $ctr task rm ctred >/dev/null 2>&1; $ctr container rm ctred; $ctr image rm saved:1 >/dev/null; berth rmi counted:1 >/dev/null",
    );
    assert_eq!(out, "1\n");
}

#[test]
fn a_container_on_a_network_comes_back_with_the_address_that_it_is_given() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let out = daemon.ok(
        "berth run -d --name netted --rootfs $root sh -c 'i=0; while :; do i=$((i+1)); echo $i >/dev/count; sleep 0.1; done' >/dev/null
         beyond() { for try in $(seq 300); do n=$(berth exec netted cat /dev/count); test \"$n\" -gt $1 && return; sleep 0.1; done; exit 1; }
         beyond 2; berth checkpoint create netted one >/dev/null; berth wait netted >/dev/null
         berth start --checkpoint one netted; beyond $n
         address=$(berth inspect -f '{{.NetworkSettings.IPAddress}}' netted); test -n \"$address\"
         berth exec netted busybox ip -4 addr show dev eth0 | grep -c \"inet $address/\"
         berth rm -f netted",
    );
    assert_eq!(out, "netted\n1\nnetted\n");
}

#[test]
fn a_terminal_comes_back_with_its_container() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    daemon.ok(
        "$run -dt --name typed $root sh -c 'i=0; while :; do i=$((i+1)); echo $i >/dev/count; tty; sleep 0.1; done'
         beyond() { for try in $(seq 300); do n=$(berth exec typed cat /dev/count); test \"$n\" -gt $1 && return; sleep 0.1; done; exit 1; }
         beyond 2; berth checkpoint create typed one; berth wait typed; berth start --checkpoint one typed; beyond $n
         berth rm -f typed",
    );
}

#[test]
fn a_kubelet_gets_an_archive_of_a_container_that_goes_on() {
    let Ok(guest) = Guest::shared() else { return };
    let daemon = Daemon::start(guest);
    let out = daemon.ok(
        "crictl='/berth/peers/debian-12/usr/bin/crictl --timeout 120s -r unix:///run/berth/berth.sock -i unix:///run/berth/berth.sock'
         rm -rf /tmp/saved; mkdir -p /tmp/saved/x; cd /tmp/saved
         tar -C $root -c . | berth --namespace k8s.io import - saved:1 >/dev/null
         echo '{\"metadata\": {\"name\": \"pod\", \"namespace\": \"default\", \"uid\": \"u\"}, \"log_directory\": \"/tmp/saved\",
             \"linux\": {\"security_context\": {\"namespace_options\": {\"network\": 2}}}}' >pod.json
         echo '{\"metadata\": {\"name\": \"main\"}, \"image\": {\"image\": \"docker.io/library/saved:1\"}, \"log_path\": \"main.log\",
             \"command\": [\"sh\", \"-c\", \"i=0; while :; do i=$((i+1)); echo $i >/count; echo line $i; sleep 0.1; done\"],
             \"linux\": {\"security_context\": {\"namespace_options\": {\"network\": 2, \"pid\": 1}}}}' >main.json
         pod=$($crictl runp pod.json); id=$($crictl create --no-pull $pod main.json pod.json); $crictl start $id >/dev/null
         beyond() { for try in $(seq 300); do n=$($crictl exec $id cat /count); test \"$n\" -gt $1 && return; sleep 0.1; done; exit 1; }
         beyond 3; $crictl checkpoint --export /tmp/saved/saved.tar $id >/dev/null; beyond $n
         stat -c %a saved.tar; tar -C x -xf saved.tar; cd x
         test -s checkpoint/inventory.img; grep -c 'Dumping finished successfully' dump.log; grep -c 'line 3$' container.log
         test $(tar -xOf rootfs-diff.tar count) -gt 3
         python3 -c 'import json; c = json.load(open(\"config.dump\")); s = json.load(open(\"spec.dump\"))
print(c[\"rootfsImageName\"], s[\"process\"][\"args\"][0], json.load(open(\"status.dump\"))[\"metadata\"][\"name\"])'
         cd ..; not $crictl checkpoint --export relative.tar $id 2>/dev/null
         $crictl stop -t 0 $id >/dev/null; not $crictl checkpoint --export /tmp/saved/late.tar $id 2>/dev/null; test ! -e late.tar
         $crictl rmp -f $pod >/dev/null; berth --namespace k8s.io rmi saved:1 >/dev/null
         test -z \"$(berth --namespace k8s.io ps -aq)\"",
    );
    assert_eq!(out, "600\n1\n1\ndocker.io/library/saved:1 sh main\n");
}
