//! What the runtime says of itself.

use std::path::Path;

use berth_proto::runtime::v1 as proto;

use crate::Cri;

/// The version of the kubelet's interface to runtimes, which never changed.
const KUBE_API: &str = "0.1.0";
/// The name that clients know: what is said here is what containerd would say.
const RUNTIME: &str = "containerd";
const API: &str = "v1";
/// A folder that systemd makes when it is the first process (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

impl Cri {
    pub(crate) fn version(&self) -> proto::VersionResponse {
        proto::VersionResponse {
            version: KUBE_API.to_owned(),
            runtime_name: RUNTIME.to_owned(),
            runtime_version: self.config.version.clone(),
            runtime_api_version: API.to_owned(),
        }
    }

    /// Whether pods can be run: not yet, and so says the condition that a kubelet looks at.
    pub(crate) fn status(&self, verbose: bool) -> proto::StatusResponse {
        let to_come = |kind: &str, reason: &str| proto::RuntimeCondition {
            r#type: kind.to_owned(),
            status: false,
            reason: reason.to_owned(),
            message: "berth serves images over the CRI, and does not run pods yet".to_owned(),
        };
        let conditions =
            vec![to_come("RuntimeReady", "RuntimeToCome"), to_come("NetworkReady", "NetworkPluginNotReady")];
        let config = verbose.then(|| {
            let config = serde_json::json!({
                "snapshotter": self.config.snapshotter.to_string(),
                "imageFolder": self.config.image_folder,
                "registryHosts": self.config.registry_hosts,
                "pinnedImages": self.config.pinned_images,
            });
            ("config".to_owned(), config.to_string())
        });
        proto::StatusResponse {
            status: Some(proto::RuntimeStatus { conditions }),
            info: config.into_iter().collect(),
            ..Default::default()
        }
    }

    /// How a kubelet is to name cgroups: by systemd where systemd rules.
    #[expect(clippy::unused_self, reason = "a runtime handler's configuration will decide it")]
    pub(crate) fn runtime_config(&self) -> proto::RuntimeConfigResponse {
        let driver = if Path::new(SYSTEMD).is_dir() {
            proto::CgroupDriver::Systemd
        } else {
            proto::CgroupDriver::Cgroupfs
        };
        proto::RuntimeConfigResponse {
            linux: Some(proto::LinuxRuntimeConfiguration { cgroup_driver: driver.into() }),
        }
    }
}
