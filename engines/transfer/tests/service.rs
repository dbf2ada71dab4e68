//! What the transfer service asks for, done over real daemons.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

mod common;

use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use berth_core::{
    Catalog, Deletion, ExportArchive, ExportPlatforms, ImageStore, ImportArchive, Login, Logins,
    NamedByDigest, OtherNames, PlainLayers, Reference, RegistryEnd, Requester, TransferStep, Transfers,
    UnpackInto,
};
use berth_registry::{Config, Registries};
use berth_transfer::{Import, Service};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, Labels, Result};
use common::{World, on_daemons};
use testkit::Kind;
use testkit::image::{Image as Made, Layer};
use testkit::registry::{DockerRegistry, Reply, Standin, serve};
use tokio::sync::watch;

const NEW: [Kind; 2] = [Kind::Containerd, Kind::Berth];

fn made() -> Made {
    Made::new("berth.test/made:1")
        .layer(Layer::new().dir("etc", 0o755).file("etc/one", b"1", 0o644))
        .layer(Layer::new().file("two", b"2", 0o644))
        .cmd(&["/bin/true"])
}

fn service(world: &World) -> Service {
    let registries = Registries::new(Config { pause: Duration::from_millis(1), ..Config::default() });
    Service::new(world.client.clone(), world.scope.clone(), registries)
}

fn archive(bytes: impl Read + Send + 'static) -> ImportArchive {
    ImportArchive { archive: Box::new(bytes), plain: PlainLayers::Kept }
}

/// A requester that remembers what it is told, and goes when it is told to.
#[derive(Clone)]
struct Listener {
    told: Arc<Mutex<Vec<TransferStep>>>,
    gone: watch::Sender<bool>,
}

impl Listener {
    fn new() -> Self {
        Self { told: Arc::default(), gone: watch::Sender::new(false) }
    }

    /// `event name` of each step, without the bytes on their way.
    fn words(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        told.iter().map(|step| format!("{} {}", step.event, step.name).trim().to_owned()).collect()
    }
}

#[async_trait]
impl Requester for Listener {
    fn listens(&self) -> bool {
        true
    }

    async fn tell(&self, step: TransferStep) {
        self.told.lock().unwrap().push(step);
    }

    async fn gone(&self) {
        let mut gone = self.gone.subscribe();
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

fn store(name: &str) -> ImageStore {
    ImageStore { name: Some(name.parse().unwrap()), ..ImageStore::default() }
}

/// An image store that takes an archive's names, and unpacks.
fn taking(world: &World) -> ImageStore {
    ImageStore {
        references: vec![Reference::Prefix {
            name: "import".into(),
            others: OtherNames::Taken,
            digests: NamedByDigest::Unnamed,
        }],
        unpacks: vec![UnpackInto { platform: None, snapshotter: Some(world.native.clone()) }],
        ..ImageStore::default()
    }
}

/// Waits until nothing that a transfer made is left. Collections come when the daemon sees fit, so they are asked
/// for; what was under way when the transfer ended may come after the first of them.
async fn nothing_is_left(world: &World) {
    let leases = world.client.leases(&world.scope);
    let content = world.client.content(&world.scope);
    let snapshots = world.client.snapshotter(&world.native, &world.scope).unwrap();
    let mut left = String::new();
    let looking = async {
        loop {
            let held = leases.list(&Filters::default()).await.unwrap();
            let lease = leases.create(Some("last".parse().unwrap()), Labels::new()).await.unwrap();
            leases.delete(&lease.id, Deletion::Synchronous).await.unwrap();
            let blobs = content.list(&Filters::default()).await.unwrap();
            let ingests = content.ingests(&Filters::default()).await.unwrap();
            let snapshots = snapshots.list(&Filters::default()).await.unwrap();
            if held.is_empty() && blobs.is_empty() && ingests.is_empty() && snapshots.is_empty() {
                return;
            }
            left = format!("{held:?} {blobs:?} {ingests:?} {snapshots:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(testkit::wait::SOON, looking).await;
    assert!(done.is_ok(), "left: {left}");
}

async fn empty(world: &World) {
    let images = world.catalog().images(&world.scope);
    for image in images.list(&Filters::default()).await.unwrap() {
        // One name may go with another.
        let gone = images.delete(&image.name, None, Deletion::Synchronous).await;
        assert!(gone.is_ok() || gone.is_err_and(|error| error.kind() == ErrorKind::NotFound));
    }
    nothing_is_left(world).await;
}

#[test]
fn an_archive_is_imported_named_unpacked_and_exported_again() {
    on_daemons(&NEW, |world| async move {
        let (service, listener) = (service(&world), Listener::new());
        let from = archive(Cursor::new(made().oci_archive()));
        service.import(from, taking(&world), &listener).await.unwrap();
        let images = world.client.images(&world.scope);
        let listed = images.list(&Filters::default()).await.unwrap();
        let names: Vec<&str> = listed.iter().map(|image| image.name.as_str()).collect();
        // The index has its digest as a name, as from containerd.
        assert!(names[0] == "berth.test/made:1" && names[1].starts_with("import@sha256:"), "{names:?}");
        let saved = [format!("saved {}", names[1]), "saved berth.test/made:1".to_owned()];
        let words =
            ["Importing".to_owned(), saved[0].clone(), saved[1].clone(), "Completed import".to_owned()];
        assert_eq!(listener.words(), words);
        let snapshots = world.client.snapshotter(&world.native, &world.scope).unwrap();
        assert_eq!(snapshots.list(&Filters::default()).await.unwrap().len(), 2);

        let more = ImageStore {
            references: vec![Reference::Exact("berth.test/third:3".parse().unwrap())],
            ..store("berth.test/second:2")
        };
        service.tag(store("berth.test/made:1"), more).await.unwrap();
        let third = images.image(&"berth.test/third:3".parse().unwrap()).await.unwrap();
        assert_eq!(third.target.digest, listed[0].target.digest);
        let absent = service.tag(store("absent:1"), store("other:1")).await.unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
        assert_eq!(
            service.tag(store("berth.test/made:1"), ImageStore::default()).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );

        let output = Output::default();
        let listener = Listener::new();
        service.export(store("berth.test/made:1"), exporting(&output), &listener).await.unwrap();
        assert_eq!(listener.words(), ["Exporting", "Completed export"]);
        empty(&world).await;
        let written = output.0.lock().unwrap().clone();
        assert!(!written.windows(13).any(|bytes| bytes == b"manifest.json"));
        service.import(archive(Cursor::new(written)), taking(&world), &listener).await.unwrap();
        assert!(images.image(&"berth.test/made:1".parse().unwrap()).await.is_ok());
        empty(&world).await;
        world
    });
}

/// A writer whose bytes stay when it is dropped.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl io::Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn exporting(output: &Output) -> ExportArchive {
    ExportArchive {
        archive: Box::new(output.clone()),
        platforms: ExportPlatforms::Only(Vec::new()),
        without_manifest_json: true,
        without_foreign_layers: false,
    }
}

/// An archive of which the second half does not come, and says when that is being waited for.
struct Stalling {
    start: Cursor<Vec<u8>>,
    waits: watch::Sender<bool>,
    end: std::sync::mpsc::Receiver<()>,
}

impl Read for Stalling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.start.read(buffer)?;
        if read == 0 {
            self.waits.send_replace(true);
            // The other end goes with the test.
            let _ = self.end.recv();
        }
        Ok(read)
    }
}

#[test]
fn an_import_ends_with_its_requester_and_leaves_nothing() {
    on_daemons(&NEW, |world| async move {
        let (service, listener) = (service(&world), Listener::new());
        let mut bytes = made().oci_archive();
        bytes.truncate(bytes.len() * 2 / 3);
        let (waits, end) = (watch::Sender::new(false), std::sync::mpsc::channel());
        let from = archive(Stalling { start: Cursor::new(bytes), waits: waits.clone(), end: end.1 });
        let goes = async {
            waits.subscribe().wait_for(|waits| *waits).await.unwrap();
            listener.gone.send_replace(true);
        };
        let (ended, ()) = tokio::join!(service.import(from, taking(&world), &listener), goes);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(world.client.images(&world.scope).list(&Filters::default()).await.unwrap(), []);
        nothing_is_left(&world).await;
        drop(end.0);
        world
    });
}

#[test]
fn an_archive_that_is_broken_leaves_nothing_under_the_clients_lease() {
    on_daemons(&NEW, |mut world| async move {
        let leases = world.client.leases(&world.scope);
        let lease = leases.create(Some("own".parse().unwrap()), Labels::new()).await.unwrap();
        let plain = world.scope.clone();
        world.scope = plain.with_lease(lease.id.clone());
        let (service, listener) = (service(&world), Listener::new());
        let good = made().oci_archive();
        let cut = good[..good.len() / 2].to_vec();
        let mut lie = good.clone();
        let at = lie.windows(9).position(|bytes| bytes == b"/bin/true").unwrap();
        lie[at + 1] = b'x';
        for (bytes, why) in [(cut, "cut"), (lie, "a lie"), (b"no archive".to_vec(), "none")] {
            let error = service.import(archive(Cursor::new(bytes)), taking(&world), &listener).await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument, "{why}");
            assert_eq!(leases.resources(&lease.id).await.unwrap(), [], "{why}");
        }
        // What has no name is the lease's to keep.
        let unnamed = ImageStore { references: Vec::new(), ..taking(&world) };
        service.import(archive(Cursor::new(good)), unnamed, &listener).await.unwrap();
        assert_eq!(leases.resources(&lease.id).await.unwrap().len(), 2);
        let other = leases.create(Some("other".parse().unwrap()), Labels::new()).await.unwrap();
        leases.delete(&other.id, Deletion::Synchronous).await.unwrap();
        let content = world.client.content(&world.scope);
        assert_eq!(
            content.list(&Filters::default()).await.unwrap().len(),
            5,
            "index, manifest, config, layers"
        );
        leases.delete(&lease.id, Deletion::Synchronous).await.unwrap();
        world.scope = plain;
        nothing_is_left(&world).await;
        world
    });
}

#[test]
fn layers_of_a_docker_archive_are_compressed_where_that_is_wanted() {
    on_daemons(&NEW, |world| async move {
        let (service, listener) = (service(&world), Listener::new());
        let bytes = Cursor::new(made().docker_archive());
        let from = ImportArchive { archive: Box::new(bytes), plain: PlainLayers::Compressed };
        service.import(from, taking(&world), &listener).await.unwrap();
        let image =
            world.client.images(&world.scope).image(&"berth.test/made:1".parse().unwrap()).await.unwrap();
        let host = berth_oci::image::PlatformMatch::host();
        let content = world.client.content(&world.scope);
        let loaded = berth_transfer::load(&*content, &image.target, &host).await.unwrap();
        for (layer, diff_id) in loaded.manifest.layers.iter().zip(&loaded.config.rootfs.diff_ids) {
            assert!(layer.media_type.ends_with("tar.gzip"), "{}", layer.media_type);
            let info = content.info(&layer.digest).await.unwrap();
            assert_eq!(info.labels["containerd.io/uncompressed"], diff_id.as_str());
        }
        empty(&world).await;
        world
    });
}

#[test]
fn what_another_namespace_has_is_taken_over() {
    on_daemons(&NEW, |mut world| async move {
        let listener = Listener::new();
        let own = world.scope.clone();
        for namespace in [format!("{}-2", own.namespace), own.namespace.to_string()] {
            world.scope = berth_core::Scope::new(namespace.parse().unwrap());
            let from = archive(Cursor::new(made().oci_archive()));
            service(&world).import(from, taking(&world), &listener).await.unwrap();
        }
        for namespace in [own.namespace.to_string(), format!("{}-2", own.namespace)] {
            world.scope = berth_core::Scope::new(namespace.parse().unwrap());
            empty(&world).await;
        }
        world.scope = own;
        world
    });
}

/// Knows one login, and who asked.
struct Known {
    login: Option<Login>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Logins for Known {
    async fn login(&self, host: &str) -> Result<Option<Login>> {
        self.asked.lock().unwrap().push(host.to_owned());
        Ok(self.login.clone())
    }
}

fn end(reference: &str, login: Option<Login>) -> (RegistryEnd, Arc<Known>) {
    let known = Arc::new(Known { login, asked: Mutex::default() });
    let end = RegistryEnd {
        reference: reference.parse().unwrap(),
        headers: vec![("X-Test".into(), "yes".into())],
        hosts: Vec::new(),
        plain_http: true,
        logins: Some(known.clone()),
        transcript: None,
    };
    (end, known)
}

#[test]
fn an_image_goes_to_a_registry_with_a_login_and_comes_back_with_its_tree_told() {
    on_daemons(&NEW, |world| async move {
        let Ok(registry) = DockerRegistry::with_login() else { return world };
        let service = service(&world);
        world.import(made().oci_archive(), &Import::default()).await.unwrap();
        let (user, password) = registry.login();
        let login = Login::Password { user: user.into(), password: password.into() };
        let name = format!("{}/a/b:1", registry.address());
        let (to, known) = end(&name, Some(login.clone()));
        let listener = Listener::new();
        service.push(store("berth.test/made:1"), to, &listener).await.unwrap();
        assert_eq!(*known.asked.lock().unwrap(), [registry.address()]);
        let words = listener.words();
        assert_eq!(words[0], format!("Pushing to OCI Registry ({name})"));
        assert_eq!(
            words[words.len() - 2..],
            [
                "pushed content berth.test/made:1".to_owned(),
                format!("Completed push to OCI Registry ({name})")
            ]
        );
        empty(&world).await;

        let listener = Listener::new();
        let (from, _) = end(&name, None);
        let error = service.pull(from, store(&name), &listener).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(error.message().starts_with("failed to resolve image: pull access denied"), "{error:?}");
        let unnamed = service.pull(end(&name, None).0, ImageStore::default(), &listener).await;
        assert_eq!(unnamed.unwrap_err().kind(), ErrorKind::NotFound);

        let listener = Listener::new();
        let unpacks = taking(&world).unpacks;
        let references = vec![Reference::Prefix {
            name: "berth.test/pinned".into(),
            others: OtherNames::LeftOut,
            digests: NamedByDigest::Unnamed,
        }];
        let to = ImageStore { unpacks, references, ..store(&name) };
        service.pull(end(&name, Some(login)).0, to, &listener).await.unwrap();
        let images = world.client.images(&world.scope).list(&Filters::default()).await.unwrap();
        let pinned = format!("berth.test/pinned@{}", images[0].target.digest);
        assert_eq!(
            images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(),
            [name.as_str(), &pinned]
        );
        let told = listener.told.lock().unwrap().clone();
        let manifest = told.iter().find(|step| step.event == "complete").unwrap();
        assert!(manifest.name.starts_with("manifest-sha256:"), "{manifest:?}");
        assert_eq!(manifest.parents, std::slice::from_ref(&name));
        let extracted: Vec<_> = told.iter().filter(|step| step.event == "extracted").collect();
        assert_eq!(extracted.len(), 2);
        assert!(extracted.iter().all(|step| step.parents == [manifest.name.clone()]), "{extracted:?}");
        assert!(extracted[0].target.as_ref().unwrap().media_type.contains("layer"));
        let words = listener.words();
        assert_eq!(
            words[..3],
            [
                format!("Resolving from OCI Registry ({name})"),
                format!("Pulling from OCI Registry ({name})"),
                format!("fetching image content {name}"),
            ]
        );
        assert_eq!(
            words[words.len() - 3..],
            [
                format!("saved {name}"),
                format!("saved {pinned}"),
                format!("Completed pull from OCI Registry ({name})"),
            ]
        );
        empty(&world).await;
        world
    });
}

#[test]
fn metadata_of_other_platforms_comes_along_where_it_is_wanted_and_a_limit_holds() {
    on_daemons(&NEW, |world| async move {
        let own = berth_oci::image::host_platform().architecture;
        let other = if own == "arm64" { "amd64" } else { "arm64" };
        let images =
            [made(), made().layer(Layer::new().file("three", b"3", 0o644)).set("architecture", other.into())];
        let kind = "application/vnd.oci.image.index.v1+json";
        let entry = |image: &Made, architecture: &str| {
            let manifest = image.manifest();
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                berth_archive::Hasher::digest(&manifest),
                manifest.len()
            )
        };
        let entries = [entry(&images[0], &own), entry(&images[1], other)].join(",");
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{entries}]}}"#);
        let digest = berth_archive::Hasher::digest(index.as_bytes());
        let standin = Standin::start(move |request| {
            match request.path().strip_prefix("/v2/a/b/manifests/") {
                Some(name) if name == "1" || name == digest.as_str() => {
                    return Reply::new(200, index.clone())
                        .header("Content-Type", kind)
                        .header("Docker-Content-Digest", digest.as_str());
                }
                _ => {}
            }
            let answers = images.each_ref().map(|image| serve(image, "a/b", "none", request));
            let [first, second] = answers;
            if first.status == 404 { second } else { first }
        });
        let name = format!("{}/a/b:1", standin.address());
        let count = async |store: ImageStore| {
            let (from, _) = end(&name, None);
            service(&world).pull(from, store, &Listener::new()).await.unwrap();
            let found = world.client.content(&world.scope).list(&Filters::default()).await.unwrap().len();
            empty(&world).await;
            found
        };
        let host = vec![berth_oci::image::host_platform()];
        let wanted = ImageStore { platforms: host, ..store(&name) };
        // Index, manifest, configuration and two layers.
        assert_eq!(count(wanted.clone()).await, 5);
        assert_eq!(count(ImageStore { all_metadata: true, ..wanted }).await, 7);
        // The second image has one layer more, and shares two.
        assert_eq!(count(store(&name)).await, 8);
        assert_eq!(count(ImageStore { manifest_limit: 1, ..store(&name) }).await, 5);
        assert!(standin.requests().iter().all(|request| request.header("x-test") == Some("yes")));
        world
    });
}
