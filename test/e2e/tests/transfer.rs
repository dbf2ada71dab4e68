//! The transfer service as `ctr` 2.3 uses it, which is what it does without `--local`: on berthd and on a containerd
//! 2.3 beside it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;

use e2e::{Both, ctr};
use testkit::image::{self, Image, Layer};
use testkit::registry::DockerRegistry;
use testkit::{Daemon, Invocation, Kind, need, wait};

const IMAGE: &str = "berth.test/busybox:1";

/// An image of two layers, one of which is long enough for several windows.
fn large() -> Image {
    let noise: Vec<u8> = (0..600_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Image::new("berth.test/large:1")
        .layer(Layer::new().file("one", b"1", 0o644))
        .layer(Layer::new().file("noise", &noise, 0o644))
        .cmd(&["/one"])
}

/// The archive of an image in the folder of each daemon, under the same name.
fn archive(both: &Both, name: &str, bytes: &[u8]) {
    for daemon in [&both.containerd, &both.berth] {
        daemon.scratch().file(name, bytes);
    }
}

/// A repository of its own for each daemon, short enough for the column in which ctr shows it.
fn side(daemon: &Daemon) -> &'static str {
    if daemon.kind() == Kind::Berth { "b" } else { "c" }
}

/// Runs `ctr` in each daemon's own folder, where `archive` put things: containerd first.
fn each(both: &Both, line: &str) -> [testkit::Outcome; 2] {
    [&both.containerd, &both.berth].map(|daemon| run(daemon, line).outcome())
}

fn run(daemon: &Daemon, line: &str) -> Invocation {
    ctr(daemon, &line.replace("SIDE", side(daemon))).current_dir(daemon.scratch().folder())
}

/// The last state that was told of each part: `layer (0123…)` is `complete`.
fn parts(output: &str, daemon: &Daemon) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    for line in output.lines().filter(|line| !line.contains("elapsed:")) {
        let mut columns = line.split('\t');
        let (Some(name), Some(state)) = (columns.next(), columns.next()) else { continue };
        let name = name.trim_start_matches(['│', '├', '└', '─', ' ']).trim();
        let name = name.replace(&format!("/{}/", side(daemon)), "/SIDE/");
        parts.insert(name, state.trim().to_owned());
    }
    parts
}

/// Demands that a command succeeds on both and tells of the same parts in the end.
#[track_caller]
fn same_parts(both: &Both, line: &str) -> [BTreeMap<String, String>; 2] {
    let [wanted, found] = each(both, line);
    for outcome in [&wanted, &found] {
        assert_eq!(outcome.code(), 0, "`ctr {line}`: {}", outcome.stderr_text());
    }
    let told = [parts(&wanted.stdout_text(), &both.containerd), parts(&found.stdout_text(), &both.berth)];
    assert!(told[1].keys().eq(told[0].keys()), "`ctr {line}`: {told:#?}");
    told
}

#[track_caller]
fn same_class(both: &Both, line: &str) {
    let [wanted, found] = each(both, line).map(|outcome| {
        let complaint = outcome.stderr_text();
        let last = complaint.lines().next_back().unwrap_or_default().to_owned();
        (outcome.code(), last.rsplit(": ").next().unwrap_or_default().to_owned())
    });
    assert_eq!(found, wanted, "`ctr {line}`: berthd on the left, containerd on the right");
}

#[test]
fn archives_come_in_under_the_same_names() {
    let Some(both) = Both::start() else { return };
    let named = large();
    archive(&both, "named.tar", &named.oci_archive());
    archive(&both, "tagged.tar", &named.clone().named("only-a-tag").oci_archive());
    archive(&both, "docker.tar", &named.docker_archive());
    for line in [
        "named.tar",
        "docker.tar",
        "tagged.tar",
        "--base-name berth.test/base named.tar",
        "--base-name berth.test/base --digests tagged.tar",
        "--base-name berth.test/base --digests --skip-digest-for-named tagged.tar",
        "--index-name berth.test/index:1 named.tar",
        "--index-name berth.test/index:1 --base-name berth.test/base --digests docker.tar",
        "--label a=b --no-unpack named.tar",
        "--all-platforms named.tar",
    ] {
        same_parts(&both, &format!("images import {line}"));
        both.same("images ls");
        // What has no name goes when the daemon sees fit.
        let lists = || [&both.containerd, &both.berth].map(|daemon| ctr(daemon, "snapshots ls").ok());
        wait::soon("the same snapshots", || matches!(lists(), [wanted, found] if found == wanted));
        for daemon in [&both.containerd, &both.berth] {
            for image in ctr(daemon, "images ls -q").ok().lines() {
                ctr(daemon, "images rm --sync").arg(image).outcome();
            }
        }
        both.same("images ls -q");
    }
    // How small it gets is up to each one's compressor.
    same_parts(&both, "images import --compress-blobs docker.tar");
    both.finish();
}

#[test]
fn an_image_is_imported_tagged_exported_and_run() {
    let Some(both) = Both::start() else { return };
    let Ok(busybox) = image::busybox() else { return };
    archive(&both, "busybox.tar", &busybox.oci_archive());
    let told = same_parts(&both, "images import busybox.tar");
    assert_eq!(told[1][IMAGE], "saved");
    both.same("images ls");
    both.same("images check");
    both.same("snapshots ls");
    both.same(&format!("images tag {IMAGE} berth.test/other:1"));
    both.same(&format!("images tag {IMAGE} berth.test/other:1 berth.test/third:1"));
    both.same("images tag absent:1 berth.test/other:1");
    both.same("images ls");
    both.same(&format!("run --rm {IMAGE} once echo hi"));
    same_parts(&both, &format!("images export out.tar {IMAGE} berth.test/other:1"));
    same_class(&both, "images export none.tar absent:1");
    // Each one's archive goes into the other one.
    let out = |daemon: &Daemon| daemon.scratch().path("out.tar");
    let exchanged = both.berth.scratch().path("exchanged.tar");
    std::fs::copy(out(&both.containerd), &exchanged).expect("it was exported");
    std::fs::copy(out(&both.berth), both.containerd.scratch().path("exchanged.tar"))
        .expect("it was exported");
    for name in [IMAGE, "berth.test/other:1", "berth.test/third:1"] {
        both.same(&format!("images rm --sync {name}"));
    }
    both.same("content ls");
    same_parts(&both, "images import exchanged.tar");
    both.same("images ls");
    both.same(&format!("run --rm {IMAGE} twice echo again"));
    both.finish();
}

#[test]
fn an_export_is_whole_however_often_it_is_made() {
    let Some(both) = Both::start() else { return };
    archive(&both, "large.tar", &large().oci_archive());
    same_parts(&both, "images import large.tar");
    let daemon = &both.berth;
    let lengths: Vec<u64> = (0..10)
        .map(|_| {
            run(daemon, "images export out.tar berth.test/large:1").ok();
            std::fs::metadata(daemon.scratch().path("out.tar")).expect("it was exported").len()
        })
        .collect();
    assert!(lengths.iter().all(|length| *length == lengths[0] && *length > 2_400_000), "{lengths:?}");
    both.finish();
}

#[test]
fn an_image_goes_to_a_registry_with_a_login_and_comes_back() {
    let Some(both) = Both::start() else { return };
    let Ok(registry) = DockerRegistry::with_login() else { return };
    let (user, password) = registry.login();
    let (login, name) = (format!("--user {user}:{password}"), format!("{}/SIDE/large:1", registry.address()));
    archive(&both, "large.tar", &large().oci_archive());
    same_parts(&both, "images import large.tar");
    let pushed = same_parts(&both, &format!("images push {login} {name} berth.test/large:1"));
    assert_eq!(pushed[1]["berth.test/large:1"], "pushed content");
    assert!(pushed[1].values().filter(|state| *state == "complete").count() >= 3, "{pushed:?}");
    both.same("images rm --sync berth.test/large:1");
    let denied = each(&both, &format!("images pull {name}")).map(|outcome| outcome.stderr_text());
    let text =
        "failed to resolve image: pull access denied, repository does not exist or may require authorization";
    assert!(denied.iter().all(|complaint| complaint.contains(text)), "{denied:?}");
    for wrong in ["--user berth:wrong", "--user nobody:U*U"] {
        let refused = each(&both, &format!("images pull {wrong} {name}"));
        assert!(refused.iter().all(|outcome| outcome.code() == 1), "{refused:?}");
    }
    let pulled = same_parts(&both, &format!("images pull {login} {name}"));
    assert_eq!(pulled[1][&name], "saved", "{pulled:?}");
    assert_eq!(pulled[1].values().filter(|state| *state == "extracted").count(), 2, "{pulled:?}");
    both.same("snapshots ls");
    // What is there is not fetched again.
    let again = run(&both.berth, &format!("images pull {login} {name}")).ok();
    assert!(parts(&again, &both.berth).values().any(|state| state == "already exists"), "{again}");
    let nobody = each(&both, "images pull 127.0.0.1:1/absent/image:1");
    assert!(nobody.iter().all(|outcome| outcome.stderr_text().to_lowercase().contains("connection refused")));
    same_class(&both, &format!("images pull {login} {}/SIDE/absent:1", registry.address()));
    same_class(&both, &format!("images push {login} {}/SIDE/absent:1", registry.address()));
    both.finish();
}

#[test]
fn what_goes_to_and_fro_is_shown_to_who_asks_and_without_credentials() {
    let Some(both) = Both::start() else { return };
    let Ok(registry) = DockerRegistry::with_login() else { return };
    let (user, password) = registry.login();
    let (login, name) = (format!("--user {user}:{password}"), format!("{}/SIDE/small:1", registry.address()));
    // containerd shows layers too, byte by byte.
    let small = Image::new("berth.test/small:1").layer(Layer::new().file("one", b"1", 0o644));
    archive(&both, "small.tar", &small.oci_archive());
    same_parts(&both, "images import small.tar");
    same_parts(&both, &format!("images push {login} {name} berth.test/small:1"));
    both.same("images rm --sync berth.test/small:1");
    let shown = each(&both, &format!("images pull --http-dump {login} {name}"));
    for (outcome, daemon) in shown.iter().zip([&both.containerd, &both.berth]) {
        assert_eq!(outcome.code(), 0, "{}", outcome.stderr_text());
        let shown = outcome.stderr_text();
        let head = format!("HEAD /v2/{}/small/manifests/1 HTTP/1.1", side(daemon));
        let host = format!("Host: {}", registry.address());
        for line in [head.as_str(), &host, "HTTP/1.1 401 Unauthorized", "HTTP/1.1 200 OK", "schemaVersion"] {
            assert!(shown.contains(line), "no {line:?} of {}: {shown}", side(daemon));
        }
    }
    // containerd shows the header with the password.
    let shown = shown[1].stderr_text();
    assert!(shown.contains("authorization: [hidden]"), "{shown}");
    assert!(!shown.contains(password) && !shown.to_lowercase().contains("authorization: basic"), "{shown}");
    assert!(shown.len() < 50_000, "{} bytes", shown.len());
    let traced = run(&both.berth, &format!("images pull --http-trace {login} {name}")).outcome();
    let told = format!("/manifests/1: 200 from {} over HTTP/1.1", registry.address());
    assert!(traced.stderr_text().contains(&told), "{}", traced.stderr_text());
    both.finish();
}

#[test]
fn archives_that_are_broken_leave_nothing() {
    let Some(both) = Both::start() else { return };
    let good = large().oci_archive();
    let at = good.windows(4).position(|bytes| bytes == b"/one").expect("the command is in the configuration");
    let mut lie = good.clone();
    lie[at] = b'x';
    archive(&both, "lie.tar", &lie);
    archive(&both, "cut.tar", &good[..good.len() / 2]);
    archive(&both, "none.tar", b"no archive at all");
    for line in ["lie.tar", "cut.tar", "none.tar", "absent.tar", "--snapshotter absent lie.tar"] {
        let outcomes = each(&both, &format!("images import {line}"));
        // containerd does not look whether a blob is what its name says; then the image has a part less.
        assert_eq!(outcomes[1].code(), 1, "`{line}` on berthd: {outcomes:?}");
        assert_eq!(ctr(&both.berth, "images ls -q").ok(), "");
    }
    wait::soon("the collection", || ctr(&both.berth, "content ls -q").ok().is_empty());
    assert_eq!(ctr(&both.berth, "leases ls -q").ok(), "");
    assert_eq!(ctr(&both.berth, "snapshots ls").ok().lines().count(), 1);
    both.finish();
}

#[test]
fn a_client_that_is_killed_in_the_middle_of_an_import_leaves_nothing() {
    let Some(both) = Both::start() else { return };
    let Ok(mkfifo) = need::program("mkfifo") else { return };
    let (daemon, bytes) = (&both.berth, large().oci_archive());
    let fifo = daemon.scratch().path("fifo");
    Invocation::new(mkfifo).arg(&fifo).ok();
    let client = ctr(daemon, "images import").arg(&fifo).start();
    let mut writer = OpenOptions::new().write(true).open(&fifo).expect("ctr reads it");
    writer.write_all(&bytes[..bytes.len() / 2]).expect("ctr reads it");
    wait::soon("the first blobs", || !ctr(daemon, "content ls -q").ok().is_empty());
    client.signal(rustix::process::Signal::KILL);
    client.wait();
    // What is left is the client's own lease, which holds nothing.
    wait::soon("the end of the import", || ctr(daemon, "leases ls -q").ok().lines().count() == 1);
    wait::soon("the collection", || ctr(daemon, "content ls -q").ok().is_empty());
    assert_eq!(ctr(daemon, "content active").ok().lines().count(), 1, "only the heading");
    assert_eq!(ctr(daemon, "images ls -q").ok(), "");
    // The daemon is none the worse.
    archive(&both, "large.tar", &bytes);
    same_parts(&both, "images import large.tar");
    both.finish();
}
