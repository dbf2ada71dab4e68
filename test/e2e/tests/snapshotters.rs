//! Containers on snapshotters other than the usual one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_proto::containerd::services::leases::v1::{AddResourceRequest, Resource};
use e2e::{Cli, IMAGE};
use hyper_util::rt::TokioIo;
use testkit::image::{Image, Layer};
use testkit::registry::DockerRegistry;
use testkit::tree::Tree;
use testkit::volume::{Volume, empty_ext4};
use testkit::{Daemon, Kind, Scratch, Setup, need, wait};
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Endpoint, Uri};

/// A daemon with erofs; none where the machine does not have it.
fn with_erofs() -> Option<Cli> {
    let cli = Cli::start().ok()?;
    let found = cli.run("info --format {{.Snapshotters}}").ok();
    let info = cli.run("info").ok();
    need::that(found.contains("erofs"), &format!("the snapshotter erofs:\n{info}")).ok()?;
    Some(cli)
}

/// Every image below the snapshotter's folder.
fn images(cli: &Cli) -> Vec<PathBuf> {
    let snapshots = cli.daemon().root().join("io.containerd.snapshotter.v1.erofs/snapshots");
    let folders = fs::read_dir(snapshots).into_iter().flatten().flatten();
    folders.map(|folder| folder.path().join("layer.erofs")).filter(|image| image.exists()).collect()
}

/// The mounts of images that the daemon has made.
fn mounted(cli: &Cli) -> usize {
    let root = cli.daemon().root().display().to_string();
    let table = fs::read_to_string("/proc/self/mountinfo").expect("every Linux has it");
    table.lines().filter(|line| line.contains(&root) && line.contains(" - erofs ")).count()
}

/// Removes every container and image.
fn clear(cli: &Cli) {
    for id in cli.run("ps -aq").ok().lines() {
        cli.run("rm -f").arg(id).ok();
    }
    for id in cli.run("images -q").ok().lines() {
        cli.run("rmi -f").arg(id).ok();
    }
}

/// Removes everything and sees that no image stays mounted.
fn finish(cli: Cli) {
    clear(&cli);
    wait::until("the images of removed snapshots are unmounted", wait::SOON, || {
        (mounted(&cli) == 0).then_some(())
    });
    cli.finish();
}

#[test]
fn containers_run_on_images_that_are_mounted_as_they_lie() {
    let Some(mut cli) = with_erofs() else { return };
    assert!(cli.run("run --snapshotter erofs --rm hello").ok().contains("container"));
    let script = "echo changed > /etc/new && rm /bin/sh && cat /etc/new";
    assert_eq!(cli.sh(&format!("run --snapshotter erofs --name one {IMAGE}"), script).ok(), "changed\n");
    assert!(!images(&cli).is_empty() && mounted(&cli) > 0);
    let table = cli.run("snapshot ls --snapshotter erofs").ok();
    assert!(table.starts_with("KIND") && table.contains("committed") && table.contains("active"), "{table}");
    let active = cli.run("snapshot ls --snapshotter erofs -q -f kind=active").ok();
    assert_eq!(active.lines().count(), 1, "{active}");
    cli.daemon_mut().kill();
    cli.daemon_mut().restart();
    assert_eq!(cli.run(&format!("run --snapshotter erofs --rm {IMAGE} echo again")).ok(), "again\n");
    cli.run("--snapshotter erofs commit one berth.test/made:1").ok();
    let gone = cli.run("run --snapshotter erofs --rm berth.test/made:1 test -e /bin/sh").fails();
    assert!(gone.is_empty(), "{gone}");
    assert_eq!(cli.run("run --snapshotter erofs --rm berth.test/made:1 cat /etc/new").ok(), "changed\n");
    finish(cli);
}

#[test]
fn a_pulled_image_becomes_one_file_a_layer() {
    let (Some(cli), Ok(registry)) = (with_erofs(), DockerRegistry::start()) else { return };
    let name = format!("{}/team/layers:1", registry.address());
    let mut image = Image::new(&name).cmd(&["/nothing"]);
    for number in 0..5 {
        let folder = format!("dir-{number}");
        image = image.layer(Layer::new().dir(&folder, 0o755).file(&format!("{folder}/file"), b"text", 0o644));
    }
    let archive = cli.daemon().scratch().file("image.tar", image.docker_archive());
    cli.run("load -i").arg(archive).ok();
    cli.run(&format!("push -q {name}")).ok();
    cli.run(&format!("rmi {name}")).ok();
    cli.run(&format!("pull -q --snapshotter erofs {name}")).ok();
    assert_eq!(images(&cli).len(), 5);
    assert_eq!(mounted(&cli), 0, "layers are written without those below them");
    for image in images(&cli) {
        let tree = image.with_file_name("fs");
        assert_eq!(fs::read_dir(tree).expect("it is there").count(), 0, "nothing is unpacked");
    }
    cli.run(&format!("create --snapshotter erofs --name one {name}")).ok();
    assert_eq!(cli.run("cp one:/dir-4/file -").outcome().code(), 0);
    finish(cli);
}

/// Layers of which the upper ones need the lower ones: removals, and folders that nobody tells of.
fn stacked(name: &str) -> Image {
    let image = testkit::image::busybox().expect("the first image was made of it");
    let base = Layer::new()
        .dir("told", 0o750)
        .file("told/kept", b"kept", 0o640)
        .file("told/gone", b"gone", 0o644)
        .dir("hidden", 0o700)
        .file("hidden/below", b"below", 0o644)
        .hardlink("told/again", "told/kept");
    let upper = Layer::new()
        .file("told/new", b"new", 0o600)
        .whiteout("told", "gone")
        .dir("hidden", 0o711)
        .opaque("hidden")
        .file("hidden/above", &vec![7; 100_000], 0o644)
        .symlink("told/link", "kept");
    image.layer(base).layer(upper).named(name)
}

#[test]
fn layers_that_are_images_go_through_a_registry_and_run_here_and_in_containerd() {
    let (Some(cli), Ok(registry)) = (with_erofs(), DockerRegistry::start()) else { return };
    let archive =
        cli.daemon().scratch().file("stacked.tar", stacked("berth.test/stacked:1").docker_archive());
    cli.run("load -i").arg(archive).ok();
    let ctr = || cli.daemon().ctr().expect("a daemon that runs has its client");
    let tree = |snapshotter: &str, name: &str| {
        let point = cli.path("point");
        fs::create_dir_all(&point).expect("the scratch folder is there");
        ctr().line(&format!("images mount --snapshotter {snapshotter} {name}")).arg(&point).ok();
        let seen = Tree::read(&point).without_root().without_directory_times();
        ctr().line(&format!("images unmount --rm --snapshotter {snapshotter}")).arg(&point).ok();
        seen
    };
    let unpacked = tree("overlayfs", "berth.test/stacked:1");
    for form in ["raw", "zstd"] {
        let name = format!("{}/team/app:{form}", registry.address());
        cli.run(&format!("image convert --erofs={form} --oci berth.test/stacked:1 {name}")).ok();
        let manifest = cli.run(&format!("manifest inspect {name}")).ok();
        let suffix = if form == "zstd" { "+zstd" } else { "" };
        let wanted = format!("\"application/vnd.erofs.layer.v1{suffix}\"");
        assert_eq!(manifest.matches(&wanted).count(), 3, "{manifest}");
        cli.run(&format!("push -q {name}")).ok();
        cli.run(&format!("rmi {name}")).ok();
        cli.run(&format!("pull -q --snapshotter erofs {name}")).ok();
        tree("erofs", &name).assert_same(&unpacked, "images of its layers, and the layers unpacked");
        let run = cli.run(&format!("run --rm --snapshotter erofs {name} cat /told/again"));
        assert_eq!(run.ok(), "kept");
        let refused = cli.run(&format!("run --rm --snapshotter overlayfs {name} true")).fails();
        assert!(refused.contains("--snapshotter erofs"), "{refused}");
        let refused = cli.run(&format!("image convert --gzip {name} berth.test/back:1")).fails();
        assert!(refused.contains("no archive"), "{refused}");
        in_containerd(&name);
    }
    finish(cli);
}

/// Pulls and runs such an image with containerd, whose differ needs a mkfs.erofs to be there, and does not start it.
fn in_containerd(name: &str) {
    let tools = Scratch::new();
    let mkfs = tools.file("mkfs.erofs", "#!/bin/sh\n[ \"$1\" = --help ] && echo --tar=f || exit 9\n");
    fs::set_permissions(&mkfs, fs::Permissions::from_mode(0o755)).expect("it was just made");
    let setup = Setup { path: vec![tools.path("")], ..Setup::default() };
    let Ok(containerd) = Daemon::with(Kind::Containerd, setup) else { return };
    let ctr = || containerd.ctr().expect("a daemon that runs has its client");
    let platform = format!("linux(+erofs)/{}", testkit::image::architecture());
    ctr().line("images pull --plain-http --snapshotter erofs --platform").args([&platform, name]).ok();
    let run = ctr().line("run --rm --snapshotter erofs --platform").args([&platform, name, "one"]);
    assert_eq!(run.args(["cat", "/told/again"]).ok(), "kept");
    containerd.finish();
}

#[test]
fn layers_stay_archives_and_are_one_mount_if_that_is_asked_for() {
    let config = "[plugins.'io.containerd.differ.v1.erofs']\n enable_tar_index = true\n\
                  [plugins.'io.containerd.snapshotter.v1.erofs']\n max_unmerged_layers = 1\n";
    let Ok(cli) = Cli::with(Kind::Berth, Setup { config: config.to_owned(), ..Setup::default() }) else {
        return;
    };
    let info = cli.run("info").ok();
    if need::that(info.contains("erofs"), &format!("the snapshotter erofs:\n{info}")).is_err() {
        return;
    }
    let image = stacked("berth.test/stacked:1");
    let archive = cli.daemon().scratch().file("stacked.tar", image.docker_archive());
    cli.run("load -i").arg(archive).ok();
    let run = "run --snapshotter erofs --name one berth.test/stacked:1";
    let script =
        "cat /told/again /hidden/above | wc -c; ls /told /hidden; echo more >> /told/kept; cat /told/kept";
    let told = cli.sh(run, script).ok();
    assert_eq!(told, "100004\n/hidden:\nabove\n\n/told:\nagain\nkept\nlink\nnew\nkeptmore\n");
    assert_eq!(images(&cli).len(), 3);
    // Others are left from unpacking the layer that needed those below it.
    let root = format!("{}/", cli.daemon().root().display());
    let table = fs::read_to_string("/proc/self/mountinfo").expect("every Linux has it");
    let merged = table.lines().filter(|line| line.contains(&root) && line.contains("/merged "));
    assert_eq!(merged.count(), 1, "{table}");
    let kept: Vec<Vec<u8>> = images(&cli).iter().map(|path| fs::read(path).expect("it is there")).collect();
    for tar in image.tars() {
        assert!(kept.iter().any(|image| image[4096..].starts_with(tar)), "an archive is in no image");
    }
    cli.run("--snapshotter erofs commit one berth.test/made:1").ok();
    // The layer of what was written has blocks of another size, so that all four are mounted one by one.
    let run = "run --rm --snapshotter erofs berth.test/made:1 cat /told/kept /told/again";
    assert_eq!(cli.run(run).ok(), "keptmore\nkept");
    finish(cli);
}

#[test]
fn foreign_clients_can_use_it() {
    let Some(cli) = with_erofs() else { return };
    let ctr = || cli.daemon().ctr().expect("a daemon that runs has its client");
    let point = cli.path("point");
    fs::create_dir(&point).expect("the scratch folder is there");
    // It unpacks the image, makes a view, and mounts that by itself.
    ctr().line("images mount --snapshotter erofs").arg(IMAGE).arg(&point).ok();
    assert!(point.join("bin/sh").exists());
    ctr().line("images unmount --rm --snapshotter erofs").arg(&point).ok();
    let run = ctr().line("run --rm --snapshotter erofs").args([IMAGE, "one", "echo", "by ctr"]);
    assert_eq!(run.ok(), "by ctr\n");
    finish(cli);
}

/// Containers whose changes are kept, committed and gone with them, and a daemon that is killed meanwhile.
fn serves(name: &str, config: String) {
    let Ok(mut cli) = Cli::with(Kind::Berth, Setup { config, ..Setup::default() }) else { return };
    let ready = cli.run("info --format {{.Snapshotters}}").ok();
    assert!(ready.contains(name), "{ready}\n{}", cli.run("info").ok());
    let run = format!("run --snapshotter {name}");
    let script = "echo changed > /etc/new && rm /bin/sh && cat /etc/new";
    assert_eq!(cli.sh(&format!("{run} --name one {IMAGE}"), script).ok(), "changed\n");
    cli.daemon_mut().kill();
    cli.daemon_mut().restart();
    assert_eq!(cli.run("start -a one").outcome().code(), 127, "its shell is gone, and nobody else's");
    assert_eq!(cli.sh(&format!("{run} --rm {IMAGE}"), "test -e /etc/new || echo new").ok(), "new\n");
    cli.run(&format!("--snapshotter {name} commit one berth.test/made:1")).ok();
    let made = format!("{run} --rm berth.test/made:1");
    assert_eq!(cli.run(&format!("{made} cat /etc/new")).ok(), "changed\n");
    assert_eq!(cli.run(&format!("{made} test -e /bin/sh")).outcome().code(), 1);
    let ctr = cli.daemon().ctr().expect("a daemon that runs has its client");
    let foreign = ctr.line(&format!("run --rm --snapshotter {name}")).args([IMAGE, "two", "echo", "by ctr"]);
    assert_eq!(foreign.ok(), "by ctr\n");
    clear(&cli);
    let rows = || cli.run(&format!("snapshot ls --snapshotter {name} -q")).ok();
    wait::soon("its snapshots are removed", || rows().is_empty());
    cli.finish();
}

#[test]
fn containers_run_on_subvolumes() {
    let Ok(volume) = Volume::btrfs() else { return };
    let root = volume.root().join("snapshots");
    serves("btrfs", format!("[plugins.'io.containerd.snapshotter.v1.btrfs']\n root_path = {root:?}\n"));
}

#[test]
fn containers_run_on_images_of_filesystems() {
    let scratch = Scratch::new();
    let Ok(empty) = empty_ext4(&scratch, 64 << 20) else { return };
    let config = format!("[plugins.'io.containerd.snapshotter.v1.blockfile']\n scratch_file = {empty:?}\n");
    serves("blockfile", config);
}

#[test]
fn who_holds_a_snapshot_is_told() {
    let Ok(cli) = Cli::start() else { return };
    let why =
        |name: &str| cli.run("snapshot why --format").args(["{{.What}} {{.Name}}: {{.How}}", name]).ok();
    let committed = || cli.run("snapshot ls -q -f kind=committed").ok();
    cli.run(&format!("create --name one {IMAGE}")).ok();
    let layers: Vec<String> = committed().lines().map(str::to_owned).collect();
    let [layer] = &layers[..] else { panic!("an image of one layer: {layers:?}") };
    let container = cli.run("inspect --format {{.Id}} one").ok();
    let container = container.trim();
    let active = cli.run("snapshot ls -q -f kind=active").ok();
    let told = why(layer);
    for line in [
        format!("image {IMAGE}: layer 1 of 1"),
        format!("container {container}: its root filesystem is made of it"),
        format!("snapshot {}: stands on it (active)", active.trim()),
    ] {
        assert!(told.lines().any(|found| found == line), "{line} is not in:\n{told}");
    }
    assert_eq!(told.lines().count(), 3, "{told}");
    assert_eq!(why(&layer["sha256:".len()..][..8]), told, "a short name is enough");
    assert_eq!(why(active.trim()), format!("container {container}: its root filesystem\n"));
    assert!(cli.run("snapshot why absent").fails().contains("no such snapshot: absent"));

    let taken = |format: &str| {
        let rows = cli.run("snapshot df --format").arg(format!("{{{{.Name}}}} {format}")).ok();
        let row = rows.lines().find_map(|row| row.strip_prefix("overlayfs ")).map(str::to_owned);
        row.unwrap_or_else(|| panic!("{rows}"))
    };
    assert_eq!(taken("{{.Committed}} {{.Active}} {{.Views}} {{.Reclaimable}}"), "1 1 0 0B (0%)");
    assert!(cli.run("snapshot df").ok().starts_with("SNAPSHOTTER"));
    cli.run("rm one").ok();
    let all = taken("{{.Size}}");
    wait::soon("the container's layer is gone", || taken("{{.Active}}") == "0");
    assert_eq!(taken("{{.Reclaimable}}"), format!("{all} (100%)"));

    let ctr = || cli.daemon().ctr().expect("a daemon that runs has its client");
    ctr().line("leases create --id held").ok();
    hold(&cli, "held", layer);
    cli.run(&format!("rmi {IMAGE}")).ok();
    wait::soon("the lease alone to hold the layer", || {
        let told = why(layer);
        told.starts_with("lease held: holds it until ") && told.lines().count() == 1
    });
    ctr().line("leases rm --sync held").ok();
    assert_eq!(committed(), "");
    cli.finish();
}

/// Lets a lease hold a snapshot.
fn hold(cli: &Cli, lease: &str, snapshot: &str) {
    let path = cli.daemon().address();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let resource = Resource { id: snapshot.to_owned(), r#type: "snapshots/overlayfs".to_owned() };
    let message = AddResourceRequest { id: lease.to_owned(), resource: Some(resource) };
    let mut request = Request::new(message);
    let namespace = cli.daemon().tag().parse().expect("a tag is a word");
    request.metadata_mut().insert("containerd-namespace", namespace);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let added = runtime.block_on(async {
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        LeasesClient::new(channel).add_resource(request).await
    });
    added.expect("the lease is there");
}

#[test]
fn what_a_container_writes_can_have_a_limit() {
    if need::program("mkfs.ext4").is_err() {
        return;
    }
    let config = "[plugins.'io.containerd.snapshotter.v1.erofs']\n default_size = '32MiB'\n".to_owned();
    let Ok(mut cli) = Cli::with(Kind::Berth, Setup { config, ..Setup::default() }) else { return };
    let info = cli.run("info").ok();
    if need::that(info.contains("erofs"), &format!("the snapshotter erofs:\n{info}")).is_err() {
        return;
    }
    let script = "echo kept > /kept; dd if=/dev/zero of=/large bs=1M count=64 2>&1; rm /large; cat /kept";
    let told = cli.sh(&format!("run --snapshotter erofs --name one {IMAGE}"), script).ok();
    assert!(told.contains("No space left on device") && told.ends_with("kept\n"), "{told}");
    cli.daemon_mut().kill();
    cli.daemon_mut().restart();
    assert_eq!(cli.run("cp one:/kept -").outcome().code(), 0);
    let ctr = cli.daemon().ctr().expect("a daemon that runs has its client");
    assert_eq!(
        ctr.line("run --rm --snapshotter erofs").args([IMAGE, "two", "echo", "by ctr"]).ok(),
        "by ctr\n"
    );
    cli.run("--snapshotter erofs commit one berth.test/made:1").ok();
    assert_eq!(cli.run("run --snapshotter erofs --rm berth.test/made:1 cat /kept").ok(), "kept\n");
    finish(cli);
}
