//! Images that are mounted in a container: volumes whose files come from a registry.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use berth_core::{NewSnapshot, Rollback};
use berth_proto::runtime::v1 as proto;
use berth_rootfs::read_only;
use berth_sys::beneath::Root;
use berth_sys::mount::{mount_all, unmount_all};
use berth_types::{ContainerId, Error, ErrorKind, Mount, Result, SnapshotKey};
use rustix::fs::{Mode, OFlags};

use super::Container;
use super::create::snapshot_labels;
use crate::Cri;
use crate::blocking::blocking;
use crate::pod::Pod;
use crate::spec::Volume;

/// Images mounted for a container.
#[derive(Default)]
pub(super) struct ImageMounts {
    /// What is mounted where in the container.
    pub(super) volumes: Vec<Volume>,
    /// The snapshots and where on the host each is mounted.
    pub(super) snapshots: Vec<(String, String)>,
}

impl Cri {
    /// Mounts the images that a request wants in its container, each over a snapshot of its own.
    pub(super) async fn mount_images(
        &self,
        id: &ContainerId,
        pod: &Pod,
        config: &proto::ContainerConfig,
        undo: &mut Rollback,
    ) -> Result<ImageMounts> {
        let mut mounted = ImageMounts::default();
        let wanted = config.mounts.iter().filter_map(|mount| {
            let image =
                mount.image.as_ref().map(|image| image.image.clone()).filter(|name| !name.is_empty())?;
            Some((mount, image))
        });
        for (number, (mount, name)) in wanted.enumerate() {
            if !mount.host_path.is_empty() {
                return Err(Error::invalid_argument(format!(
                    "the mount at {} names both an image and a path of the host",
                    mount.container_path
                )));
            }
            let key: SnapshotKey = format!("{id}-image-{number}").parse()?;
            let at = pod.state.join("images").join(key.as_str());
            let volume = self.mount_image((id, &key), pod, mount, (&name, &at), undo).await;
            let volume = volume.map_err(|error| error.context(format!("cannot mount image {name}")))?;
            mounted.volumes.push(volume);
            mounted.snapshots.push((key.to_string(), at.display().to_string()));
        }
        Ok(mounted)
    }

    async fn mount_image(
        &self,
        (id, key): (&ContainerId, &SnapshotKey),
        pod: &Pod,
        mount: &proto::Mount,
        (name, at): (&str, &Path),
        undo: &mut Rollback,
    ) -> Result<Volume> {
        let image =
            self.find(name).await?.ok_or_else(|| Error::not_found("it is not there: PullImage brings it"))?;
        let snapshotter = self.catalog.snapshotter(&self.snapshotter_of(pod), &self.scope)?;
        let parent = image.facts.chain.as_ref().map(|chain| chain.as_str().parse()).transpose()?;
        let new = NewSnapshot { key: key.clone(), parent, labels: snapshot_labels(id, pod) };
        let mounts = match snapshotter.view(new.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.unpack(&image, &self.snapshotter_of(pod)).await?;
                snapshotter.view(new).await?
            }
            done => done?,
        };
        let removed = key.clone();
        undo.push("snapshot of an image", move || async move { snapshotter.remove(&removed).await });
        let unmounted = at.to_owned();
        undo.push("mount of an image", move || async move { blocking(move || unmount(&unmounted)).await });
        let (mounts, at, path) = (read_only(&mounts), at.to_owned(), mount.image_sub_path.clone());
        let source = blocking(move || mount_at(&mounts, &at, &path)).await?;
        Ok(Volume { source, target: mount.container_path.clone(), is_readonly: true })
    }

    /// Unmounts a container's images and removes their snapshots. Idempotent.
    pub(super) async fn unmount_images(&self, container: &Arc<Container>) -> Result<()> {
        for (key, at) in container.origin.image_mounts.clone() {
            blocking(move || unmount(Path::new(&at))).await?;
            let record = self.containers_store().container(&container.id).await;
            let snapshotter = match record {
                Ok(record) => record.snapshotter.parse()?,
                Err(_) => self.config.snapshotter.clone(),
            };
            match self.catalog.snapshotter(&snapshotter, &self.scope)?.remove(&key.parse()?).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Mounts them again after the machine was stopped, before their container is started.
    pub(super) async fn remount_images(&self, container: &Container, pod: &Pod) -> Result<()> {
        let snapshotter = self.catalog.snapshotter(&self.snapshotter_of(pod), &self.scope)?;
        for (key, at) in &container.origin.image_mounts {
            let (mounts, at) = (snapshotter.mounts(&key.parse()?).await?, PathBuf::from(at));
            blocking(move || {
                let is_mounted = berth_sys::mount::info::of(&at).is_ok_and(|mount| mount.point == at);
                if is_mounted { Ok(()) } else { mount_at(&read_only(&mounts), &at, "").map(drop) }
            })
            .await?;
        }
        Ok(())
    }
}

/// Mounts an image and answers where what is wanted of it is. No link of the image leads out of it.
fn mount_at(mounts: &[Mount], at: &Path, path: &str) -> Result<PathBuf> {
    let failed = |error| Error::io(format!("cannot mount at {}", at.display()), error);
    let is_plain =
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_plain {
        return Err(Error::invalid_argument(format!("the path {path:?} must lead into the image")));
    }
    std::fs::create_dir_all(at).map_err(failed)?;
    mount_all(mounts, at)
        .map_err(|error| Error::unknown(format!("cannot mount at {}", at.display())).caused_by(error))?;
    let root = Root::open(at).map_err(failed)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match root.open_file_without_links(
        Path::new(if path.is_empty() { "." } else { path }),
        flags,
        Mode::empty(),
    ) {
        Ok(_) => Ok(at.join(path)),
        Err(error) => {
            // The first error is the one to tell.
            let _ = unmount_all(at);
            Err(Error::io(format!("{path:?} is no folder of the image"), error))
        }
    }
}

fn unmount(at: &Path) -> Result<()> {
    unmount_all(at)
        .map_err(|error| Error::unknown(format!("cannot unmount {}", at.display())).caused_by(error))?;
    match std::fs::remove_dir(at) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", at.display()), error))
        }
        _ => Ok(()),
    }
}
