//! The field paths of each record, as containerd's adaptors name them.

use crate::filter::Fields;
use crate::{
    Activation, BlobInfo, Container, Envelope, Event, Image, IngestStatus, Labels, Lease, Sandbox,
    SnapshotInfo, SnapshotKind,
};

fn label(labels: &Labels, path: &[&str]) -> Option<String> {
    labels.get(&path.join(".")).cloned()
}

fn present(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

impl Fields for Container {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.id.to_string()),
            ["runtime", "name"] => present(&self.runtime.name),
            ["image"] => present(&self.image),
            ["snapshotter"] => present(&self.snapshotter),
            ["sandbox" | "sandboxid"] => present(&self.sandbox),
            ["labels", key @ ..] => label(&self.labels, key),
            _ => None,
        }
    }
}

/// containerd lists activations whatever the filters are; here they count.
impl Fields for Activation {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => present(&self.name),
            ["labels", key @ ..] => label(&self.labels, key),
            _ => None,
        }
    }
}

impl Fields for Sandbox {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.id.to_string()),
            ["labels", key @ ..] => label(&self.labels, key),
            _ => None,
        }
    }
}

impl Fields for Image {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => Some(self.name.to_string()),
            ["target", "digest"] => Some(self.target.digest.to_string()),
            ["target", "mediatype"] => present(&self.target.media_type),
            ["labels", key @ ..] => label(&self.labels, key),
            ["annotations", key @ ..] => self.target.annotations.get(&key.join(".")).cloned(),
            _ => None,
        }
    }
}

impl Fields for BlobInfo {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["digest"] => Some(self.digest.to_string()),
            ["size"] => Some(self.size.to_string()),
            ["labels", key @ ..] => label(&self.labels, key),
            _ => None,
        }
    }
}

impl Fields for IngestStatus {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["ref"] => Some(self.reference.to_string()),
            _ => None,
        }
    }
}

impl Fields for Lease {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.id.to_string()),
            ["labels", key @ ..] => label(&self.labels, key),
            _ => None,
        }
    }
}

impl Fields for SnapshotInfo {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["kind"] => Some(
                match self.kind {
                    SnapshotKind::Active => "active",
                    SnapshotKind::View => "view",
                    SnapshotKind::Committed => "committed",
                }
                .to_owned(),
            ),
            ["name"] => Some(self.key.to_string()),
            // None is the empty one: containerd looks for those of remote snapshotters by `parent==""`.
            ["parent"] => Some(self.parent.as_ref().map(ToString::to_string).unwrap_or_default()),
            ["labels", key @ ..] => label(&self.labels, key),
            _ => None,
        }
    }
}

impl Fields for Envelope {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["namespace"] => Some(self.namespace.to_string()),
            ["topic"] => Some(self.event.topic().to_owned()),
            ["event", rest @ ..] => self.event.field(rest),
            _ => None,
        }
    }
}

impl Fields for Event {
    fn field(&self, path: &[&str]) -> Option<String> {
        match (self, path) {
            (
                Self::ContainerCreate { id, .. }
                | Self::ContainerUpdate { id, .. }
                | Self::ContainerDelete { id },
                ["id"],
            ) => Some(id.clone()),
            (Self::ContainerCreate { image, .. } | Self::ContainerUpdate { image, .. }, ["image"]) => {
                present(image)
            }
            (Self::ContainerCreate { runtime, .. }, ["runtime", "name"]) => present(&runtime.name),
            (Self::ContainerUpdate { snapshot_key, .. }, ["snapshot_key"]) => present(snapshot_key),
            (
                Self::ContainerUpdate { labels, .. }
                | Self::ImageCreate { labels, .. }
                | Self::ImageUpdate { labels, .. }
                | Self::NamespaceCreate { labels, .. }
                | Self::NamespaceUpdate { labels, .. },
                ["labels", key @ ..],
            ) => label(labels, key),
            (
                Self::ImageCreate { name, .. }
                | Self::ImageUpdate { name, .. }
                | Self::ImageDelete { name }
                | Self::NamespaceCreate { name, .. }
                | Self::NamespaceUpdate { name, .. }
                | Self::NamespaceDelete { name }
                | Self::SnapshotCommit { name, .. },
                ["name"],
            ) => Some(name.clone()),
            (Self::ContentCreate { digest, .. } | Self::ContentDelete { digest }, ["digest"]) => {
                Some(digest.to_string())
            }
            (
                Self::SnapshotPrepare { key, .. }
                | Self::SnapshotCommit { key, .. }
                | Self::SnapshotRemove { key, .. },
                ["key"],
            ) => Some(key.clone()),
            (Self::SnapshotPrepare { parent, .. }, ["parent"]) => present(parent),
            (
                Self::SnapshotPrepare { snapshotter, .. }
                | Self::SnapshotCommit { snapshotter, .. }
                | Self::SnapshotRemove { snapshotter, .. },
                ["snapshotter"],
            ) => present(snapshotter),
            _ => self.task_field(path),
        }
    }
}

impl Event {
    fn task_field(&self, path: &[&str]) -> Option<String> {
        match (self, path) {
            (
                Self::TaskCreate { container_id, .. }
                | Self::TaskStart { container_id, .. }
                | Self::TaskDelete { container_id, .. }
                | Self::TaskExit { container_id, .. }
                | Self::TaskOom { container_id }
                | Self::TaskExecAdded { container_id, .. }
                | Self::TaskExecStarted { container_id, .. }
                | Self::TaskPaused { container_id }
                | Self::TaskResumed { container_id }
                | Self::TaskCheckpointed { container_id, .. },
                ["container_id"],
            ) => Some(container_id.clone()),
            (Self::TaskCreate { bundle, .. }, ["bundle"]) => present(bundle),
            (Self::TaskExecAdded { exec_id, .. } | Self::TaskExecStarted { exec_id, .. }, ["exec_id"]) => {
                Some(exec_id.clone())
            }
            (Self::TaskExit { exec_id, .. } | Self::TaskDelete { exec_id, .. }, ["id"]) => present(exec_id),
            (
                Self::TaskCreate { checkpoint, .. } | Self::TaskCheckpointed { checkpoint, .. },
                ["checkpoint"],
            ) => present(checkpoint),
            _ => None,
        }
    }
}
