//! Mounts that the daemon performs for its clients: the service, beside containerd's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_erofs::{Attributes, Builder};
use berth_proto::containerd::services as api;
use berth_proto::containerd::types::{ActivationInfo, Mount};
use e2e::{Cli, IMAGE, ctr};
use hyper_util::rt::TokioIo;
use testkit::{Daemon, Kind, need, wait};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use api::mounts::v1::mounts_client::MountsClient;
use api::mounts::v1::{ActivateRequest, DeactivateRequest, InfoRequest, ListRequest, UpdateRequest};
use api::tasks::v1::tasks_client::TasksClient;

/// A daemon as a client of its API sees it.
struct Seen<'d> {
    daemon: &'d Daemon,
    runtime: Runtime,
    channel: Channel,
}

impl<'d> Seen<'d> {
    fn new(daemon: &'d Daemon) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let path = daemon.address();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let context = runtime.enter();
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        drop(context);
        Self { daemon, runtime, channel }
    }

    fn request<T>(&self, message: T, lease: &str) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(60));
        let namespace = self.daemon.tag().parse().expect("a tag is a word");
        request.metadata_mut().insert("containerd-namespace", namespace);
        if !lease.is_empty() {
            request.metadata_mut().insert("containerd-lease", lease.parse().expect("a word"));
        }
        request
    }

    fn activate_with(&self, request: ActivateRequest, lease: &str) -> Result<ActivationInfo, Status> {
        let mut client = MountsClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.activate(self.request(request, lease)));
        answer.map(|answer| answer.into_inner().info.expect("an answer has it"))
    }

    fn activate(&self, name: &str, mounts: Vec<Mount>) -> Result<ActivationInfo, Status> {
        let name = name.to_owned();
        self.activate_with(ActivateRequest { name, mounts, ..ActivateRequest::default() }, "")
    }

    fn deactivate(&self, name: &str) -> Result<(), Status> {
        let mut client = MountsClient::new(self.channel.clone());
        let request = self.request(DeactivateRequest { name: name.to_owned() }, "");
        self.runtime.block_on(client.deactivate(request)).map(drop)
    }

    fn info(&self, name: &str) -> Result<ActivationInfo, Status> {
        let mut client = MountsClient::new(self.channel.clone());
        let answer =
            self.runtime.block_on(client.info(self.request(InfoRequest { name: name.to_owned() }, "")));
        answer.map(|answer| answer.into_inner().info.expect("an answer has it"))
    }

    fn names(&self) -> Vec<String> {
        let mut client = MountsClient::new(self.channel.clone());
        let listed = self.runtime.block_on(async {
            let stream = client.list(self.request(ListRequest::default(), "")).await?.into_inner();
            stream.collect::<Result<Vec<_>, _>>().await
        });
        let listed = listed.expect("the daemon lists");
        let mut names: Vec<String> = listed.into_iter().filter_map(|one| Some(one.info?.name)).collect();
        names.sort();
        names
    }

    /// The folder of activations.
    fn folder(&self) -> PathBuf {
        self.daemon.state().join("io.containerd.mount-manager.v1.bolt/t")
    }

    /// What is mounted there, and what lies there.
    fn left(&self) -> (usize, usize) {
        let folder = self.folder();
        let table = fs::read_to_string("/proc/self/mountinfo").expect("every Linux has it");
        let mounted = table.lines().filter(|line| line.contains(&folder.display().to_string())).count();
        (mounted, fs::read_dir(folder).into_iter().flatten().count())
    }

    /// A text without the daemon's own folders, and the number of the activation.
    fn plain(&self, text: &str) -> String {
        let text = text.replace(&self.folder().display().to_string(), "TARGETS");
        let text = text.replace(&self.daemon.scratch().folder().display().to_string(), "SCRATCH");
        let mut parts = text.split("TARGETS/");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |done, part| {
            let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
            format!("{done}TARGETS/N{rest}")
        })
    }

    fn describe(&self, mount: &Mount) -> String {
        let Mount { r#type, source, target, options } = mount;
        self.plain(&format!("{type} {source} {target:?} {}", options.join(",")))
    }

    /// An activation in words that both daemons share.
    fn words(&self, info: &ActivationInfo) -> Vec<String> {
        let active = info.active.iter().map(|active| {
            assert!(active.mounted_at.is_some(), "{active:?}");
            let mount = self.describe(active.mount.as_ref().expect("it has one"));
            format!("active {mount} at {}", self.plain(&active.mount_point))
        });
        let system = info.system.iter().map(|mount| format!("system {}", self.describe(mount)));
        active.chain(system).collect()
    }

    /// An image with one link in it, below the daemon's root.
    fn image(&self, name: &str) -> String {
        let path = self.daemon.root().join(format!("{name}.erofs"));
        let mut builder = Builder::new(File::create(&path).expect("the folder is there")).expect("an image");
        let root = builder.root();
        builder.symlink(root, name.as_bytes(), &Attributes::default(), b"its text").expect("it fits");
        builder.finish([0; 16]).expect("it is written");
        path.display().to_string()
    }

    fn folders(&self) -> String {
        let root = self.daemon.root();
        for name in ["lower-a", "lower-b"] {
            fs::create_dir_all(root.join(name)).expect("the folder is there");
        }
        let root = root.display();
        format!("lowerdir={root}/lower-a:{root}/lower-b")
    }
}

fn mount(kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Mount {
    Mount {
        r#type: kind.to_owned(),
        source: source.as_ref().display().to_string(),
        target: String::new(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

/// containerd's list for a writable snapshot of two layers with a limit of size.
fn layered(seen: &Seen<'_>) -> Vec<Mount> {
    let writable = seen.daemon.root().join("rw.img");
    vec![
        mount(
            "mkfs/ext4",
            writable,
            &["X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=8m", "rw", "loop"],
        ),
        mount("erofs", seen.image("upper"), &["ro", "loop"]),
        mount("erofs", seen.image("lower"), &["ro", "loop"]),
        mount(
            "format/mkdir/overlay",
            "overlay",
            &[
                "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
                "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
                "workdir={{ mount 0 }}/work",
                "upperdir={{ mount 0 }}/upper",
                "lowerdir={{ overlay 1 2 }}",
            ],
        ),
    ]
}

fn needed() -> Result<(), need::Missing> {
    need::program("mkfs.ext4")?;
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    need::that(known.contains("\terofs\n"), "EROFS in the kernel")
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.expect_err("it is refused").code()
}

/// What a daemon answers to a list of requests, in words.
fn session(daemon: &Daemon) -> Vec<String> {
    let seen = Seen::new(daemon);
    let mut told = Vec::new();
    let mut tell = |what: &str, answer: String| told.push(format!("{what}: {answer}"));
    let plain = vec![mount("overlay", "overlay", &[&seen.folders()])];
    tell("plain", format!("{:?}", code(seen.activate("plain", plain.clone()))));
    tell("missing", format!("{:?} {:?}", code(seen.info("plain")), code(seen.deactivate("plain"))));
    let list = layered(&seen);
    // What nothing holds is garbage at any time.
    ctr(daemon, "leases create --id session").ok();
    let leased = ActivateRequest { name: "layers".into(), mounts: list.clone(), ..Default::default() };
    let made = seen.activate_with(leased, "session").expect("it is activated");
    tell("layers", format!("{:#?}", seen.words(&made)));
    let lower = made.active[2].mount_point.clone();
    assert_eq!(fs::read_link(Path::new(&lower).join("lower")).expect("it is mounted"), Path::new("its text"));
    tell("again", format!("{:?}", code(seen.activate("layers", list.clone()))));
    let info = seen.info("layers").expect("it is there");
    let points: Vec<String> = info.active.iter().map(|active| seen.plain(&active.mount_point)).collect();
    let system: Vec<String> = info.system.iter().map(|mount| seen.describe(mount)).collect();
    tell("info", format!("{} {points:#?} {system:#?}", info.name));
    let whole =
        ActivateRequest { name: "whole".into(), mounts: plain, temporary: true, ..Default::default() };
    let labels = [("a".to_owned(), "b".to_owned())].into();
    let whole = seen.activate_with(ActivateRequest { labels, ..whole }, "session").expect("it is activated");
    tell("whole", format!("{:#?} {:?}", seen.words(&whole), whole.labels));
    tell("names", format!("{:?}", seen.names()));
    let outside = vec![mount("mkdir/overlay", "overlay", &["X-containerd.mkdir.path=/tmp/not-ours"])];
    assert_ne!(code(seen.activate("outside", outside)), Code::Ok);
    for name in ["layers", "whole"] {
        seen.deactivate(name).expect("it is there");
    }
    // containerd leaves an empty folder of what failed.
    tell("left", format!("{:?} {}", seen.names(), seen.left().0));
    assert!(daemon.kind() != Kind::Berth || seen.left() == (0, 0), "{:?}", seen.left());
    told
}

#[test]
fn lists_are_performed_as_containerd_does() {
    let (Ok(()), Ok(berth)) = (needed(), Daemon::start(Kind::Berth)) else { return };
    let found = session(&berth);
    berth.finish();
    let Ok(containerd) = Daemon::start(Kind::Containerd) else { return };
    let wanted = session(&containerd);
    containerd.finish();
    assert_eq!(found, wanted, "berthd on the left, containerd on the right");
}

/// What holds a mount, and what happens when that goes.
fn held(daemon: &Daemon) {
    let seen = Seen::new(daemon);
    ctr(daemon, "leases create --id lease").ok();
    let list = |name: &str| {
        let image = seen.image(name);
        vec![mount("erofs", image, &["ro", "loop"]), mount("format/bind", "{{ mount 0 }}", &["ro", "rbind"])]
    };
    let leased = ActivateRequest { name: "leased".into(), mounts: list("leased"), ..Default::default() };
    seen.activate_with(leased, "lease").expect("it is activated");
    seen.activate("loose", list("loose")).expect("it is activated");
    let labels = [("containerd.io/gc.bref.content".to_owned(), "sha256:0".to_owned())].into();
    let orphan = ActivateRequest { name: "orphan".into(), mounts: list("orphan"), labels, temporary: false };
    seen.activate_with(orphan, "").expect("it is activated");
    assert_eq!(seen.names(), ["leased", "loose", "orphan"]);
    ctr(daemon, "leases create --id other").ok();
    ctr(daemon, "leases rm --sync other").ok();
    assert_eq!(seen.names(), ["leased"]);
    ctr(daemon, "leases rm --sync lease").ok();
    wait::soon("what the lease held is gone", || seen.names().is_empty() && seen.left() == (0, 0));
}

#[test]
fn mounts_are_garbage_with_their_lease() {
    let (Ok(()), Ok(berth)) = (needed(), Daemon::start(Kind::Berth)) else { return };
    if berth.ctr().is_err() {
        return;
    }
    held(&berth);
    berth.finish();
    let Ok(containerd) = Daemon::start(Kind::Containerd) else { return };
    held(&containerd);
    containerd.finish();
}

#[test]
fn mounts_survive_the_daemon() {
    let (Ok(()), Ok(mut daemon)) = (needed(), Daemon::start(Kind::Berth)) else { return };
    let list = layered(&Seen::new(&daemon));
    let made = Seen::new(&daemon).activate("layers", list).expect("it is activated");
    daemon.kill();
    daemon.restart();
    let seen = Seen::new(&daemon);
    assert_eq!(seen.info("layers").expect("it is there"), made);
    let info = ActivationInfo { labels: [("a".to_owned(), "b".to_owned())].into(), ..made };
    let mut client = MountsClient::new(seen.channel.clone());
    let update = UpdateRequest { info: Some(info.clone()), update_mask: None };
    let updated = seen.runtime.block_on(client.update(seen.request(update, "")));
    assert_eq!(updated.expect("labels can change").into_inner().info, Some(info));
    seen.deactivate("layers").expect("it is there");
    assert_eq!(seen.left(), (0, 0));
    daemon.finish();
}

#[test]
fn a_containers_root_may_be_such_a_list() {
    let Ok(mut cli) = Cli::start() else { return };
    if cli.daemon().ctr().is_err() {
        return;
    }
    let create =
        |cli: &Cli| ctr(cli.daemon(), "containers create").args([IMAGE, "one", "sleep", "1000"]).ok();
    create(&cli);
    let rootfs = |seen: &Seen<'_>| {
        let mut client = api::snapshots::v1::snapshots_client::SnapshotsClient::new(seen.channel.clone());
        let asked = api::snapshots::v1::MountsRequest { snapshotter: "overlayfs".into(), key: "one".into() };
        let mounts =
            seen.runtime.block_on(client.mounts(seen.request(asked, ""))).expect("it has a snapshot");
        let mut mounts = mounts.into_inner().mounts;
        mounts.push(mount("format/bind", "{{ mount 0 }}", &["rw", "rbind"]));
        mounts
    };
    let start = |seen: &Seen<'_>| {
        let mut client = TasksClient::new(seen.channel.clone());
        let task = api::tasks::v1::CreateTaskRequest {
            container_id: "one".into(),
            rootfs: rootfs(seen),
            ..Default::default()
        };
        let made = seen.runtime.block_on(async {
            client.create(seen.request(task, "")).await?;
            let request = api::tasks::v1::StartRequest { container_id: "one".into(), exec_id: String::new() };
            client.start(seen.request(request, "")).await
        });
        made.expect("it starts");
    };
    {
        let seen = Seen::new(cli.daemon());
        start(&seen);
        assert_eq!(seen.names(), ["one"]);
        let held = seen.info("one").expect("it is there").labels;
        assert_eq!(held.get("containerd.io/gc.bref.container").map(String::as_str), Some("one"));
        let echo = ctr(cli.daemon(), "tasks exec --exec-id two one echo inside").ok();
        assert_eq!(echo, "inside\n");
    }
    cli.daemon_mut().kill();
    cli.daemon_mut().restart();
    let seen = Seen::new(cli.daemon());
    ctr(cli.daemon(), "leases create --id other").ok();
    ctr(cli.daemon(), "leases rm --sync other").ok();
    assert_eq!(seen.names(), ["one"], "its container holds it");
    ctr(cli.daemon(), "tasks rm -f one").ok();
    assert_eq!((seen.names().len(), seen.left()), (0, (0, 0)));
    start(&seen);
    ctr(cli.daemon(), "tasks rm -f one").ok();
    ctr(cli.daemon(), "containers rm one").ok();
    assert_eq!(seen.left(), (0, 0));
    drop(seen);
    cli.finish();
}
