//! Archives into real daemons and out of them again.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

mod common;

use std::io::Write;

use berth_core::{Catalog, Deletion, read_blob};
use berth_oci::image::PlatformMatch;
use berth_transfer::{
    Digests, Exported, Import, Names, Object, Platforms, Reporter, Source, State, Unpack, Without, export,
    import, load, sizes, unpack,
};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, Image};
use common::{World, on_daemons};
use testkit::image::{Entry, EntryKind, Image as Made, Layer, Tar};
use testkit::{Invocation, Kind, Scratch};

const ALL: [Kind; 3] = [Kind::Debian, Kind::Containerd, Kind::Berth];
const NEW: [Kind; 2] = [Kind::Containerd, Kind::Berth];

fn made() -> Made {
    Made::new("berth.test/made:1")
        .layer(Layer::new().dir("etc", 0o755).file("etc/one", b"1", 0o644).file("gone", b"x", 0o600))
        .layer(Layer::new().file("etc/two", b"2", 0o644).whiteout("etc", "one"))
        .cmd(&["/bin/true"])
}

fn unpacking(image: &Image, world: &World) -> Unpack {
    Unpack {
        target: image.target.clone(),
        platform: PlatformMatch::host(),
        snapshotter: world.native.clone(),
        progress: Reporter::none(),
    }
}

async fn exported(world: &World, images: &[&Image]) -> Vec<u8> {
    let request = Exported {
        images: images.iter().map(|image| (Some(image.name.clone()), image.target.clone())).collect(),
        platforms: Platforms::All,
        docker: PlatformMatch::host(),
        without: Without::default(),
        progress: Reporter::none(),
    };
    export(world.catalog(), &world.scope, &request, Vec::new()).await.unwrap()
}

#[test]
fn an_oci_archive_becomes_an_image_and_its_snapshots_and_an_archive_again() {
    on_daemons(&ALL, |world| async move {
        let image = made();
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let options = Import { progress: Reporter::to(sender), ..Import::default() };
        let imported = world.import(image.oci_archive(), &options).await.unwrap();
        let [record] = &imported.images[..] else { panic!("{imported:?}") };
        assert_eq!(record.name.as_str(), "berth.test/made:1");
        let mut complete = 0;
        while let Ok(event) = events.try_recv() {
            assert_eq!(event.object, Object::File);
            complete += usize::from(event.state == State::Complete && event.offset == event.total);
        }
        assert_eq!(complete, 4);

        let content = world.client.content(&world.scope);
        let labels = content.info(&record.target.digest).await.unwrap().labels;
        assert!(labels.contains_key("containerd.io/gc.ref.content.config"), "{labels:?}");
        assert!(labels.contains_key("containerd.io/gc.ref.content.l.1"), "{labels:?}");

        let unpacked = unpack(world.catalog(), &world.scope, &unpacking(record, &world)).await.unwrap();
        let chain = unpacked.chain.clone().unwrap();
        let snapshots = world.client.snapshotter(&world.native, &world.scope).unwrap();
        let info = snapshots.stat(&chain).await.unwrap();
        assert!(info.parent.is_some());
        let config = content.info(&unpacked.image.manifest.config.digest).await.unwrap();
        assert_eq!(config.labels["containerd.io/gc.ref.snapshot.native"], chain.as_str());
        let again = unpack(world.catalog(), &world.scope, &unpacking(record, &world)).await.unwrap();
        assert_eq!(again.chain, unpacked.chain);
        assert_eq!(snapshots.list(&Filters::default()).await.unwrap().len(), 2, "nothing is left over");
        assert_eq!(world.client.leases(&world.scope).list(&Filters::default()).await.unwrap(), []);

        let host = PlatformMatch::host();
        let size = sizes(world.catalog(), &world.scope, &record.target, &host, &world.native).await.unwrap();
        assert!(size.unpacked.unwrap() > 0);
        let blobs = content.list(&Filters::default()).await.unwrap();
        assert_eq!(size.content, blobs.iter().map(|blob| blob.size).sum::<u64>());

        let archive = exported(&world, &[record]).await;
        world.client.images(&world.scope).delete(&record.name, None, Deletion::Synchronous).await.unwrap();
        assert_eq!(content.list(&Filters::default()).await.unwrap(), []);
        let back = world.import(archive, &Import::default()).await.unwrap();
        assert_eq!(back.images[0].target.digest, record.target.digest);
        assert_eq!(back.images[0].name, record.name);
        world.client.images(&world.scope).delete(&record.name, None, Deletion::Synchronous).await.unwrap();
        world
    });
}

#[test]
fn a_docker_archive_becomes_an_image_also_gzipped_and_behind_links() {
    on_daemons(&ALL, |world| async move {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&made().docker_archive()).unwrap();
        let imported = world.import(gzip.finish().unwrap(), &Import::default()).await.unwrap();
        assert_eq!(imported.images[0].name.as_str(), "berth.test/made:1");
        let unpacked =
            unpack(world.catalog(), &world.scope, &unpacking(&imported.images[0], &world)).await.unwrap();
        assert_eq!(unpacked.image.config.rootfs.diff_ids.len(), 2);
        assert!(unpacked.image.manifest.layers[0].media_type.ends_with("diff.tar"));

        let image = made();
        let layer = &image.blobs()[0];
        let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest(&Layer::new().tar())] } })
        .to_string();
        let manifest = r#"[{"Config":"c.json","RepoTags":["short","docker.io/library/other:2"],"Layers":["a/layer.tar"]}]"#;
        let file =
            |path: &str, bytes: &[u8]| Entry { bytes: bytes.to_vec(), ..Entry::new(EntryKind::File, path) };
        let link = Entry { link: "../b/layer.tar".into(), ..Entry::new(EntryKind::Symlink, "a/layer.tar") };
        let tar = Tar::default()
            .entry(&link)
            .entry(&file("b/VERSION", b"1.0"))
            .entry(&file("b/layer.tar", layer))
            .entry(&file("c.json", config.as_bytes()))
            .entry(&file("manifest.json", manifest.as_bytes()))
            .entry(&file("repositories", b"{}"))
            .finish();
        let zstd = zstd::encode_all(&tar[..], 1).unwrap();
        let imported = world.import(zstd, &Import::default()).await.unwrap();
        let names: Vec<&str> = imported.images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["docker.io/library/short:latest", "docker.io/library/other:2"]);
        let content = world.client.content(&world.scope);
        let loaded = load(&*content, &imported.images[0].target, &PlatformMatch::host()).await.unwrap();
        assert!(loaded.manifest.layers[0].media_type.ends_with("tar.gzip"), "its bytes say so");
        let error = unpack(world.catalog(), &world.scope, &unpacking(&imported.images[0], &world)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::FailedPrecondition, "the layer is not the config's");
        for image in world.client.images(&world.scope).list(&Filters::default()).await.unwrap() {
            let images = world.client.images(&world.scope);
            images.delete(&image.name, None, Deletion::Synchronous).await.unwrap();
        }
        world
    });
}

#[test]
fn a_folder_with_a_layout_becomes_an_image_named_as_asked() {
    on_daemons(&NEW, |world| async move {
        let scratch = Scratch::new();
        made().named("1.0").write_layout(scratch.folder());
        let source = || Source::Layout(scratch.folder().to_owned());
        let names = |names: Names| Import { names, ..Import::default() };
        let options = names(Names { base: Some("berth.test/base".into()), ..Names::default() });
        let imported = import(world.catalog(), &world.scope, source(), &options).await.unwrap();
        // testkit's tag of a name without a colon is "latest"; its full name stands before the tag.
        assert_eq!(imported.images.len(), 1);
        let digest = imported.images[0].target.digest.clone();

        let options = names(Names {
            digests: Some(("berth.test/d".into(), Digests::Every)),
            index: Some("all".parse().unwrap()),
            ..Names::default()
        });
        let imported = import(world.catalog(), &world.scope, source(), &options).await.unwrap();
        let found: Vec<String> = imported.images.iter().map(|image| image.name.to_string()).collect();
        assert!(found.contains(&format!("berth.test/d@{digest}")), "{found:?}");
        let all = imported.images.iter().find(|image| image.name.as_str() == "all").unwrap();
        let archive = exported(&world, &[all]).await;
        let again = world.import(archive, &Import::default()).await.unwrap();
        assert!(again.images.iter().any(|image| image.target.digest == all.target.digest), "{again:?}");

        let empty = Scratch::new();
        let error =
            import(world.catalog(), &world.scope, Source::Layout(empty.folder().to_owned()), &options);
        let error = error.await.unwrap_err();
        assert!(error.message().contains("holds no OCI image layout"), "{error:?}");
        for image in world.client.images(&world.scope).list(&Filters::default()).await.unwrap() {
            let images = world.client.images(&world.scope);
            images.delete(&image.name, None, Deletion::Synchronous).await.unwrap();
        }
        world
    });
}

#[test]
fn several_images_share_an_archive_that_ctr_reads() {
    on_daemons(&NEW, |world| async move {
        let one = world.import(made().oci_archive(), &Import::default()).await.unwrap().images.remove(0);
        let two = made().named("berth.test/two:2").layer(Layer::new().file("more", b"m", 0o644));
        let two = world.import(two.oci_archive(), &Import::default()).await.unwrap().images.remove(0);
        let archive = exported(&world, &[&one, &two]).await;
        let scratch = Scratch::new();
        let path = scratch.file("images.tar", &archive);
        let listed = Invocation::new("tar").arg("-tf").arg(&path).ok();
        let blobs: Vec<&str> = listed.lines().filter(|line| line.starts_with("blobs/sha256/s")).collect();
        assert_eq!(blobs.len(), 0);
        let unique: std::collections::BTreeSet<&str> = listed.lines().collect();
        assert_eq!(unique.len(), listed.lines().count(), "every member once");
        let manifest = Invocation::new("tar").arg("-xOf").arg(&path).arg("manifest.json").ok();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest.as_array().unwrap().len(), 2);
        for image in [one, two] {
            let images = world.client.images(&world.scope);
            images.delete(&image.name, None, Deletion::Synchronous).await.unwrap();
        }
        world
    });
}

#[test]
fn ctr_imports_what_is_exported_and_what_ctr_exports_is_imported() {
    let Ok(daemon) = testkit::Daemon::start(Kind::Containerd) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scratch = Scratch::new();
    let (ours, theirs) = (scratch.path("ours.tar"), scratch.path("theirs.tar"));
    runtime.block_on(async {
        let world = World {
            client: berth_client::Client::connect(daemon.address()).into(),
            scope: berth_core::Scope::new(daemon.tag().parse().unwrap()),
            native: "native".parse().unwrap(),
        };
        let image = world.import(made().oci_archive(), &Import::default()).await.unwrap().images.remove(0);
        std::fs::write(&ours, exported(&world, &[&image]).await).unwrap();
        let name = image.name.as_str();
        daemon.ctr().unwrap().args(["image", "export", "--local"]).arg(&theirs).arg(name).ok();
        daemon.ctr().unwrap().args(["image", "rm", "--sync", name]).ok();
        daemon.ctr().unwrap().args(["image", "import", "--local", "--snapshotter", "native"]).arg(&ours).ok();
        let back = world.client.images(&world.scope).image(&image.name).await.unwrap();
        assert_eq!(back.target.digest, image.target.digest);
        daemon.ctr().unwrap().args(["image", "rm", "--sync", name]).ok();
        let bytes = std::fs::read(&theirs).unwrap();
        let again = world.import(bytes, &Import::default()).await.unwrap();
        assert_eq!(
            (&again.images[0].name, &again.images[0].target.digest),
            (&image.name, &image.target.digest)
        );
        daemon.ctr().unwrap().args(["image", "rm", "--sync", name]).ok();
    });
    drop(runtime);
    daemon.finish();
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    on_daemons(&NEW, |world| async move {
        let file =
            |path: &str, bytes: &[u8]| Entry { bytes: bytes.to_vec(), ..Entry::new(EntryKind::File, path) };
        let layout = file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = |manifests: &str| {
            file("index.json", format!(r#"{{"schemaVersion":2,"manifests":[{manifests}]}}"#).as_bytes())
        };
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let index_type = "application/vnd.oci.image.index.v1+json";
        let pointing = |media_type: &str, bytes: &[u8]| {
            let digest = digest(bytes);
            let descriptor =
                format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, bytes.len());
            Tar::default()
                .entry(&layout)
                .entry(&file(&format!("blobs/sha256/{}", &digest[7..]), bytes))
                .entry(&index(&descriptor))
                .finish()
        };
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{{"mediaType":"x","digest":"{}","size":1}}}}"#,
            digest(b"x")
        );
        let liar = format!(r#"{{"schemaVersion":2,"mediaType":"{manifest_type}","manifests":[]}}"#);
        let mut huge = file("index.json", b"{}");
        huge.claimed_size = Some(4 << 30);
        let lying = file(&format!("blobs/sha256/{}", "a".repeat(64)), b"not that");
        let bad_digest = |digest: &str| {
            let text = format!(r#"{{"mediaType":"{manifest_type}","digest":"{digest}","size":1}}"#);
            Tar::default().entry(&layout).entry(&index(&text)).finish()
        };
        let gzip_cut = {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&made().oci_archive()).unwrap();
            let mut bytes = gzip.finish().unwrap();
            bytes.truncate(bytes.len() - 20);
            bytes
        };
        let mut cut = made().oci_archive();
        cut.truncate(cut.len() / 2);
        let docker =
            |manifest: &str| Tar::default().entry(&file("manifest.json", manifest.as_bytes())).finish();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("both", pointing(manifest_type, both.as_bytes())),
            ("liar", pointing(index_type, liar.as_bytes())),
            ("no json", pointing(manifest_type, b"\xff\xfe")),
            ("huge document", Tar::default().entry(&layout).entry(&huge).cut_off()),
            ("lying blob", Tar::default().entry(&layout).entry(&lying).finish()),
            ("digest too short", bad_digest("sha256:ab")),
            ("digest without hex", bad_digest("sha256:")),
            ("digest that is a word", bad_digest("x")),
            ("no digest", bad_digest("")),
            ("digest not hexadecimal", bad_digest(&format!("sha256:{}", "g".repeat(64)))),
            ("digest of other letters", bad_digest(&format!("sha256:{}", "ä".repeat(32)))),
            ("digest that is a path", bad_digest("sha256:../../../../etc/passwd")),
            (
                "blob with a bad name",
                Tar::default().entry(&layout).entry(&file("blobs/sha256/zz", b"x")).finish(),
            ),
            ("cut gzip", gzip_cut),
            ("cut tar", cut),
            ("empty", Vec::new()),
            ("no tar", b"this is no archive".repeat(100)),
            ("twice", Tar::default().entry(&layout).entry(&layout).entry(&index("")).finish()),
            (
                "old layout",
                Tar::default().entry(&file("oci-layout", br#"{"imageLayoutVersion":"9"}"#)).finish(),
            ),
            ("config missing", docker(r#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#)),
            ("config outside", docker(r#"[{"Config":"../../etc/passwd","Layers":["/etc/shadow"]}]"#)),
            ("link loop", {
                let a = Entry { link: "b".into(), ..Entry::new(EntryKind::Symlink, "a") };
                let b = Entry { link: "a".into(), ..Entry::new(EntryKind::Symlink, "b") };
                let manifest = file("manifest.json", br#"[{"Config":"a","Layers":[]}]"#);
                Tar::default().entry(&a).entry(&b).entry(&manifest).finish()
            }),
        ];
        let content = world.client.content(&world.scope);
        for (what, archive) in cases {
            let error = world.import(archive, &Import::default()).await.expect_err(what);
            let kind = error.kind();
            assert!(
                matches!(
                    kind,
                    ErrorKind::InvalidArgument
                        | ErrorKind::ResourceExhausted
                        | ErrorKind::NotFound
                        | ErrorKind::FailedPrecondition
                ),
                "{what}: {error:?}"
            );
            assert_eq!(
                world.client.images(&world.scope).list(&Filters::default()).await.unwrap(),
                [],
                "{what}"
            );
            assert_eq!(
                world.client.leases(&world.scope).list(&Filters::default()).await.unwrap(),
                [],
                "{what}"
            );
        }
        // Without a lease nothing of them outlives a collection.
        let last = world.import(made().oci_archive(), &Import::default()).await.unwrap().images.remove(0);
        let images = world.client.images(&world.scope);
        images.delete(&last.name, None, Deletion::Synchronous).await.unwrap();
        assert_eq!(content.list(&Filters::default()).await.unwrap(), []);
        world
    });
}

#[test]
fn an_index_of_indexes_is_read_once_each_and_not_without_end() {
    on_daemons(&NEW, |world| async move {
        let index_type = "application/vnd.oci.image.index.v1+json";
        let image = made();
        let manifest = image.manifest();
        let entry = |media_type: &str, bytes: &[u8]| {
            format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, digest(bytes), bytes.len())
        };
        // Each level lists the one below ten times.
        let levels = |count: usize| {
            let mut files = image.blobs();
            files.extend([image.config(), manifest.clone()]);
            let mut at = entry("application/vnd.oci.image.manifest.v1+json", &manifest);
            for _ in 0..count {
                let list = vec![at; 10].join(",");
                let bytes = format!(r#"{{"schemaVersion":2,"manifests":[{list}]}}"#).into_bytes();
                at = entry(index_type, &bytes);
                files.push(bytes);
            }
            let mut tar = Tar::default();
            for bytes in files {
                let path = format!("blobs/sha256/{}", &digest(&bytes)[7..]);
                tar = tar.entry(&Entry { bytes, ..Entry::new(EntryKind::File, &path) });
            }
            let top = format!(r#"{{"schemaVersion":2,"manifests":[{at}]}}"#);
            let layout = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
            tar.entry(&Entry { bytes: top.into_bytes(), ..Entry::new(EntryKind::File, "index.json") })
                .entry(&Entry { bytes: layout, ..Entry::new(EntryKind::File, "oci-layout") })
                .finish()
        };
        let names = Names { fallback: Some("berth.test/deep:1".parse().unwrap()), ..Names::default() };
        let options = Import { names, ..Import::default() };
        let good = world.import(levels(6), &options).await.unwrap();
        assert_eq!(good.images.len(), 1);
        let error = world.import(levels(12), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
        let content = world.client.content(&world.scope);
        read_blob(&*content, &good.images[0].target.digest, 1 << 20).await.unwrap();
        world
    });
}

fn digest(bytes: &[u8]) -> String {
    berth_types::Digest::sha256(<sha2::Sha256 as sha2::Digest>::digest(bytes).into()).to_string()
}
