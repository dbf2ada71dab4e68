//! Bad input over the API: a clear answer, and nothing left behind.

use testkit::image::{self, Image, Layer};
use testkit::{Daemon, Invocation, Kind, need};

const IMAGE: &str = "berth.test/busybox:1";

fn daemon() -> Option<Daemon> {
    let daemon = Daemon::start(Kind::Berth).ok()?;
    daemon.ctr().ok()?;
    Some(daemon)
}

fn with_image() -> Option<Daemon> {
    let image = image::busybox().ok()?;
    let daemon = daemon()?;
    import(&daemon, "busybox.tar", &image.oci_archive()).ok();
    Some(daemon)
}

fn ctr(daemon: &Daemon, line: &str) -> Invocation {
    daemon.ctr().expect("it was there at the start").line(line)
}

fn import(daemon: &Daemon, name: &str, bytes: &[u8]) -> Invocation {
    ctr(daemon, "images import --local").arg(daemon.scratch().file(name, bytes))
}

#[test]
fn a_truncated_archive_is_refused_and_names_no_image() {
    let Some(daemon) = daemon() else { return };
    let Ok(image) = image::busybox() else { return };
    let archive = image.oci_archive();
    import(&daemon, "half.tar", &archive[..archive.len() / 2]).fails();
    assert_eq!(ctr(&daemon, "images ls -q").ok(), "");
    daemon.finish();
}

#[test]
fn a_layer_that_is_no_tar_is_refused_and_leaves_no_snapshot() {
    let Some(daemon) = daemon() else { return };
    let broken = Image::new("berth.test/broken:1").raw_layer(vec![0x5a; 4096]).cmd(&["/x"]);
    import(&daemon, "broken.tar", &broken.oci_archive()).fails();
    let snapshots = ctr(&daemon, "snapshots ls").ok();
    assert_eq!(snapshots.lines().count(), 1, "{snapshots}");
    daemon.finish();
}

#[test]
fn a_layer_that_climbs_out_writes_nothing_outside() {
    let Some(daemon) = daemon() else { return };
    let canary = daemon.scratch().file("canary", "untouched");
    let target = canary.to_string_lossy().into_owned();
    let evil = Layer::new()
        .symlink("link", &target)
        .file("../../../../../../../../../../escape", b"x", 0o644)
        .hardlink("hard", "link")
        .symlink("dir", &daemon.scratch().folder().to_string_lossy())
        .file("dir/canary", b"overwritten", 0o644);
    let image = Image::new("berth.test/evil:1").layer(evil).cmd(&["/x"]);
    import(&daemon, "evil.tar", &image.oci_archive()).outcome();
    assert_eq!(std::fs::read(&canary).expect("the canary is there"), b"untouched");
    assert!(!std::path::Path::new("/escape").exists());
    daemon.finish();
}

#[test]
fn a_digest_that_lies_is_refused() {
    let Some(daemon) = daemon() else { return };
    let digest = format!("sha256:{}", "0".repeat(64));
    let complaint =
        ctr(&daemon, &format!("content ingest --expected-digest {digest} lie")).input("not that").fails();
    assert!(complaint.contains("unexpected commit digest") || complaint.contains(&digest), "{complaint}");
    assert_eq!(ctr(&daemon, "content ls -q").ok(), "");
    for bad in ["sha256:ab", "sha256:", "x", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        ctr(&daemon, "content get").arg(bad).fails();
    }
    daemon.finish();
}

#[test]
fn a_missing_command_says_so_and_leaves_nothing() {
    let Some(daemon) = with_image() else { return };
    let complaint = ctr(&daemon, &format!("run --rm {IMAGE} nobody /no/such/command")).fails();
    assert!(complaint.contains("/no/such/command"), "{complaint}");
    assert_eq!(ctr(&daemon, "tasks ls -q").ok(), "");
    daemon.finish();
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_first_one_lives_on() {
    let Some(daemon) = with_image() else { return };
    ctr(&daemon, &format!("run -d --null-io {IMAGE} one sleep 1000")).ok();
    let complaint = ctr(&daemon, &format!("run -d --null-io {IMAGE} one sleep 1000")).fails();
    assert!(complaint.contains("already exists"), "{complaint}");
    assert!(ctr(&daemon, "tasks ls").ok().contains("RUNNING"));
    ctr(&daemon, "tasks delete --force one").outcome();
    ctr(&daemon, "containers delete one").ok();
    daemon.finish();
}

#[test]
fn names_that_are_none_are_refused() {
    let Some(daemon) = with_image() else { return };
    for bad in ["a/b", "-a", "ä", "..", &"x".repeat(77)] {
        let complaint = ctr(&daemon, "containers create").args(["--", IMAGE, bad]).fails();
        assert!(complaint.contains("invalid argument") || complaint.contains("identifier"), "{complaint}");
    }
    ctr(&daemon, "namespaces create").arg("a/b").fails();
    assert_eq!(ctr(&daemon, "containers ls -q").ok(), "");
    daemon.finish();
}

#[test]
fn a_namespace_in_use_is_not_removed() {
    let Some(daemon) = with_image() else { return };
    let complaint = ctr(&daemon, "namespaces remove").arg(daemon.tag()).fails();
    assert!(complaint.contains("not empty") || complaint.contains("must be empty"), "{complaint}");
    assert!(ctr(&daemon, "images ls -q").ok().contains(IMAGE));
    // ctr takes "not found" for done.
    assert_eq!(ctr(&daemon, "namespaces remove nobody").ok().trim(), "nobody");
    daemon.finish();
}

#[test]
fn a_second_daemon_is_told_who_has_the_folders() {
    let Some(daemon) = daemon() else { return };
    let Ok(program) = need::program("berthd") else { return };
    let complaint = Invocation::new(program).arg("--config").arg(daemon.config()).fails();
    let pid = daemon.pid().expect("it runs").to_string();
    assert!(complaint.contains(&pid) || complaint.contains("in use"), "{complaint}");
    assert!(ctr(&daemon, "version").outcome().status.success());
    daemon.finish();
}

#[test]
fn a_root_that_cannot_be_written_is_named() {
    let Ok(()) = need::root() else { return };
    let Ok(program) = need::program("berthd") else { return };
    let scratch = testkit::Scratch::new();
    let file = scratch.file("file", "");
    let complaint = Invocation::new(program)
        .arg("--root")
        .arg(file.join("root"))
        .arg("--state")
        .arg(scratch.path("state"))
        .arg("--address")
        .arg(scratch.path("sock"))
        .fails();
    assert!(complaint.contains(&*file.to_string_lossy()), "{complaint}");
}

#[test]
fn a_full_disk_is_an_error_and_room_can_be_made() {
    let Ok(()) = need::root() else { return };
    let (Ok(mkfs), Ok(image)) = (need::program("mkfs.ext4"), image::busybox()) else { return };
    let Ok(program) = need::program("berthd") else { return };
    let scratch = testkit::Scratch::new();
    let disk = scratch.file("disk", vec![0; 24 << 20]);
    Invocation::new(mkfs).args(["-q", "-F"]).arg(&disk).ok();
    let root = scratch.path("root");
    std::fs::create_dir(&root).expect("the scratch folder takes a folder");
    Invocation::new("mount").args(["-o", "loop"]).arg(&disk).arg(&root).ok();
    let address = scratch.path("sock");
    let running = Invocation::new(program)
        .arg("--root")
        .arg(root.join("data"))
        .arg("--state")
        .arg(scratch.path("state"))
        .arg("--address")
        .arg(&address)
        .start();
    let Ok(ctr) = need::program("ctr") else { return };
    let ctr = |line: &str| {
        Invocation::new(&ctr).arg("--address").arg(&address).args(["--namespace", scratch.tag()]).line(line)
    };
    testkit::wait::soon("the daemon", || ctr("version").outcome().status.success());
    ctr("images import --local").arg(scratch.file("small.tar", image.oci_archive())).ok();
    let noise: Vec<u8> =
        (0..30_u64 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let large =
        Image::new("berth.test/large:1").layer(Layer::new().file("noise", &noise, 0o644)).cmd(&["/x"]);
    let complaint = ctr("images import --local").arg(scratch.file("large.tar", large.oci_archive())).fails();
    assert!(complaint.contains("no space left") || complaint.contains("No space left"), "{complaint}");
    assert!(ctr("images ls -q").ok().contains(IMAGE), "what was there before is there still");
    ctr("content ls").ok();
    ctr(&format!("images rm --sync {IMAGE}")).ok();
    ctr("images import --local").arg(scratch.path("small.tar")).ok();
    running.signal(rustix::process::Signal::TERM);
    running.wait();
}
