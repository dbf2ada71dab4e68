//! Images whose compressed layers are not kept.

use e2e::{Cli, IMAGE, ctr};
use serde_json::Value;
use testkit::registry::DockerRegistry;
use testkit::{Daemon, Kind, wait};

fn has(cli: &Cli, digest: &str) -> bool {
    ctr(cli.daemon(), "content ls -q").ok().lines().any(|line| line == digest)
}

/// An image of this test's own in a registry, and nowhere else, and its layer.
fn pushed(cli: &Cli, registry: &DockerRegistry) -> (String, String) {
    let name = format!("{}/team/app:1", registry.address());
    cli.run(&format!("tag {IMAGE} {name}")).ok();
    cli.run(&format!("push -q {name}")).ok();
    cli.run(&format!("rmi {name} {IMAGE}")).ok();
    let shown: Value =
        serde_json::from_str(&cli.run(&format!("manifest inspect {name}")).ok()).expect("it is JSON");
    let layer = shown["layers"][0]["digest"].as_str().expect("it has a layer").to_owned();
    wait::soon("nothing to be here", || !has(cli, &layer));
    (name, layer)
}

#[test]
fn what_was_discarded_runs_and_is_made_again_to_be_pushed_and_saved() {
    let (Ok(cli), Ok(registry), Ok(other)) = (Cli::start(), DockerRegistry::start(), DockerRegistry::start())
    else {
        return;
    };
    let (name, layer) = pushed(&cli, &registry);
    let quiet = cli.run(&format!("pull -q --discard {name}")).outcome();
    assert!(!quiet.stderr_text().contains("kept"), "{}", quiet.stderr_text());
    wait::soon("the layer's blob to go", || !has(&cli, &layer));
    assert_eq!(cli.run(&format!("run --rm {name} echo hi")).ok(), "hi\n");

    let there = format!("{}/team/app:1", other.address());
    cli.run(&format!("tag {name} {there}")).ok();
    cli.run(&format!("push -q {there}")).ok();
    let manifest = |name: &str| cli.run(&format!("manifest inspect {name}")).ok();
    assert_eq!(manifest(&there), manifest(&name));
    wait::soon("what was made again to go", || !has(&cli, &layer));
    if let Ok(containerd) = Daemon::start(Kind::Containerd) {
        ctr(&containerd, &format!("image pull --plain-http {there}")).ok();
        let content = ctr(&containerd, "content ls -q").ok();
        assert!(content.lines().any(|line| line == layer), "{content}");
        containerd.finish();
    }

    let archive = cli.path("saved.tar").display().to_string();
    cli.run(&format!("save -o {archive} {there}")).ok();
    assert_eq!(cli.run(&format!("--snapshotter native run --rm {name} echo hi")).ok(), "hi\n");
    cli.run(&format!("rmi {name} {there}")).ok();
    cli.run(&format!("load -i {archive}")).ok();
    assert_eq!(cli.run(&format!("run --rm {there} echo hi")).ok(), "hi\n");
    cli.finish();
}

#[test]
fn what_cannot_be_made_again_says_so() {
    let (Ok(cli), Ok(registry)) = (Cli::start(), DockerRegistry::start()) else { return };
    let (name, layer) = pushed(&cli, &registry);
    cli.run(&format!("pull -q --discard {name}")).ok();
    wait::soon("the layer's blob to go", || !has(&cli, &layer));
    // Somebody changes the files beneath.
    let folder = cli.daemon().root().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    let busybox = std::fs::read_dir(folder).expect("it has snapshots").filter_map(|entry| {
        let path = entry.expect("it can be listed").path().join("fs/bin/busybox");
        path.is_file().then_some(path)
    });
    for path in busybox {
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_len(5000))
            .expect("it is ours");
    }
    let other = format!("{}/other/app:1", registry.address());
    cli.run(&format!("tag {name} {other}")).ok();
    let archive = cli.path("saved.tar").display().to_string();
    for line in [format!("push -q {other}"), format!("save -o {archive} {other}")] {
        let complaint = cli.run(&line).fails();
        assert!(complaint.contains(&layer) && complaint.contains("busybox"), "{line}: {complaint}");
        assert!(complaint.contains("pull the image again"), "{line}: {complaint}");
    }
    cli.run(&format!("pull -q {name}")).ok();
    assert!(has(&cli, &layer), "a pull without the flag brings it");
    cli.run(&format!("push -q {other}")).ok();
    cli.finish();
}

#[test]
fn a_second_pull_of_a_discarded_image_fetches_no_layer() {
    let (Ok(cli), Ok(registry)) = (Cli::start(), DockerRegistry::start()) else { return };
    let (name, layer) = pushed(&cli, &registry);
    cli.run(&format!("pull -q --discard {name}")).ok();
    wait::soon("the layer's blob to go", || !has(&cli, &layer));
    let again = cli.run(&format!("pull --discard {name}")).ok();
    assert!(again.contains("up to date"), "{again}");
    assert!(!has(&cli, &layer));
    // What a pull has brought, a later one that says so lets go of.
    cli.run(&format!("pull -q {name}")).ok();
    assert!(has(&cli, &layer));
    cli.run(&format!("pull -q --discard {name}")).ok();
    wait::soon("the layer's blob to go", || !has(&cli, &layer));
    cli.finish();
}
