//! The snapshotters beside one another: how long an image takes until it is unpacked, what that takes on the disk, and how
//! long a container's root filesystem takes to be mounted and unmounted. All by turns, each round on fresh disks, and
//! each figure beside containerd's overlayfs; its erofs too where there is a `mkfs.erofs` that it takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use testkit::image::Image;
use testkit::volume::empty_ext4;
use testkit::{Kind, Scratch, Setup};

use super::images::on_disk;
use super::pull::LONG;
use super::{import, pull};
use crate::machine;
use crate::measure::{Samples, time};
use crate::subject::Subject;
use crate::table::{Better, Table};

/// Of the filesystem that blockfile's snapshots are copies of.
const BLOCKFILE: u64 = 2 << 30;

/// A snapshotter of a daemon.
struct Contestant {
    name: &'static str,
    kind: Kind,
    snapshotter: &'static str,
    config: &'static str,
    before: fn(&Scratch),
}

const PLAIN: Contestant = Contestant {
    name: "overlayfs",
    kind: Kind::Berth,
    snapshotter: "overlayfs",
    config: "",
    before: machine::fresh_root,
};

/// The one beside which all others stand is the first.
const ALL: [Contestant; 9] = [
    Contestant { name: "containerd's overlayfs", kind: Kind::Containerd, ..PLAIN },
    PLAIN,
    Contestant { name: "native", snapshotter: "native", ..PLAIN },
    EROFS,
    Contestant {
        name: "erofs, tar-index",
        config: "[plugins.'io.containerd.differ.v1.erofs']\n enable_tar_index = true\n",
        ..EROFS
    },
    Contestant {
        name: "erofs, one mount",
        config: "[plugins.'io.containerd.snapshotter.v1.erofs']\n max_unmerged_layers = 1\n",
        ..EROFS
    },
    Contestant {
        name: "btrfs",
        snapshotter: "btrfs",
        config: "[plugins.'io.containerd.snapshotter.v1.btrfs']\n root_path = 'SCRATCH/btrfs/snapshots'\n",
        before: with_btrfs,
        ..PLAIN
    },
    Contestant {
        name: "blockfile",
        snapshotter: "blockfile",
        config: "[plugins.'io.containerd.snapshotter.v1.blockfile']\n scratch_file = 'SCRATCH/filesystem'\n",
        before: with_blockfile,
        ..PLAIN
    },
    Contestant {
        name: "containerd's erofs",
        kind: Kind::Containerd,
        snapshotter: "erofs",
        config: "[plugins.'io.containerd.service.v1.diff-service']\n default = ['erofs', 'walking']\n",
        before: machine::fresh_root,
    },
];

const EROFS: Contestant = Contestant { name: "erofs", snapshotter: "erofs", ..PLAIN };

fn with_btrfs(scratch: &Scratch) {
    machine::fresh_root(scratch);
    let point = scratch.path("btrfs");
    let made = std::fs::create_dir(&point).and_then(|()| machine::fresh(&point, "btrfs"));
    made.expect("a fresh btrfs for the snapshots");
}

fn with_blockfile(scratch: &Scratch) {
    machine::fresh_root(scratch);
    empty_ext4(scratch, BLOCKFILE).expect("an empty filesystem for the snapshots");
}

/// What was measured of one of them.
#[derive(Clone, Default)]
struct Figures {
    unpack: Samples,
    disk: Samples,
    mount: Samples,
    unmount: Samples,
}

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let peer = makes_images();
    if peer.is_none() {
        println!(
            "snapshotters: containerd's erofs is left out, for no mkfs.erofs in PATH has --tar (1.8 has)"
        );
    }
    for (title, image) in [
        ("200 MB", import::image()),
        ("100,000 files", pull::many_files("berth.test/files:1".to_owned())),
        ("60 layers", pull::many_layers("berth.test/layers:1".to_owned())),
    ] {
        let archive = image.oci_archive();
        let mut figures = vec![Figures::default(); ALL.len()];
        for _ in 0..rounds.div_ceil(5) {
            for (contestant, figures) in ALL.iter().zip(&mut figures) {
                let needs_peer = contestant.kind == Kind::Containerd && contestant.snapshotter == "erofs";
                if peer.is_some() || !needs_peer {
                    contestant.measure((&image, &archive), peer.as_deref(), figures)?;
                }
            }
        }
        add(table, title, &figures);
    }
    Ok(())
}

fn add(table: &mut Table, title: &str, figures: &[Figures]) {
    let Some((beside, own)) = figures.split_first() else { return };
    for (contestant, found) in ALL[1..].iter().zip(own) {
        if found.unpack.is_empty() {
            continue;
        }
        let name = contestant.name;
        for (figure, unit, of) in [
            ("unpack", "ms", (|figures| &figures.unpack) as fn(&Figures) -> &Samples),
            ("on the disk", "MB", |figures| &figures.disk),
            ("mount", "ms", |figures| &figures.mount),
            ("unmount", "ms", |figures| &figures.unmount),
        ] {
            let row = format!("{title}, {figure}: {name} / overlayfs");
            let samples = [of(found).clone(), of(beside).clone()];
            table.add(("snapshotters", &row, unit), Better::Less, samples);
        }
    }
}

impl Contestant {
    fn measure(
        &self,
        (image, archive): (&Image, &[u8]),
        peer: Option<&Path>,
        figures: &mut Figures,
    ) -> Result<()> {
        let setup = Setup {
            config: self.config.to_owned(),
            before: Some(self.before),
            path: peer.map(Path::to_owned).into_iter().collect(),
            ..Setup::default()
        };
        let subject = Subject::set_up(self.kind, setup)?;
        let archive = subject.daemon.scratch().file("image.tar", archive);
        let command = subject.import_into(self.snapshotter, &archive)?.within(LONG);
        figures.unpack.push_time(time(|| command.ok()).0);
        figures.disk.push(self.taken(&subject)? as f64 / 1e6);
        let point = subject.daemon.scratch().path("point");
        std::fs::create_dir(&point)?;
        let ctr = |words: &str| -> Result<_> {
            Ok(subject
                .ctr()?
                .line(&format!("images {words} --snapshotter {}", self.snapshotter))
                .within(LONG))
        };
        let mount = ctr("mount --rw")?.arg(image.name()).arg(&point);
        figures.mount.push_time(time(|| mount.ok()).0);
        let unmount = ctr("unmount --rm")?.arg(&point);
        figures.unmount.push_time(time(|| unmount.ok()).0);
        Ok(())
    }

    /// What the snapshots take, in bytes. Of btrfs, where they share blocks, what the whole filesystem has in use.
    fn taken(&self, subject: &Subject) -> Result<u64> {
        let volume: PathBuf = subject.daemon.scratch().path("btrfs");
        if self.snapshotter == "btrfs" {
            rustix::fs::syncfs(std::fs::File::open(&volume)?)?;
            let found = rustix::fs::statvfs(&volume)?;
            return Ok((found.f_blocks - found.f_bfree) * found.f_frsize);
        }
        let folder = format!("io.containerd.snapshotter.v1.{}", self.snapshotter);
        let folder: &Path = &subject.daemon.root().join(folder);
        // A filesystem counts blocks once they are on the disk.
        rustix::fs::syncfs(std::fs::File::open(folder)?)?;
        Ok(on_disk(folder))
    }
}

/// The folder of `PATH` with a mkfs.erofs that makes images of archives, without which containerd's differ is not loaded.
fn makes_images() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|folder| {
        let help = Command::new(folder.join("mkfs.erofs")).arg("--help").output();
        help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--tar="))
    })
}
