//! Snapshots whose committed layers are EROFS images, read-only files beneath an overlay.
//!
//! ```text
//!   N/.erofslayer    an active snapshot of this kind, for the differ, which puts a whole layer there as an image
//!   N/fs, N/work     what is written to an active snapshot; of a committed one, where its image is mounted
//!   N/layer.erofs    the image: from the differ, or made of fs by the commit
//!   N/sealed.erofs   an image that a commit has made and that is not committed yet
//!   N/rwlayer.img    with `default_size`: a filesystem of that size, mounted at N/rw, for what is written instead of N/fs
//!   N/fsmeta.erofs   with `max_unmerged_layers`: the image of all layers up to this one, whose data is in theirs; empty
//!                    if they cannot be seen as one
//!   N/merged         where that is mounted
//!   N/applied        where the image of a snapshot that is still active is mounted, if somebody asks for its mounts
//! ```
//! That is containerd's layout, and so are the words of the mounts, with one difference: containerd 2.3 answers an
//! erofs mount for each layer and an overlay with places in its options to be filled in, which only a client with a
//! mount manager understands. Here the snapshotter mounts each image itself, once, when the first snapshot on top asks
//! for it, so that any client can mount the answer. What is mounted stays when the daemon ends and is found again.
//!
//! An image is mounted as the file that it is where the kernel can (Linux 6.12), else by a loop device.

mod convert;
mod layers;
mod merged;
mod probe;
mod room;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::Snapshotter;
use berth_types::{Error, Mount, Result, SnapshotKind, Usage, parse_bytes};
use serde::{Deserialize, Serialize};

use self::merged::Merged;
use self::room::Room;
use crate::backend::{Local, Place, Purpose, Removal, Shape};
use crate::mapping;
use crate::open::{OpenError, folder};
use crate::trees::Trees;
use crate::upper;
use crate::usage;

/// berth's own word beside containerd's `rebase`, see [`crate::overlayfs`].
const APART: &str = "berth.apart";

/// Bytes of the smallest filesystem that is made.
const SMALLEST: u64 = 4 << 20;

const IMAGE: &str = "layer.erofs";
const SEALED: &str = "sealed.erofs";

/// `[plugins."io.containerd.snapshotter.v1.erofs"]`, with containerd's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where snapshots are kept instead of the daemon's folder; empty means there.
    pub root_path: PathBuf,
    /// More options for overlay mounts.
    pub ovl_mount_options: Vec<String>,
    /// Whether images are sealed with fs-verity. Not here yet: true is refused.
    pub enable_fsverity: bool,
    /// Whether committed images are made immutable, so that nobody removes or changes them by accident.
    pub set_immutable: bool,
    /// How much a container may write, as `10GiB`: its writable layer is then a filesystem of that size in a file. Empty
    /// or 0 for as much as the disk has.
    pub default_size: String,
    /// Of how many layers a snapshot is mounted one by one; of more, all are mounted as one image (berth's own key). 0 for
    /// any number.
    pub max_unmerged_layers: usize,
    /// Whether images are checked with dm-verity: `auto`, `off`, or `on`, which is not here yet and refused.
    pub dmverity_mode: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root_path: PathBuf::new(),
            ovl_mount_options: Vec::new(),
            enable_fsverity: false,
            set_immutable: false,
            default_size: String::new(),
            max_unmerged_layers: 0,
            dmverity_mode: "auto".to_owned(),
        }
    }
}

impl Config {
    /// The size of a writable layer, if it has one.
    fn size(&self) -> Result<Option<u64>> {
        if self.default_size.is_empty() {
            return Ok(None);
        }
        let size = parse_bytes(&self.default_size);
        let size = size.map_err(|error| error.context(format!("default_size {:?}", self.default_size)))?;
        if size > 0 && size < SMALLEST {
            let text = format!("default_size {:?} is less than a filesystem needs: 4 MiB", self.default_size);
            return Err(Error::invalid_argument(text));
        }
        Ok(Some(size).filter(|size| *size > 0))
    }

    /// What is asked for and cannot be had.
    fn refused(&self) -> Option<String> {
        let not_yet = |key: &str| format!("berth does not have {key} yet: remove it from the configuration");
        if self.enable_fsverity {
            return Some(not_yet("enable_fsverity"));
        }
        match &*self.dmverity_mode {
            "" | "auto" | "off" => None,
            "on" => Some(not_yet("dmverity_mode = \"on\"")),
            other => Some(format!("dmverity_mode {other:?} is none of auto, on and off")),
        }
    }
}

/// Opens the snapshots below `root`.
///
/// `Skipped` where the kernel has no EROFS or refuses an overlay on that filesystem, which are tried once. Blocking.
pub fn open(root: &Path, config: Config) -> Result<Arc<dyn Snapshotter>, OpenError> {
    let root = folder(root, &config.root_path)?;
    if let Some(why) = config.refused() {
        return Err(OpenError::failed(root, Error::invalid_argument(why)));
    }
    let size = config.size().map_err(|error| OpenError::failed(&root, error))?;
    crate::overlayfs::supported(&root)?;
    probe::supported(&root)?;
    let shape = Erofs {
        options: config.ovl_mount_options,
        remap: crate::overlayfs::maps_ids(),
        immutable: config.set_immutable,
        size,
        unmerged: config.max_unmerged_layers,
        mounting: Mutex::default(),
    };
    Ok(Arc::new(Local::open(&root, shape, Removal::AtCleanup)?))
}

/// What introspection tells clients about this snapshotter on this machine.
pub fn capabilities() -> Vec<&'static str> {
    let remap = crate::overlayfs::maps_ids().then_some("remap-ids");
    ["only-remap-ids"].into_iter().chain(remap).chain(["rebase", APART]).collect()
}

struct Erofs {
    options: Vec<String>,
    remap: bool,
    immutable: bool,
    /// Bytes that a container may write.
    size: Option<u64>,
    /// Layers that are mounted one by one, 0 for any number.
    unmerged: usize,
    /// Held by who looks whether an image is in its place and mounted, and sees to it.
    mounting: Mutex<()>,
}

/// Where the parts of a snapshot are.
struct Parts(PathBuf);

impl Parts {
    fn of(trees: &Trees, id: u64) -> Self {
        Self(trees.path(id))
    }

    fn tree(&self) -> PathBuf {
        self.0.join("fs")
    }

    fn image(&self) -> PathBuf {
        self.0.join(IMAGE)
    }

    fn sealed(&self) -> PathBuf {
        self.0.join(SEALED)
    }

    fn applied(&self) -> PathBuf {
        self.0.join("applied")
    }

    fn merged(&self) -> Merged {
        Merged::of(&self.0)
    }

    fn room(&self) -> Room {
        Room::of(&self.0)
    }

    /// What is written to an active snapshot.
    fn upper(&self) -> PathBuf {
        let room = self.room();
        if room.is_there() { room.upper() } else { self.tree() }
    }

    fn work(&self) -> PathBuf {
        let room = self.room();
        if room.is_there() { room.work() } else { self.0.join("work") }
    }
}

impl Erofs {
    /// The image that a differ has put into an active snapshot.
    fn applied(place: &Place<'_>, parts: &Parts) -> Option<PathBuf> {
        (place.kind == SnapshotKind::Active && parts.image().exists()).then(|| parts.applied())
    }

    /// Where all layers of a snapshot are mounted as one, if they are to be. Those that take a layer last for a moment.
    fn as_one(&self, trees: &Trees, place: &Place<'_>) -> Option<Merged> {
        let many = self.unmerged > 0 && place.parents.len() > self.unmerged.max(1);
        let top = place.parents.first().filter(|_| many && place.purpose == Purpose::Container)?;
        Some(Parts::of(trees, *top).merged())
    }
}

impl Shape for Erofs {
    fn has_folder(&self, _place: &Place<'_>) -> bool {
        true
    }

    fn folder_mode(&self) -> u32 {
        0o700
    }

    fn fill(&self, trees: &Trees, folder: &OwnedFd, place: &Place<'_>) -> Result<()> {
        upper::make(trees, folder, place)?;
        if place.kind == SnapshotKind::Active {
            let marker = trees.path(place.id).join(".erofslayer");
            fs::write(&marker, "")
                .map_err(|error| Error::io(format!("cannot make {}", marker.display()), error))?;
        }
        Ok(())
    }

    fn make_room(&self, folder: &OwnedFd, _place: &Place<'_>) -> Result<()> {
        self.size.map_or(Ok(()), |size| Room::make(folder, size))
    }

    fn bring_up(&self, trees: &Trees, place: &Place<'_>) -> Result<()> {
        let _alone = self.alone();
        let own = Parts::of(trees, place.id);
        if place.kind == SnapshotKind::Active {
            own.room().open(&own.tree())?;
        }
        if let Some(point) = Self::applied(place, &own) {
            layers::mount(&own.image(), &[], &point)?;
        }
        // A view of one layer is its image, which the client mounts.
        let by_client = place.kind == SnapshotKind::View && place.parents.len() == 1;
        let parents: Vec<Parts> = place.parents.iter().map(|id| Parts::of(trees, *id)).collect();
        for parts in &parents {
            publish(parts)?;
            if parts.room().is_there() {
                // Left by a daemon that ended before it could free it.
                parts.room().remove()?;
            }
        }
        if let Some(merged) = self.as_one(trees, place) {
            let images: Vec<PathBuf> = parents.iter().rev().map(Parts::image).collect();
            if merged.bring_up(&images)? {
                return Ok(());
            }
        }
        if by_client {
            return Ok(());
        }
        parents.iter().try_for_each(|parts| layers::mount(&parts.image(), &[], &parts.tree()))
    }

    fn mounts(&self, trees: &Trees, place: &Place<'_>) -> Result<Vec<Mount>> {
        let own = Parts::of(trees, place.id);
        let writable = place.kind == SnapshotKind::Active;
        let applied = Self::applied(place, &own);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        match place.parents {
            [] if applied.is_none() => {
                let access = if writable { "rw" } else { "ro" };
                return Ok(vec![mount("bind", text(own.upper()), vec![access.into(), "rbind".into()])]);
            }
            [only] if !writable => {
                let image = text(Parts::of(trees, *only).image());
                return Ok(vec![mount("erofs", image, vec!["ro".into(), "loop".into()])]);
            }
            _ => {}
        }
        let merged = self.as_one(trees, place).filter(Merged::is_there).map(|merged| merged.point());
        if let (Some(point), false) = (&merged, writable) {
            return Ok(vec![mount("bind", text(point.clone()), vec!["ro".into(), "rbind".into()])]);
        }
        let mut options = if self.remap { mapping::options(place.labels) } else { Vec::new() };
        if writable {
            options.push(format!("workdir={}", text(own.work())));
            options.push(format!("upperdir={}", text(own.upper())));
        }
        let one_by_one = place.parents.iter().map(|id| Parts::of(trees, *id).tree());
        let below = merged.map_or_else(|| one_by_one.collect(), |point| vec![point]);
        let lowers: Vec<String> = applied.into_iter().chain(below).map(text).collect();
        options.push(format!("lowerdir={}", lowers.join(":")));
        options.extend_from_slice(&self.options);
        Ok(vec![mount("overlay", "overlay".to_owned(), options)])
    }

    fn tree(&self, trees: &Trees, id: u64) -> PathBuf {
        Parts::of(trees, id).upper()
    }

    fn measure(&self, trees: &Trees, id: u64) -> io::Result<Usage> {
        let parts = Parts::of(trees, id);
        if let Some(usage) = layers::measure(&parts.image())? {
            return Ok(usage);
        }
        self.open_room(&parts).map_err(io::Error::other)?;
        let tree = usage::measure(&parts.upper())?;
        let size = layers::measure(&parts.sealed())?.map_or(tree.size, |sealed| sealed.size);
        Ok(Usage { size, ..tree })
    }

    fn seal(&self, trees: &Trees, id: u64) -> Result<()> {
        let parts = Parts::of(trees, id);
        let failed = |error| Error::io(format!("cannot look at {}", parts.0.display()), error);
        if !fs::exists(parts.image()).map_err(failed)? {
            self.open_room(&parts)?;
            parts.room().pass_on(&parts.tree())?;
            return convert::tree(&parts.upper(), &parts.sealed());
        }
        self.open_room(&parts)?;
        if fs::read_dir(parts.upper()).map_err(failed)?.next().is_some() {
            let text = "a layer was applied to the snapshot and files were written to it as well: apply to one, commit it, and write to another one on top";
            return Err(Error::failed_precondition(text));
        }
        Ok(())
    }

    fn committed(&self, trees: &Trees, id: u64) {
        let _alone = self.alone();
        let parts = Parts::of(trees, id);
        if let Err(error) = publish(&parts).and_then(|()| parts.room().remove()) {
            // Tried again by whoever needs the image.
            tracing::warn!(id, error = error.chain(), "cannot put the image of a snapshot in its place");
        }
        if self.immutable
            && let Err(error) = layers::make_immutable(&parts.image())
        {
            tracing::warn!(id, %error, "cannot make the image of a snapshot immutable");
        }
    }

    fn take_down(&self, trees: &Trees, id: u64) {
        let _alone = self.alone();
        let parts = Parts::of(trees, id);
        if let Err(error) = parts.room().close() {
            tracing::warn!(id, error = error.chain(), "cannot unmount what a removed snapshot wrote");
        }
        for point in [parts.tree(), parts.applied(), parts.merged().point()] {
            if let Err(error) = layers::unmount(&point) {
                tracing::warn!(id, error = error.chain(), "cannot unmount the image of a removed snapshot");
            }
        }
        layers::make_mutable(&parts.image());
    }

    fn rebases(&self) -> bool {
        true
    }
}

impl Erofs {
    /// Mounts what a container has written, where it has room of its own.
    fn open_room(&self, parts: &Parts) -> Result<()> {
        let _alone = self.alone();
        parts.room().open(&parts.tree())
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.mounting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the image of a committed snapshot its name, if it doesn't have it yet, and frees what it was made of.
fn publish(parts: &Parts) -> Result<()> {
    let failed = |error| Error::io(format!("cannot publish {}", parts.image().display()), error);
    match fs::rename(parts.sealed(), parts.image()) {
        Ok(()) => convert::empty(&parts.tree()).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn mount(kind: &str, source: String, options: Vec<String>) -> Mount {
    Mount { kind: kind.to_owned(), source, target: String::new(), options }
}
