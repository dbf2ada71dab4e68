//! Lists as snapshotters answer them, performed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::{Extent, MountKeeper as _, Mounts, NewActivation, Scope};
use berth_erofs::{Attributes, Builder};
use berth_sys::loopdev::backing_file;
use berth_sys::mount::{info, mount_all, unmount_all};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, FieldMask, Labels, Mount};
use testkit::{Scratch, need};

use crate::Activations;

/// A folder with the daemon's folders in it.
struct World {
    scratch: Scratch,
    activations: Activations,
}

fn open(scratch: &Scratch) -> Activations {
    Activations::open(&scratch.path("state/t"), [scratch.path("root")]).unwrap()
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("root")).unwrap();
        let activations = open(&scratch);
        Self { scratch, activations }
    }

    fn mounts(&self) -> Arc<dyn Mounts> {
        self.activations.mounts(&scope("here"))
    }

    /// As a daemon that was killed and started again.
    fn again(&mut self) {
        self.activations = open(&self.scratch);
    }

    fn folder(&self) -> PathBuf {
        self.scratch.path("state/t")
    }

    /// What is mounted and lies in the folder of activations.
    fn left(&self) -> (usize, usize) {
        let folder = self.folder();
        let mounted =
            info::own().unwrap().into_iter().filter(|mount| mount.point.starts_with(&folder)).count();
        (mounted, fs::read_dir(folder).unwrap().count())
    }

    /// An image with one file.
    fn image(&self, name: &str) -> PathBuf {
        let path = self.scratch.path(format!("root/{name}.erofs"));
        let mut builder = Builder::new(File::create(&path).unwrap()).unwrap();
        let root = builder.root();
        let attributes = Attributes { mode: 0o644, ..Attributes::default() };
        builder.symlink(root, name.as_bytes(), &attributes, b"its text").unwrap();
        builder.finish([0; 16]).unwrap();
        path
    }
}

fn scope(namespace: &str) -> Scope {
    Scope::new(namespace.parse().unwrap())
}

fn mount(kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Mount {
    let options = options.iter().map(|&option| option.to_owned()).collect();
    Mount { kind: kind.into(), source: source.as_ref().display().to_string(), target: String::new(), options }
}

fn new(name: &str, mounts: Vec<Mount>) -> NewActivation {
    NewActivation { name: name.to_owned(), mounts, ..NewActivation::default() }
}

/// What root on a machine with EROFS, loop devices and mkfs.ext4 can do.
fn needed() -> Result<(), need::Missing> {
    need::root()?;
    need::path("/dev/loop-control")?;
    need::program("mkfs.ext4")?;
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    need::that(known.contains("\terofs\n"), "EROFS in the kernel")
}

/// containerd's answer for a writable snapshot of two layers with a limit of size.
fn layered(world: &World) -> Vec<Mount> {
    let writable = world.scratch.path("root/rw.img");
    vec![
        mount(
            "mkfs/ext4",
            writable,
            &["X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=8m", "rw", "loop"],
        ),
        mount("erofs", world.image("upper"), &["ro", "loop"]),
        mount("erofs", world.image("lower"), &["ro", "loop"]),
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

#[tokio::test]
async fn layers_and_a_writable_filesystem_become_an_overlay() {
    let Ok(()) = needed() else { return };
    let mut world = World::new();
    let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
    let activation = NewActivation { labels: labels.clone(), ..new("one", layered(&world)) };
    let made = world.mounts().activate(activation.clone()).await.unwrap();
    let point = |number: u32| world.folder().join(format!("1/{number}")).display().to_string();
    assert_eq!(
        made.active.iter().map(|active| active.point.clone()).collect::<Vec<_>>(),
        [point(3), point(2), point(1)]
    );
    assert!(made.active.iter().all(|active| active.mounted_at.is_some()));
    let options = [
        format!("workdir={}/work", point(3)),
        format!("upperdir={}/upper", point(3)),
        format!("lowerdir={}:{}", point(2), point(1)),
    ];
    let [system] = &made.system[..] else { panic!("{:?}", made.system) };
    assert_eq!((system.kind.as_str(), &system.options[..]), ("overlay", &options[..]));
    assert_eq!(made.labels, labels);

    let target = world.scratch.path("target");
    fs::create_dir(&target).unwrap();
    mount_all(&made.system, &target).unwrap();
    assert_eq!(fs::read_link(target.join("lower")).unwrap(), Path::new("its text"));
    fs::remove_file(target.join("upper")).unwrap();
    fs::write(target.join("new"), vec![1; 1 << 20]).unwrap();
    assert!(fs::write(target.join("large"), vec![1; 16 << 20]).is_err(), "its size is its limit");
    unmount_all(&target).unwrap();

    world.again();
    let mounts = world.mounts();
    assert_eq!(mounts.info("one").await.unwrap(), made);
    let error = mounts.activate(activation.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    mounts.deactivate("one").await.unwrap();
    assert_eq!(world.left(), (0, 0));
    assert_eq!(mounts.deactivate("one").await.unwrap_err().kind(), ErrorKind::NotFound);

    let made = mounts.activate(activation).await.unwrap();
    mount_all(&made.system, &target).unwrap();
    assert!(target.join("new").exists() && !target.join("upper").exists(), "the file keeps what was written");
    unmount_all(&target).unwrap();
    mounts.deactivate("one").await.unwrap();
    assert_eq!(world.left(), (0, 0));
}

#[tokio::test]
async fn everything_can_be_performed() {
    let Ok(()) = needed() else { return };
    let world = World::new();
    let whole = NewActivation { extent: Extent::Everything, ..new("whole", layered(&world)) };
    let made = world.mounts().activate(whole).await.unwrap();
    assert_eq!(made.active.len(), 4);
    let source = made.active[3].point.clone();
    assert_eq!(made.system, [mount("bind", &source, &["rbind"])]);
    assert!(fs::read_link(Path::new(&source).join("lower")).is_ok());
    // What is in use goes on for its user.
    let target = world.scratch.path("target");
    fs::create_dir(&target).unwrap();
    mount_all(&made.system, &target).unwrap();
    world.mounts().deactivate("whole").await.unwrap();
    assert_eq!(world.left(), (0, 0));
    assert!(fs::read_link(target.join("lower")).is_ok());
    unmount_all(&target).unwrap();

    let one = world.mounts().activate(new("image", vec![mount("erofs", world.image("x"), &["ro"])])).await;
    let one = one.unwrap();
    assert_eq!(one.system, [mount("bind", &one.active[0].point, &["rbind"])], "never empty");
    world.mounts().deactivate("image").await.unwrap();
}

#[tokio::test]
async fn a_file_is_a_device_until_it_is_deactivated() {
    let Ok(()) = needed() else { return };
    let mut world = World::new();
    let file = world.scratch.file("root/disk", vec![5; 1 << 20]);
    let made = world.mounts().activate(new("disk", vec![mount("loop", &file, &[])])).await.unwrap();
    assert_eq!(made.system, []);
    let device = fs::read_link(&made.active[0].point).unwrap();
    assert_eq!(fs::read(&device).unwrap(), vec![5; 1 << 20]);
    world.again();
    assert_eq!(backing_file(&device).unwrap(), Some(file.clone()), "it stays when nobody has it open");
    world.mounts().deactivate("disk").await.unwrap();
    testkit::wait::soon("the device is free", || backing_file(&device).unwrap() != Some(file.clone()));
    assert_eq!(world.left(), (0, 0));
}

#[tokio::test]
async fn a_device_is_where_a_later_mount_finds_it() {
    let Ok(()) = needed() else { return };
    let world = World::new();
    let list =
        vec![mount("loop", world.image("one"), &["ro"]), mount("format/erofs", "{{ mount 0 }}", &["ro"])];
    let made = world.mounts().activate(new("one", list)).await.unwrap();
    assert_eq!(fs::read_link(Path::new(&made.active[1].point).join("one")).unwrap(), Path::new("its text"));
    world.mounts().deactivate("one").await.unwrap();
    assert_eq!(world.left(), (0, 0));
}

#[tokio::test]
async fn what_fails_leaves_nothing() {
    let Ok(()) = needed() else { return };
    let world = World::new();
    let broken = world.scratch.file("root/broken.erofs", vec![0; 8192]);
    let good = || mount("erofs", world.image("good"), &["ro", "loop"]);
    let disk = world.scratch.file("root/disk", vec![5; 4096]);
    for (list, kind) in [
        (vec![good(), mount("erofs", &broken, &["ro", "loop"])], None),
        (vec![mount("loop", &disk, &[]), mount("erofs", "/missing", &["ro"])], Some(ErrorKind::NotFound)),
        (
            vec![good(), mount("format/overlay", "overlay", &["lowerdir={{ mount 1 }}"])],
            Some(ErrorKind::InvalidArgument),
        ),
        (
            vec![good(), mount("mkdir/overlay", "overlay", &["X-containerd.mkdir.path=/tmp/not-ours"])],
            Some(ErrorKind::FailedPrecondition),
        ),
        (
            vec![mount("mkfs/ext4", "/tmp/not-ours", &["X-containerd.mkfs.size=8m"])],
            Some(ErrorKind::FailedPrecondition),
        ),
        (
            vec![mount("erofs", world.image("v"), &["ro", "X-containerd.dmverity=/x"])],
            Some(ErrorKind::FailedPrecondition),
        ),
    ] {
        let error = world.mounts().activate(new("one", list)).await.unwrap_err();
        assert!(kind.is_none_or(|kind| error.kind() == kind), "{}", error.chain());
        assert_ne!(error.kind(), ErrorKind::NotImplemented, "a client would mount the list as it is");
        assert_eq!(world.left(), (0, 0), "{}", error.chain());
        assert_eq!(world.mounts().info("one").await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert!(!Path::new("/tmp/not-ours").exists());
}

#[tokio::test]
async fn what_a_daemon_had_only_begun_is_ended_by_the_next() {
    let Ok(()) = needed() else { return };
    let mut world = World::new();
    let list = |world: &World, name: &str| vec![mount("erofs", world.image(name), &["ro", "loop"])];
    for name in ["whole", "begun", "unmounted"] {
        world.mounts().activate(new(name, list(&world, name))).await.unwrap();
    }
    let record = world.folder().join("2/record");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains(r#""progress":"made""#), "{text}");
    fs::write(&record, text.replace(r#""progress":"made""#, r#""progress":"unfinished""#)).unwrap();
    unmount_all(&world.folder().join("3/1")).unwrap();
    fs::create_dir(world.folder().join("7")).unwrap();
    world.again();
    let names = world.mounts().list(&Filters::default()).await.unwrap();
    assert_eq!(names.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["whole"]);
    assert_eq!(world.left(), (1, 1));
    let next = world.mounts().activate(new("next", list(&world, "next"))).await.unwrap();
    assert!(next.active[0].point.ends_with("t/8/1"), "{}", next.active[0].point);
    for name in ["whole", "next"] {
        world.mounts().deactivate(name).await.unwrap();
    }
    assert_eq!(world.left(), (0, 0));
}

#[tokio::test]
async fn mounts_of_an_earlier_start_of_the_machine_are_gone() {
    let Ok(()) = needed() else { return };
    let mut world = World::new();
    world.mounts().activate(new("old", vec![mount("erofs", world.image("old"), &["ro"])])).await.unwrap();
    let record = world.folder().join("1/record");
    let boot = crate::record::boot().unwrap();
    fs::write(&record, fs::read_to_string(&record).unwrap().replace(&boot, "another")).unwrap();
    world.again();
    assert_eq!(world.mounts().list(&Filters::default()).await.unwrap(), []);
    assert_eq!(world.left(), (0, 0));
}

#[tokio::test]
async fn namespaces_labels_and_leases_are_kept() {
    let Ok(()) = needed() else { return };
    let mut world = World::new();
    let list = |name: &str| vec![mount("erofs", world.image(name), &["ro", "loop"])];
    let labels = Labels::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    let leased = world.activations.mounts(&scope("here").with_lease("lease".parse().unwrap()));
    leased.activate(NewActivation { labels, ..new("one", list("one")) }).await.unwrap();
    world.activations.mounts(&scope("there")).activate(new("one", list("other"))).await.unwrap();

    let mask = FieldMask::new(["labels.a"]);
    let updated =
        leased.update("one", Labels::from([("a".to_owned(), "9".to_owned())]), &mask).await.unwrap();
    assert_eq!(updated.labels.get("a").map(String::as_str), Some("9"));
    let error = leased.update("one", Labels::new(), &FieldMask::new(["active"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);

    world.again();
    let found = |filter: &str| {
        let (mounts, filters) = (world.mounts(), Filters::parse(&[filter]).unwrap());
        async move { mounts.list(&filters).await.unwrap().len() }
    };
    assert_eq!((found("name==one").await, found("labels.a==9").await, found("labels.a==1").await), (1, 1, 0));
    let mut held = world.activations.held();
    held.sort_by_key(|held| held.number);
    let seen: Vec<_> =
        held.iter().map(|one| (one.namespace.as_str(), one.lease.is_some(), one.labels.len())).collect();
    assert_eq!(seen, [("here", true, 2), ("there", false, 0)]);

    world.activations.let_go(vec![held[1].number, 99]).await;
    assert_eq!(world.activations.held(), held[..1]);
    assert_eq!(world.left(), (1, 1));
    world.mounts().deactivate("one").await.unwrap();
    assert_eq!(world.left(), (0, 0));
}

#[tokio::test]
async fn what_clients_can_do_is_not_activated() {
    let world = World::new();
    let list = vec![mount("overlay", "overlay", &["lowerdir=/a:/b"])];
    let error = world.mounts().activate(new("one", list)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotImplemented);
    assert_eq!(world.mounts().info("one").await.unwrap_err().kind(), ErrorKind::NotFound);
    let unnamed = world.mounts().activate(new("", vec![mount("erofs", "/x", &[])])).await.unwrap_err();
    assert_eq!(unnamed.kind(), ErrorKind::InvalidArgument);
    assert_eq!(world.left(), (0, 0));
}
