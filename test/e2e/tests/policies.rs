//! Programs of the administrator's own on an image's way in: verifiers and stream processors, on berthd and on a
//! containerd 2.3 beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use e2e::ctr;
use testkit::image::{self, Image, Layer};
use testkit::registry::{Standin, serve};
use testkit::{Daemon, Kind, Scratch, Setup, programs};

const BOTH: [Kind; 2] = [Kind::Containerd, Kind::Berth];

fn script(scratch: &Scratch, name: &str, text: &str) -> PathBuf {
    let path = scratch.file(name, format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

fn registry() -> (Standin, String) {
    let image = Image::new("a/b:1").layer(Layer::new().file("x", b"1", 0o644));
    let standin = Standin::start(move |request| serve(&image, "a/b", "1", request));
    let name = format!("{}/a/b:1", standin.address());
    (standin, name)
}

fn blobs(standin: &Standin) -> usize {
    standin.requests().iter().filter(|request| request.path().contains("/blobs/")).count()
}

#[test]
fn an_image_is_pulled_only_if_its_verifiers_are_content() {
    for kind in BOTH {
        let programs = Scratch::new();
        let config = format!(
            "[plugins.'io.containerd.image-verifier.v1.bindir']\n  bin_dir = {:?}\n  max_verifiers = 2\n  \
             per_verifier_timeout = '2s'\n",
            programs.folder()
        );
        let Ok(daemon) = Daemon::with(kind, Setup { config, ..Setup::default() }) else { continue };
        let (standin, name) = registry();
        let pull = || ctr(&daemon, &format!("images pull --plain-http {name}"));
        let seen = programs.folder().join("seen");
        let log = daemon.scratch().path("seen");
        script(&programs, "a", &format!("echo \"$2\" >> {}; cat >/dev/null; echo fine", log.display()));
        script(&programs, "b", "echo no signature; exit 3");
        let refused = pull().fails();
        let wanted = format!("image verifier bindir blocked pull of {name}");
        assert!(refused.contains(&wanted), "{kind:?}: {refused}");
        assert!(refused.contains("verifier b rejected image (exit code 3): no signature"), "{refused}");
        script(&programs, "b", "exec sleep 1000");
        let refused = pull().fails();
        assert!(refused.contains(&format!("blocking pull of {name}")), "{kind:?}: {refused}");
        script(&programs, "b", "kill -9 $$");
        assert!(pull().fails().contains("failed to call verifier b"), "{kind:?}");
        assert_eq!(blobs(&standin), 0, "nothing is fetched before the judgement");
        assert_eq!(ctr(&daemon, "images ls -q").ok(), "");
        script(&programs, "b", "exit 0");
        pull().ok();
        assert_eq!(ctr(&daemon, "images ls -q").ok().trim(), name);
        let asked = fs::read_to_string(&log).expect("the first verifier was asked");
        assert!(asked.lines().all(|line| line == name), "{asked}");
        assert!(!seen.exists());
        daemon.finish();
    }
}

#[test]
fn the_command_line_asks_the_daemons_verifiers_and_a_missing_folder_blocks() {
    let Some(berth) = programs::own("berth") else { return };
    let verifiers = Scratch::new();
    let folder = verifiers.path("bin");
    let config = format!("[plugins.'io.containerd.image-verifier.v1.bindir']\n  bin_dir = {folder:?}\n");
    let Ok(daemon) = Daemon::with(Kind::Berth, Setup { config, ..Setup::default() }) else { return };
    let (standin, name) = registry();
    let home = daemon.scratch().path("home");
    let pull = || daemon.client(&berth).arg("--data-root").arg(&home).arg("pull").arg(&name);
    for complaint in [pull().fails(), ctr(&daemon, &format!("images pull --plain-http {name}")).fails()] {
        assert!(complaint.contains("cannot list") && complaint.contains("bin_dir"), "{complaint}");
    }
    fs::create_dir(&folder).expect("the scratch folder takes a folder");
    assert!(pull().fails().contains("holds no verifier"));
    script(&verifiers, "bin/v", "echo unsigned; exit 1");
    let complaint = pull().fails();
    assert!(complaint.contains("verifier v rejected image (exit code 1): unsigned"), "{complaint}");
    assert_eq!(blobs(&standin), 0);
    script(&verifiers, "bin/v", "exit 0");
    pull().ok();
    daemon.finish();
}

#[test]
fn images_are_unpacked_and_found_where_the_daemons_configuration_says() {
    let places = Scratch::new();
    let table = "[plugins.'io.containerd.transfer.v1.local']";
    let config = format!(
        "{table}\n  config_path = {:?}\n  max_concurrent_downloads = 1\n  max_concurrent_unpacks = 1\n  \
         [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n    snapshotter = 'native'\n",
        places.folder()
    );
    let Ok(daemon) = Daemon::with(Kind::Berth, Setup { config, ..Setup::default() }) else { return };
    let (standin, name) = registry();
    // A name that leads nowhere without the folder of the configuration.
    let folder = places.path("r.test");
    fs::create_dir(&folder).expect("the scratch folder takes a folder");
    fs::write(folder.join("hosts.toml"), format!("server = 'http://{}'\n", standin.address()))
        .expect("the folder takes a file");
    let refused = ctr(&daemon, "images pull --snapshotter overlayfs r.test/a/b:1").fails();
    assert!(refused.contains("no unpack platforms defined"), "{refused}");
    ctr(&daemon, "images pull --snapshotter native r.test/a/b:1").ok();
    assert_eq!(ctr(&daemon, "snapshots --snapshotter native ls").ok().lines().count(), 2);
    ctr(&daemon, &format!("images pull --plain-http --snapshotter native {name}")).ok();
    daemon.finish();
}

/// A cipher that a shell has: every byte of the layer is turned.
const TURN: &str = "tr '\\000-\\377' '\\200-\\377\\000-\\177'";

#[test]
fn encrypted_layers_go_through_their_stream_processor() {
    for kind in BOTH {
        let programs = Scratch::new();
        let key = programs.path("key");
        let decoder = script(
            &programs,
            "decoder",
            &format!(
                "[ -e {} ] || {{ echo no key for this layer >&2; exit 7; }}\nexec {TURN}",
                key.display()
            ),
        );
        // Under the name of containerd's own: of two that take the same layers it asks whichever comes first.
        let config = format!(
            "[stream_processors.'io.containerd.ocicrypt.decoder.v1.tar.gzip']\n  accepts = ['application/vnd.oci.image.layer.v1.tar+gzip+encrypted']\n  \
             returns = 'application/vnd.oci.image.layer.v1.tar+gzip'\n  path = {decoder:?}\n"
        );
        let Ok(daemon) = Daemon::with(kind, Setup { config, ..Setup::default() }) else { continue };
        let made = Image::new("a/b:1").layer(Layer::new().file("secret", b"in the clear", 0o644));
        let locked = locked(&made);
        let served = locked.clone();
        let standin = Standin::start(move |request| served.serve(request));
        let name = format!("{}/a/b:1", standin.address());
        let pull = || ctr(&daemon, &format!("images pull --plain-http {name}"));
        if kind == Kind::Berth {
            // containerd tells of its gzip reader's error, which comes first.
            let complaint = pull().fails();
            assert!(complaint.contains("failed with status 7: no key for this layer"), "{complaint}");
            assert_eq!(ctr(&daemon, "images ls -q").ok(), "");
        }
        fs::write(&key, "").expect("the scratch folder takes a file");
        pull().ok();
        let snapshots = daemon.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        let snapshots = fs::read_dir(snapshots).expect("there is a snapshot");
        let found = snapshots.flatten().find_map(|entry| fs::read(entry.path().join("fs/secret")).ok());
        let found = found.expect("the layer was unpacked");
        assert_eq!(found, b"in the clear", "{kind:?}");
        daemon.finish();
    }
}

/// An image whose one layer is turned.
#[derive(Clone)]
struct Locked {
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

fn locked(image: &Image) -> Locked {
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&image.manifest()).expect("the test kit writes JSON");
    let turned: Vec<u8> = image.blobs()[0].iter().map(|byte| byte.wrapping_add(128)).collect();
    manifest["layers"][0]["digest"] = image::digest(&turned).into();
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
    let manifest = serde_json::to_vec(&manifest).expect("it is JSON");
    Locked { manifest, blobs: vec![image.config(), turned] }
}

impl Locked {
    fn serve(&self, request: &testkit::registry::Request) -> testkit::registry::Reply {
        use testkit::registry::Reply;
        if request.path().contains("/manifests/") {
            return Reply::new(200, self.manifest.clone())
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                .header("Docker-Content-Digest", &image::digest(&self.manifest));
        }
        let found = self.blobs.iter().find(|blob| request.path().ends_with(&image::digest(blob)));
        found.map_or_else(|| Reply::new(404, ""), |blob| Reply::new(200, blob.clone()))
    }
}
