//! `CheckpointContainer`: what a container is doing, as an archive at a place of the kubelet's; the container goes on.
//!
//! The archive has the members that tools for checkpoints of Kubernetes read (checkpointctl, CRI-O, containerd):
//!
//! | member | what |
//! |---|---|
//! | `checkpoint/` | CRIU's images of the processes |
//! | `rootfs-diff.tar` | what the container has written over its image |
//! | `config.dump`, `spec.dump`, `status.dump` | what it is: in short, as the runtime has it, and as a kubelet knows it |
//! | `container.log` | its log so far |
//! | `dump.log`, `stats-dump` | what CRIU says of its work |

mod archive;

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_core::{CompareRequest, Deletion, NewSnapshot};
use berth_oci::image::media;
use berth_proto::containerd::runc::v1::CheckpointOptions;
use berth_proto::runtime::v1 as proto;
use berth_types::{Container as Record, Error, Labels, Result, SnapshotKey};
use serde_json::json;

use super::Container;
use crate::Cri;
use crate::blocking::blocking;

impl Cri {
    /// Writes a checkpoint of a container that runs to the place that a request names; nothing is left there if that
    /// fails. After the request's time nobody waits for it any more.
    pub(crate) async fn checkpoint_container(
        self: &Arc<Self>,
        request: proto::CheckpointContainerRequest,
    ) -> Result<()> {
        if !self.config.pods.checkpoints {
            return Err(Error::failed_precondition(
                "checkpoints are disabled: enable_criu is false in the configuration",
            ));
        }
        let container = self.container(&request.container_id)?;
        let location = PathBuf::from(&request.location);
        if !location.is_absolute() {
            return Err(Error::invalid_argument(format!(
                "location {:?} is no absolute path",
                request.location
            )));
        }
        let cri = self.clone();
        let key = format!("checkpoint {} {}", container.id, location.display());
        let work = async move {
            let _work = container.work.lock().await;
            let saved = cri.save(&container, &location).await;
            saved.map_err(|error| error.context(format!("cannot save container {}", container.id)))?;
            Ok(String::new())
        };
        let saved = self.nursery.join(key, work);
        match u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0) {
            None => saved.await.map(drop),
            Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), saved).await {
                Ok(saved) => saved.map(drop),
                Err(_) => Err(Error::deadline_exceeded(format!(
                    "container {} could not be saved within {seconds} s",
                    request.container_id
                ))),
            },
        }
    }

    async fn save(&self, container: &Arc<Container>, location: &Path) -> Result<()> {
        container.must_run()?;
        let folder = self.volatile(container).join("checkpoint");
        let made = folder.clone();
        blocking(move || make(&made)).await?;
        let collected = self.collect(container, &folder).await;
        let (from, to) = (folder.clone(), location.to_owned());
        let written = match collected {
            Ok(()) => blocking(move || archive::write(&from, &to)).await,
            Err(error) => Err(error),
        };
        let removed = blocking(move || super::remove::remove_folder(&folder)).await;
        written.and(removed)
    }

    /// Puts everything that is to be in the archive into a folder.
    async fn collect(&self, container: &Arc<Container>, folder: &Path) -> Result<()> {
        let record = self.containers_store().container(&container.id).await?;
        let options = CheckpointOptions {
            image_path: folder.join("checkpoint").display().to_string(),
            work_path: folder.display().to_string(),
            ..CheckpointOptions::default()
        };
        let options = berth_proto::convert::pack(&options);
        self.tasks().checkpoint(&container.id, None, Some(options)).await?;
        self.save_layer(&record, &folder.join("rootfs-diff.tar")).await?;

        let status = container.status();
        let config = json!({
            "id": container.id.as_str(),
            "name": container.name,
            "rootfsImageName": status.image.as_ref().map(|image| &image.image),
            "rootfsImageRef": status.image_ref,
            "rootfsImage": status.image.as_ref().map(|image| &image.image),
            "runtime": record.runtime.name,
            "createdTime": moment(status.created_at),
            "checkpointedTime": moment(crate::time::now()),
            "restored": false,
        });
        let documents = [
            ("config.dump", config.to_string().into_bytes()),
            ("spec.dump", record.spec.map(|spec| spec.value).unwrap_or_default()),
            ("status.dump", json!(status).to_string().into_bytes()),
        ];
        let (folder, log) = (folder.to_owned(), PathBuf::from(status.log_path));
        blocking(move || {
            for (name, text) in documents {
                let path = folder.join(name);
                fs::write(&path, text).map_err(|error| failed(&path, error))?;
            }
            if log.is_file() {
                let path = folder.join("container.log");
                fs::copy(&log, &path).map_err(|error| failed(&path, error))?;
            }
            Ok(())
        })
        .await
    }

    /// Writes what a container has changed over its image.
    async fn save_layer(&self, record: &Record, path: &Path) -> Result<()> {
        let lease = self.catalog.leases(&self.scope).create(None, Labels::new()).await?;
        let scope = self.scope.with_lease(lease.id.clone());
        let snapshotter = self.catalog.snapshotter(&record.snapshotter.parse()?, &scope)?;
        let saved = async {
            let key: SnapshotKey = record.snapshot_key.parse()?;
            let upper = snapshotter.mounts(&key).await?;
            let parent = snapshotter.stat(&key).await?.parent;
            // It goes with its lease.
            let view: SnapshotKey = format!("{key}-checkpoint").parse()?;
            let lower =
                snapshotter.view(NewSnapshot { key: view.clone(), parent, labels: Labels::new() }).await?;
            let request = CompareRequest {
                lower,
                upper,
                media_type: media::OCI_LAYER.to_owned(),
                reference: Some(format!("checkpoint-{key}").parse()?),
                ..CompareRequest::default()
            };
            let compared = self.catalog.differ(&scope).compare(request).await;
            snapshotter.remove(&view).await?;
            let layer = compared?;
            let blob = self.catalog.content(&scope).reader(&layer.digest).await?;
            archive::copy_blob(&*blob, path).await
        };
        let saved = saved.await;
        let ended = self.catalog.leases(&self.scope).delete(&lease.id, Deletion::Later).await;
        saved.and(ended)
    }
}

/// An empty folder for root alone, in the place of what an earlier daemon may have left.
fn make(folder: &Path) -> Result<()> {
    super::remove::remove_folder(folder)?;
    let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join("checkpoint"));
    make().map_err(|error| failed(folder, error))
}

/// A time as JSON has it.
fn moment(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default().to_string()
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), error)
}
