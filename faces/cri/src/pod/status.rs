//! `PodSandboxStatus`.

use std::collections::HashMap;

use berth_proto::runtime::v1 as proto;
use serde_json::json;

use super::{Pod, pause};
use crate::Cri;
use crate::time::nanoseconds;

impl Pod {
    /// Its status in the words of the CRI.
    pub(crate) fn status(&self) -> proto::PodSandboxStatus {
        let facts = self.facts();
        let mut addresses = facts.addresses.iter().map(ToString::to_string);
        let network = proto::PodSandboxNetworkStatus {
            ip: addresses.next().unwrap_or_default(),
            additional_ips: addresses.map(|ip| proto::PodIp { ip }).collect(),
        };
        proto::PodSandboxStatus {
            id: self.id.to_string(),
            metadata: self.config.metadata.clone(),
            state: self.wire_state().into(),
            created_at: nanoseconds(self.created_at),
            network: Some(network),
            linux: Some(proto::LinuxPodSandboxStatus {
                namespaces: Some(proto::Namespace { options: Some(self.namespace_options()) }),
            }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: facts.handler,
        }
    }

    /// What `crictl inspectp` shows beyond it, under the names that containerd has.
    fn info(&self, cri: &Cri) -> String {
        let facts = self.facts();
        let own = self.handler.pause_container.then(|| {
            let image = cri.config.pinned_images.get(pause::PURPOSE).cloned().unwrap_or_default();
            (image, self.id.as_str(), cri.snapshotter_of(self).to_string())
        });
        let (image, snapshot, snapshotter) = own.unwrap_or_default();
        let attached = berth_cni::Attached::from_value(&facts.attached);
        json!({
            "pid": facts.pause.unwrap_or_default(),
            "processStatus": if self.is_ready() { "running" } else { "deleted" },
            "netNamespaceClosed": facts.network.as_deref().is_some_and(|path| !berth_sys::held::is_held(path)),
            "image": image,
            "snapshotKey": snapshot,
            "snapshotter": snapshotter,
            "runtimeHandler": facts.handler,
            "runtimeType": self.handler.runtime.name,
            "runtimeOptions": null,
            "config": self.config,
            "cniResult": attached.map(|attached| attached.info()),
            "netns": facts.network,
        })
        .to_string()
    }
}

impl Cri {
    /// The status of a pod with those of its containers; `verbose` for people.
    pub(crate) async fn pod_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> berth_types::Result<proto::PodSandboxStatusResponse> {
        let pod = self.pod(id)?;
        let mut info = HashMap::new();
        if verbose {
            info.extend(self.sandbox_info(&pod).await);
            info.insert("info".to_owned(), pod.info(self));
            info.insert("calls".to_owned(), pod.diary.told().to_string());
        }
        Ok(proto::PodSandboxStatusResponse {
            status: Some(pod.status()),
            info,
            containers_statuses: Vec::new(),
            timestamp: 0,
        })
    }
}
