//! What the runtime says of itself.

use std::collections::HashMap;
use std::path::Path;

use berth_proto::runtime::v1 as proto;
use serde_json::json;

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

    /// Whether pods can be run, and put on a network.
    pub(crate) async fn status(&self, verbose: bool) -> proto::StatusResponse {
        let network = self.networks.status().await.map_err(|error| error.chain());
        let condition = |kind: &str, problem: Option<(&str, String)>| {
            let (reason, message) = problem.clone().unwrap_or_default();
            proto::RuntimeCondition {
                r#type: kind.to_owned(),
                status: problem.is_none(),
                reason: reason.to_owned(),
                message,
            }
        };
        let problem = network
            .as_ref()
            .err()
            .map(|error| ("NetworkPluginNotReady", format!("Network plugin returns error: {error}")));
        let conditions = vec![condition("RuntimeReady", None), condition("NetworkReady", problem)];
        proto::StatusResponse {
            status: Some(proto::RuntimeStatus { conditions }),
            info: if verbose { self.info(network.err()) } else { HashMap::new() },
            runtime_handlers: self.handlers().await,
            features: Some(proto::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        }
    }

    fn info(&self, network: Option<String>) -> HashMap<String, String> {
        let pods = &self.config.pods;
        let config = json!({
            "snapshotter": self.config.snapshotter.to_string(),
            "imageFolder": self.config.image_folder,
            "registryHosts": self.config.registry_hosts,
            "pinnedImages": self.config.pinned_images,
            "defaultRuntimeName": pods.default_handler,
            "runtimes": pods.handlers.keys().collect::<Vec<_>>(),
            "cni": {
                "confDir": pods.network.conf_dir,
                "binDirs": pods.network.bin_dirs,
                "maxConfNum": pods.network.max_conf_num,
                "setupSerially": pods.network.is_serial,
            },
            "rootDir": pods.root,
            "stateDir": pods.state,
        });
        HashMap::from([
            ("config".to_owned(), config.to_string()),
            ("pods".to_owned(), self.underway().to_string()),
            ("lastCNILoadStatus".to_owned(), network.unwrap_or_else(|| "OK".to_owned())),
        ])
    }

    /// How a kubelet is to name cgroups: as the default handler makes them.
    pub(crate) fn runtime_config(&self) -> proto::RuntimeConfigResponse {
        let by_systemd = match self.config.pods.handler("") {
            Ok(handler) => handler.systemd_cgroup,
            Err(_) => Path::new(SYSTEMD).is_dir(),
        };
        let driver = if by_systemd { proto::CgroupDriver::Systemd } else { proto::CgroupDriver::Cgroupfs };
        proto::RuntimeConfigResponse {
            linux: Some(proto::LinuxRuntimeConfiguration { cgroup_driver: driver.into() }),
        }
    }

    /// What each handler can do; the default one also without its name.
    async fn handlers(&self) -> Vec<proto::RuntimeHandler> {
        let pods = &self.config.pods;
        let mut found = Vec::new();
        for handler in pods.handlers.values() {
            let abilities = self.abilities(handler).await;
            let features = proto::RuntimeHandlerFeatures {
                recursive_read_only_mounts: abilities.recursive_read_only_mounts,
                user_namespaces: abilities.user_namespaces,
            };
            let known =
                |name: &str| proto::RuntimeHandler { name: name.to_owned(), features: Some(features) };
            if handler.name == pods.default_handler {
                found.push(known(""));
            }
            found.push(known(&handler.name));
        }
        found
    }
}
