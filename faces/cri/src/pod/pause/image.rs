//! The first process of a pod as a container of an image, as containerd has it for every pod. Who wants that says so in the
//! configuration; a program that looks for such containers finds them, and so does `ctr -n k8s.io containers ls`.

use std::sync::Arc;

use berth_core::Rollback;
use berth_oci::runtime::default;
use berth_proto::runtime::v1 as proto;
use berth_types::{Any, Container, Error, ErrorKind, Mount, Result, SnapshotKey, SnapshotterName};
use proto::NamespaceMode;

use super::Pod;
use crate::Cri;
use crate::image::Present;
use crate::spec::{self, Inputs, Processes, SPEC_TYPE, annotations};

/// What the image is for, among those that are pinned.
pub(in crate::pod) const PURPOSE: &str = "sandbox";
/// It is nearly the last to be killed when memory runs out, and the last to be given a processor, as in containerd.
const OOM_SCORE: i64 = -998;
const CPU_SHARES: i64 = 2;

impl Cri {
    /// Makes the layer over the image and fills in the record; answers what the root filesystem is mounted of.
    pub(super) async fn pause_of_image(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        record: &mut Container,
        undo: &mut Rollback,
    ) -> Result<Vec<Mount>> {
        let image = self.pause_image().await?;
        let mounts = self.prepare(&record.id, pod, &image, undo).await?;
        let config = container(pod);
        let user = self.user_of(&config, &image.facts, &mounts).await?;
        let is_on_hosts = pod.namespace_options().pid() == NamespaceMode::Node;
        let mut built = spec::build(&Inputs {
            pods: &self.config.pods,
            pod,
            id: record.id.as_str(),
            config: &config,
            image: &image.facts,
            user: &user,
            processes: if is_on_hosts { Processes::Host } else { Processes::Own },
            volumes: &[],
        })
        .map_err(|error| error.context(format!("the pause image {} cannot be run", image.name())))?;
        built.annotations = annotations::of_pod(pod);
        record.image = image.name();
        record.snapshotter = self.snapshotter_of(pod).to_string();
        record.snapshot_key = record.id.to_string();
        record.spec = Some(Any::new(SPEC_TYPE, built.to_vec()));
        Ok(mounts)
    }

    /// The image that is configured, pulled if it is not there. Pods that are made at once share the pull.
    async fn pause_image(self: &Arc<Self>) -> Result<Present> {
        let wanted = self.config.pinned_images.get(PURPOSE).filter(|wanted| !wanted.is_empty());
        let wanted = wanted.ok_or_else(|| {
            Error::failed_precondition(format!(
                "pods are to have a pause container, and pinned_images.{PURPOSE} of \
                 plugins.\"io.containerd.cri.v1.images\" names no image for it"
            ))
        })?;
        if let Some(image) = self.find(wanted).await? {
            return Ok(image);
        }
        let (cri, name) = (self.clone(), wanted.clone());
        let pull = async move { cri.pull(&name, None).await.map(|id| id.to_string()) };
        let pulled = self.nursery.join(format!("pull {wanted}"), pull).await;
        let id = pulled.map_err(|error| error.context(format!("cannot pull the pause image {wanted}")))?;
        let found = self.find(&id).await?;
        found.ok_or_else(|| Error::not_found(format!("the pause image {wanted} is gone again")))
    }

    /// Removes the layer of a first process, if it has one. Idempotent.
    pub(super) async fn remove_pause_snapshot(&self, record: &Container) -> Result<()> {
        if record.snapshot_key.is_empty() {
            return Ok(());
        }
        let name: SnapshotterName = record.snapshotter.parse()?;
        let key: SnapshotKey = record.snapshot_key.parse()?;
        match self.catalog.snapshotter(&name, &self.scope)?.remove(&key).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What a kubelet would ask for in its name: the image's program with no right to anything, confined as its pod is.
fn container(pod: &Pod) -> proto::ContainerConfig {
    let of_pod = pod.linux().security_context.unwrap_or_default();
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let security = proto::LinuxContainerSecurityContext {
        capabilities: Some(proto::Capability { drop_capabilities: owned(&["ALL"]), ..Default::default() }),
        run_as_user: of_pod.run_as_user,
        run_as_group: of_pod.run_as_group,
        supplemental_groups: of_pod.supplemental_groups,
        supplemental_groups_policy: of_pod.supplemental_groups_policy,
        seccomp: of_pod.seccomp,
        apparmor: of_pod.apparmor,
        selinux_options: of_pod.selinux_options,
        readonly_rootfs: true,
        no_new_privs: true,
        masked_paths: owned(&default::MASKED_PATHS),
        readonly_paths: owned(&default::READONLY_PATHS),
        ..Default::default()
    };
    proto::ContainerConfig {
        linux: Some(proto::LinuxContainerConfig {
            resources: Some(proto::LinuxContainerResources {
                cpu_shares: CPU_SHARES,
                oom_score_adj: OOM_SCORE,
                ..Default::default()
            }),
            security_context: Some(security),
        }),
        ..Default::default()
    }
}
