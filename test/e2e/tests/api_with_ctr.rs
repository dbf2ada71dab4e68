//! The API as `ctr` 2.3 sees it: each command goes to berthd and to a containerd 2.3 beside it, and what they print
//! has to be the same but for what cannot be.

use e2e::{Both, ctr};
use testkit::image::{self, Image, Layer};
use testkit::{Daemon, Invocation, Kind, need, programs, wait};

/// A digest that nothing has.
const NOTHING: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The digest of `hello` and a newline.
const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
const IMAGE: &str = "berth.test/busybox:1";

/// An event without the part of a key that ctr makes up.
fn without_choice(event: &str) -> String {
    match event.split_once("extract-") {
        Some((before, after)) => {
            format!("{before}EXTRACT {}", after.split_once(' ').map_or("", |(_, rest)| rest))
        }
        None => event.to_owned(),
    }
}

#[test]
fn versions_have_the_form_that_clients_read() {
    let Some(both) = Both::start() else { return };
    let version = ctr(&both.berth, "version").ok();
    let server = version.split("Server:").nth(1).expect(&version);
    let words: Vec<&str> = server.split_whitespace().collect();
    assert!(words[1].starts_with("2.3.4"), "{version}");
    assert_eq!(words[4], "UUID:");
    both.finish();
}

#[test]
fn namespaces() {
    let Some(both) = Both::start() else { return };
    both.same("namespaces ls");
    both.same("namespaces create foo a=b");
    both.same("namespaces create foo");
    both.same_class("namespaces create a/b");
    both.same("namespaces label foo a= c=d");
    both.same("namespaces ls");
    both.same("namespaces rm absent");
    // The one who reads makes nothing; the one who writes makes the namespace.
    both.same("containers ls");
    both.same("namespaces ls");
    both.same_with("content ingest one", "hello\n");
    both.same("namespaces ls");
    let in_use = |daemon: &Daemon| ctr(daemon, &format!("namespaces rm {}", daemon.tag())).fails();
    assert!(in_use(&both.berth).contains("namespace"), "{}", in_use(&both.berth));
    in_use(&both.containerd);
    both.same("namespaces rm foo");
    both.same("namespaces ls");
    both.finish();
}

#[test]
fn content() {
    let Some(both) = Both::start() else { return };
    both.same("content ls");
    both.same(&format!("content get {NOTHING}"));
    both.same(&format!("content rm {NOTHING}"));
    both.same_with("content ingest one", "hello\n");
    both.same_with("content ingest one", "hello\n");
    both.same("content ls");
    both.same(&format!("content get {HELLO}"));
    both.same(&format!("content label {HELLO} a=b c=d"));
    both.same(&format!("content label {HELLO} a= c=e"));
    both.same("content ls");
    both.same("content ls labels.c==e");
    both.same("content ls labels.c==f");
    both.same_class("content ls labels.c=f");
    both.same_with(&format!("content ingest --expected-digest {HELLO} two"), "hello\n");
    both.same_with(&format!("content ingest --expected-digest {NOTHING} three"), "bye\n");
    both.same_with("content ingest --expected-size 3 four", "later\n");
    both.same_set("content active");
    both.same(&format!("content rm {HELLO}"));
    both.same("content ls");
    both.same_with("content ingest five", "");
    both.finish();
}

#[test]
fn leases() {
    let Some(both) = Both::start() else { return };
    both.same("leases ls");
    both.same("leases create --id l1 a=b");
    both.same("leases create --id l1");
    both.same("leases create --id l2");
    both.same("leases ls");
    both.same("leases ls id==l1");
    both.same("leases ls -q labels.a==b");
    both.same("leases rm --sync l1");
    both.same("leases rm l1");
    both.same("leases ls -q");
    for daemon in [&both.containerd, &both.berth] {
        let made = ctr(daemon, "leases create").ok();
        assert!(made.trim().len() > 8, "{made}");
    }
    both.finish();
}

#[test]
fn snapshots() {
    let Some(both) = Both::start() else { return };
    for snapshotter in ["overlayfs", "native"] {
        let same = |line: &str| both.same(&format!("snapshots --snapshotter {snapshotter} {line}"));
        let class = |line: &str| both.same_class(&format!("snapshots --snapshotter {snapshotter} {line}"));
        same("ls");
        same("prepare k1");
        class("prepare k1");
        same("ls");
        same("usage k1");
        same("commit n1 k1");
        same("info n1");
        same("prepare k2 n1");
        same("prepare k3 n1");
        same("ls");
        same("tree");
        class("rm n1");
        class("info absent");
        class("prepare k4 absent");
        class("commit n1 k2");
        class("commit n2 absent");
        class("mounts /x absent");
        same("label k2 a=b");
        same("ls");
        same("rm k2");
        same("rm k3");
        same("rm n1");
        class("rm n1");
        same("ls");
    }
    both.same_class("snapshots --snapshotter absent ls");
    both.finish();
}

#[test]
fn images() {
    let Some(both) = Both::start() else { return };
    let Ok(busybox) = image::busybox() else { return };
    both.same("images ls");
    both.import(&busybox);
    both.same("images ls");
    both.same("images ls -q name==absent");
    both.same("images check");
    both.same("content ls");
    both.same("snapshots ls");
    both.same(&format!("images usage {IMAGE}"));
    both.same(&format!("images label {IMAGE} x=y"));
    both.same(&format!("images label {IMAGE} x="));
    both.same("images label absent x=y");
    both.same(&format!("images tag --local {IMAGE} berth.test/other:1"));
    both.same(&format!("images tag --local {IMAGE} berth.test/other:1"));
    both.same("images ls");
    for daemon in [&both.containerd, &both.berth] {
        let archive = daemon.scratch().path("exported.tar");
        ctr(daemon, "images export --local").arg(&archive).arg(IMAGE).ok();
    }
    let exported =
        |daemon: &Daemon| std::fs::read(daemon.scratch().path("exported.tar")).expect("it was exported");
    assert!(exported(&both.berth) == exported(&both.containerd), "the archives differ");
    both.same(&format!("images rm {IMAGE}"));
    both.same("images ls -q");
    both.same("images rm --sync berth.test/other:1");
    both.same("images rm absent");
    // What only the images held went with them.
    both.same("content ls");
    both.same("snapshots ls");
    both.finish();
}

#[test]
fn containers_and_tasks() {
    let Some(both) = Both::start() else { return };
    let Ok(busybox) = image::busybox() else { return };
    both.import(&busybox);
    both.same("containers info absent");
    both.same("tasks start absent");
    both.same(&format!("run --rm {IMAGE} once echo hi"));
    both.same(&format!("run --rm {IMAGE} fails false"));
    both.same(&format!("run -d {IMAGE} stays sleep 1000"));
    both.same(&format!("run -d {IMAGE} stays sleep 1000"));
    both.same("containers ls");
    both.same("containers ls id==stays,labels.absent");
    both.same("tasks ls");
    both.same("tasks ps stays");
    both.same("tasks exec --exec-id e1 stays id -u");
    both.same("tasks exec --exec-id e2 stays false");
    both.same("tasks pause stays");
    both.same("tasks ls");
    both.same("tasks resume stays");
    both.same("tasks rm stays");
    both.same("containers rm stays");
    both.same("containers label stays a=b");
    both.same("snapshots ls");
    both.same("tasks kill --signal 99 stays");
    both.same("tasks kill --signal 9 stays");
    for daemon in [&both.containerd, &both.berth] {
        wait::soon("the task's end", || ctr(daemon, "tasks ls").ok().contains("STOPPED"));
    }
    both.same("tasks rm stays");
    both.same("tasks rm stays");
    both.same("containers rm stays");
    both.same("containers rm stays");
    both.same("containers ls");
    both.finish();
}

#[test]
fn events_are_told_in_the_same_order_with_the_same_words() {
    let Some(both) = Both::start() else { return };
    let layer = Layer::new().file("a", b"a", 0o644);
    let image = Image::new("berth.test/small:1").layer(layer).cmd(&["/a"]);
    let told = [&both.containerd, &both.berth].map(|daemon| {
        let listening = ctr(daemon, "events").start();
        // A listener hears what comes after it; this one is heard when it is there.
        wait::soon("the listener", || {
            ctr(daemon, "leases create --id probe").outcome();
            ctr(daemon, "namespaces create heard").outcome();
            ctr(daemon, "namespaces rm heard").outcome();
            listening.stdout_so_far().contains("/namespaces/delete")
        });
        let archive = daemon.scratch().file("small.tar", image.oci_archive());
        ctr(daemon, "images import --local").arg(archive).ok();
        ctr(daemon, "images label berth.test/small:1 a=b").ok();
        ctr(daemon, "snapshots prepare k1").ok();
        ctr(daemon, "snapshots rm k1").ok();
        ctr(daemon, "images rm --sync berth.test/small:1").ok();
        ctr(daemon, "namespaces create last").ok();
        wait::soon("the last event", || listening.stdout_so_far().contains("\"last\""));
        listening.stdout_so_far()
    });
    let [wanted, found] = told.map(|text| {
        let lines = text.lines().filter(|line| !line.contains("heard")).map(|line| {
            // DATE TIME +0000 UTC NAMESPACE TOPIC JSON
            let words: Vec<&str> = line.splitn(7, ' ').collect();
            let own = [both.berth.tag(), both.containerd.tag()];
            own.iter().fold(without_choice(&words[4..].join(" ")), |line, tag| line.replace(tag, "TAG"))
        });
        // Content is imported by several writers at once, and removed by a sweep: each kind has its order.
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    });
    assert_eq!(found, wanted, "berthd on the left, containerd on the right");
    both.finish();
}

#[test]
fn plugins_have_containerds_names() {
    let Some(both) = Both::start() else { return };
    let list = |daemon: &Daemon| -> Vec<(String, String)> {
        let text = ctr(daemon, "plugins ls").ok();
        let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.map(|row| (format!("{}.{}", row[0], row[1]), row[row.len() - 1].to_owned())).collect()
    };
    let known = list(&both.containerd);
    for (uri, state) in list(&both.berth) {
        // The test's config switches these off in containerd, which then does not list them.
        if state == "skip" {
            continue;
        }
        assert!(known.iter().any(|(known, _)| *known == uri), "containerd knows no {uri}");
        assert_eq!(state, "ok", "{uri}");
    }
    for line in ["plugins ls -d type==io.containerd.content.v1", "plugins ls -d id==native"] {
        let text = ctr(&both.berth, line).ok();
        let root = both.berth.root().display().to_string();
        assert!(text.contains(&root), "{text}");
    }
    both.finish();
}

#[test]
fn the_sandbox_store_answers_as_containerds() {
    let Some(both) = Both::start() else { return };
    both.same("sandboxes ls");
    both.same_class("sandboxes info nothing");
    both.finish();
}

#[test]
fn a_sandbox_of_a_shim_that_hosts_none_fails_and_leaves_no_shim() {
    let Some(both) = Both::start() else { return };
    let pod = both.berth.scratch().file("pod.json", "{}");
    let run = ctr(&both.berth, "sandboxes run").arg(pod).arg("pod").fails();
    assert!(run.contains("not implemented"), "{run}");
    both.finish();
}

#[test]
fn a_daemon_is_replaced_only_when_it_is_gone() {
    let Ok(mut berth) = Daemon::start(Kind::Berth) else { return };
    let program = programs::own("berthd").expect("it runs");
    let second = |root: &str, state: &str| {
        Invocation::new(&program)
            .arg("--config")
            .arg(berth.config())
            .arg("--address")
            .arg(berth.address())
            .arg("--root")
            .arg(berth.scratch().path(root))
            .arg("--state")
            .arg(berth.scratch().path(state))
            .fails()
    };
    let pid = berth.pid().expect("it runs").to_string();
    let complaint = second("root", "other-state");
    assert!(complaint.contains("already in use by pid") && complaint.contains(&pid), "{complaint}");
    let complaint = second("other-root", "state");
    assert!(complaint.contains("already in use by pid"), "{complaint}");
    let complaint = second("other-root", "other-state");
    assert!(complaint.contains("is in use: a daemon answers there"), "{complaint}");
    berth.kill();
    assert!(berth.address().exists(), "a killed daemon leaves its socket");
    berth.restart();
    berth.stop();
    assert!(!berth.address().exists(), "a daemon that was told to stop takes its socket with it");
    berth.finish();
}

#[test]
fn a_publisher_of_an_old_shim_is_heard() {
    let Some(both) = Both::start() else { return };
    let Ok(program) = programs::own("berthd").ok_or(()).or_else(|()| need::program("berthd")) else { return };
    // google.protobuf.Any with the type containerd.events.TaskOOM and its container_id "c".
    let mut any = vec![0x0a, 25];
    any.extend(b"containerd.events.TaskOOM");
    any.extend([0x12, 3, 0x0a, 1, b'c']);
    for daemon in [&both.containerd, &both.berth] {
        let listening = ctr(daemon, "events").start();
        wait::soon("the event", || {
            Invocation::new(&program)
                .arg("--address")
                .arg(daemon.address())
                .args(["publish", "--topic", "/tasks/oom", "--namespace", daemon.tag()])
                .input(any.clone())
                .ok();
            listening.stdout_so_far().contains("/tasks/oom {\"container_id\":\"c\"}")
        });
    }
    both.finish();
}
