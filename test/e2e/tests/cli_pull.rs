//! What `berth pull` and `push` bring and send: one platform or all, by name or digest, at once or in two goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::{Cli, IMAGE};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::image::{self, Image, Layer};
use testkit::registry::{DockerRegistry, Standin, serve};
use testkit::wait;

fn app(platform: &str) -> Image {
    Image::new(&format!("berth.test/{platform}:1"))
        .layer(Layer::new().file("app", platform.as_bytes(), 0o755))
        .cmd(&["/app"])
        .set("User", json!("7"))
}

fn loaded(cli: &Cli, image: &Image) -> String {
    let archive = cli.daemon().scratch().file("image.tar", image.docker_archive());
    cli.run("load -i").arg(archive).ok();
    image.name().to_owned()
}

/// An index of an image for this machine and one for a machine of another kind, and the digests of both.
fn index(cli: &Cli, registry: &DockerRegistry) -> (String, [String; 2]) {
    let name = format!("{}/team/app:1", registry.address());
    let parts = ["amd64", "s390x"].map(|platform| {
        let image = app(platform);
        let part = format!("{}/team/app:{platform}", registry.address());
        cli.run(&format!("tag {} {part}", loaded(cli, &image))).ok();
        cli.run(&format!("push -q {part}")).ok();
        part
    });
    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    cli.run(&format!("manifest create {name} {} {}", parts[0], parts[1])).ok();
    cli.run(&format!("manifest annotate --os linux --arch {here} {name} {}", parts[0])).ok();
    cli.run(&format!("manifest annotate --os linux --arch s390x {name} {}", parts[1])).ok();
    cli.run(&format!("manifest push --purge {name}")).ok();
    for part in &parts {
        cli.run(&format!("rmi {part}")).ok();
    }
    for platform in ["amd64", "s390x"] {
        cli.run(&format!("rmi berth.test/{platform}:1")).ok();
    }
    let shown: Value =
        serde_json::from_str(&cli.run(&format!("manifest inspect {name}")).ok()).expect("it is JSON");
    let digest = |at: usize| shown["manifests"][at]["digest"].as_str().unwrap_or_default().to_owned();
    (name, [digest(0), digest(1)])
}

fn has(cli: &Cli, digest: &str) -> bool {
    let ctr = cli.daemon().ctr().expect("a daemon that runs has its client");
    ctr.line("content ls -q").ok().lines().any(|line| line == digest)
}

#[test]
fn one_platforms_image_comes_or_that_of_all() {
    let (Ok(cli), Ok(registry)) = (Cli::start(), DockerRegistry::start()) else { return };
    let (name, [own, other]) = index(&cli, &registry);
    assert!(!has(&cli, &own) && !has(&cli, &other), "what was made here is gone");

    cli.run(&format!("pull -q {name}")).ok();
    assert!(has(&cli, &own) && !has(&cli, &other), "without a flag it is this machine's");
    cli.run(&format!("rmi {name}")).ok();
    cli.run(&format!("pull -q --platform linux/s390x {name}")).ok();
    assert!(!has(&cli, &own) && has(&cli, &other));
    cli.run(&format!("pull -q --all-platforms {name}")).ok();
    assert!(has(&cli, &own) && has(&cli, &other));

    let whole = format!("{}/other/whole:1", registry.address());
    cli.run(&format!("tag {name} {whole}")).ok();
    cli.run(&format!("push -q {whole}")).ok();
    let shown = cli.run(&format!("manifest inspect {whole}")).ok();
    assert!(shown.contains(&own) && shown.contains(&other), "{shown}");
    let part = format!("{}/other/part:1", registry.address());
    cli.run(&format!("tag {name} {part}")).ok();
    let pushed = cli.run(&format!("push --platform linux/s390x {part}")).ok();
    assert!(pushed.contains(&other), "{pushed}");
    let absent = cli.run(&format!("pull -q --platform linux/riscv64 {name}")).fails();
    assert!(absent.contains("linux/riscv64"), "{absent}");
    cli.finish();
}

#[test]
fn a_digest_is_a_name() {
    let (Ok(cli), Ok(registry)) = (Cli::start(), DockerRegistry::start()) else { return };
    let (name, [own, other]) = index(&cli, &registry);
    let repository = name.trim_end_matches(":1");
    let pulled = cli.run(&format!("pull {repository}@{own}")).ok();
    assert!(pulled.contains(&format!("Digest: {own}")), "{pulled}");
    assert!(has(&cli, &own) && !has(&cli, &other));
    let listed = cli.run("images --digests --no-trunc").ok();
    assert!(listed.lines().any(|line| line.contains(repository) && line.contains(&own)), "{listed}");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let complaint = cli.run(&format!("pull {repository}@{wrong}")).fails();
    assert!(complaint.contains(&wrong), "{complaint}");
    cli.finish();
}

#[test]
fn a_pull_that_somebody_interrupts_goes_on_where_it_stopped() {
    let Ok(cli) = Cli::start() else { return };
    let noise: Vec<u8> = (0..750_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let image = Image::new("a/b:1").layer(Layer::new().file("noise", &noise, 0o644)).cmd(&["/noise"]);
    let layer = image.blobs().remove(0);
    let (digest, half) = (image::digest(&layer), layer.len() / 2);
    let (slow, served) = (Arc::new(AtomicBool::new(true)), image.clone());
    let registry = Standin::start({
        let (slow, digest) = (slow.clone(), digest.clone());
        move |request| {
            let reply = serve(&served, "a/b", "1", request);
            let stalls = slow.load(Ordering::SeqCst) && request.path().ends_with(&digest);
            if stalls { reply.stall(half) } else { reply }
        }
    });
    let name = format!("{}/a/b:1", registry.address());
    let pull = cli.run(&format!("pull {name}")).start();
    let arrived = || {
        let ctr = cli.daemon().ctr().expect("a daemon that runs has its client");
        let ingests = ctr.line("content active").ok();
        ingests.lines().any(|line| line.contains(&digest[7..19]) && line.contains("MB"))
    };
    wait::soon("half of the layer", arrived);
    pull.signal(Signal::INT);
    let ended = pull.wait();
    assert_eq!(ended.code(), 130, "{ended}");

    slow.store(false, Ordering::SeqCst);
    let before = registry.requests().len();
    cli.run(&format!("pull -q {name}")).ok();
    let again = registry.requests().split_off(before);
    let ranges: Vec<_> = again
        .iter()
        .filter(|request| request.path().ends_with(&digest))
        .map(|request| request.header("range").unwrap_or_default().to_owned())
        .collect();
    assert!(
        !ranges.is_empty() && ranges.iter().all(|range| !range.is_empty() && !range.starts_with("bytes=0-")),
        "{ranges:?}"
    );
    assert!(has(&cli, &digest));
    cli.finish();
}

#[test]
fn images_that_nobody_uses_are_pruned_and_history_tells_of_every_layer() {
    let Ok(cli) = Cli::start() else { return };
    let unused = loaded(&cli, &app("unused"));
    cli.sleeper("user", "");
    let history = cli.run(&format!("history --no-trunc {unused}")).ok();
    assert_eq!(history.lines().count(), 2, "a heading and a layer: {history}");
    assert!(history.starts_with("IMAGE"), "{history}");

    let nothing = cli.run("image prune -f").ok();
    assert!(!nothing.contains("unused"), "one that has a name stays: {nothing}");
    let pruned = cli.run("image prune -a -f").ok();
    assert!(pruned.contains(&unused) && pruned.contains("Total reclaimed space"), "{pruned}");
    let left = cli.run("images --format {{.Repository}}:{{.Tag}}").ok();
    assert_eq!(left.trim(), IMAGE, "the image of a container stays");
    cli.finish();
}
