//! The table of pods, with containerd's keys (`docs/cri/config.md` there).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use berth_cni::InProcess;
use berth_cri::{AddressPreference, Handler, Network, Pods};
use berth_oci::runtime::Spec;
use berth_proto::containerd::runc::v1::Options as RuncOptions;
use berth_proto::convert::pack;
use berth_proto::runtimeoptions::v1::Options as OtherOptions;
use berth_types::{Any, RuntimeInfo};
use serde::Deserialize;

use crate::config::{Config, GoDuration};
use crate::{parts, proxy};

/// The plugin, and its table.
pub(crate) const RUNTIME: &str = "io.containerd.cri.v1.runtime";
/// The runtime whose shim is berth's own.
const OWN: &str = "io.containerd.runc.v2";
/// A folder that systemd makes when it is the first process (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// `[plugins.'io.containerd.cri.v1.runtime']`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Runtime {
    enable_selinux: bool,
    selinux_category_range: i64,
    max_container_log_line_size: i64,
    disable_apparmor: bool,
    restrict_oom_score_adj: bool,
    disable_proc_mount: bool,
    unset_seccomp_profile: String,
    tolerate_missing_hugetlb_controller: bool,
    disable_hugetlb_controller: bool,
    device_ownership_from_security_context: bool,
    ignore_image_defined_volumes: bool,
    netns_mounts_under_state_dir: bool,
    enable_unprivileged_ports: bool,
    enable_unprivileged_icmp: bool,
    enable_cdi: bool,
    cdi_spec_dirs: Vec<PathBuf>,
    drain_exec_sync_io_timeout: GoDuration,
    ignore_deprecation_warnings: Vec<String>,
    stats_collect_period: toml::Value,
    stats_retention_period: toml::Value,
    enable_criu: bool,
    enable_experimental_restore_via_create: bool,
    sandboxer: String,
    containerd: Containerd,
    cni: Cni,
}

/// Its table `containerd`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Containerd {
    default_runtime_name: String,
    ignore_blockio_not_enabled_errors: bool,
    ignore_rdt_not_enabled_errors: bool,
    runtimes: BTreeMap<String, RuntimeClass>,
}

/// A runtime, by the name that runtime classes have for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuntimeClass {
    runtime_type: String,
    runtime_path: String,
    pod_annotations: Vec<String>,
    container_annotations: Vec<String>,
    options: toml::Table,
    privileged_without_host_devices: bool,
    privileged_without_host_devices_all_devices_allowed: bool,
    cgroup_writable: bool,
    base_runtime_spec: String,
    cni_conf_dir: String,
    cni_max_conf_num: usize,
    snapshotter: String,
    sandboxer: String,
    io_type: String,
    /// Ours: pods have a container of the image `pinned_images.sandbox`, as with containerd. It is a key of its own
    /// because containerd writes that image into every configuration that it prints.
    berth_pause_container: bool,
}

/// Its table `cni`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cni {
    bin_dir: String,
    bin_dirs: Vec<PathBuf>,
    conf_dir: PathBuf,
    max_conf_num: usize,
    setup_serially: bool,
    conf_template: String,
    ip_pref: String,
    use_internal_loopback: bool,
    /// Ours: networks of well-known plugins are made in process, several times faster, with the same result.
    berth_in_process: bool,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            enable_selinux: false,
            selinux_category_range: 1024,
            max_container_log_line_size: 16 << 10,
            disable_apparmor: false,
            restrict_oom_score_adj: false,
            disable_proc_mount: false,
            unset_seccomp_profile: String::new(),
            tolerate_missing_hugetlb_controller: true,
            disable_hugetlb_controller: true,
            device_ownership_from_security_context: false,
            ignore_image_defined_volumes: false,
            netns_mounts_under_state_dir: false,
            enable_unprivileged_ports: true,
            enable_unprivileged_icmp: true,
            enable_cdi: true,
            cdi_spec_dirs: ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).into(),
            drain_exec_sync_io_timeout: GoDuration::from_secs(0),
            ignore_deprecation_warnings: Vec::new(),
            stats_collect_period: String::new().into(),
            stats_retention_period: String::new().into(),
            enable_criu: true,
            enable_experimental_restore_via_create: false,
            sandboxer: String::new(),
            containerd: Containerd::default(),
            cni: Cni::default(),
        }
    }
}

impl Default for Containerd {
    fn default() -> Self {
        Self {
            default_runtime_name: "runc".to_owned(),
            ignore_blockio_not_enabled_errors: false,
            ignore_rdt_not_enabled_errors: false,
            runtimes: BTreeMap::from([("runc".to_owned(), RuntimeClass::default())]),
        }
    }
}

impl Default for RuntimeClass {
    fn default() -> Self {
        Self {
            runtime_type: OWN.to_owned(),
            runtime_path: String::new(),
            pod_annotations: Vec::new(),
            container_annotations: Vec::new(),
            options: toml::Table::new(),
            privileged_without_host_devices: false,
            privileged_without_host_devices_all_devices_allowed: false,
            cgroup_writable: false,
            base_runtime_spec: String::new(),
            cni_conf_dir: String::new(),
            cni_max_conf_num: 0,
            snapshotter: String::new(),
            sandboxer: "podsandbox".to_owned(),
            io_type: String::new(),
            berth_pause_container: false,
        }
    }
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            bin_dir: String::new(),
            bin_dirs: vec!["/opt/cni/bin".into()],
            conf_dir: "/etc/cni/net.d".into(),
            max_conf_num: 1,
            setup_serially: false,
            conf_template: String::new(),
            ip_pref: String::new(),
            use_internal_loopback: false,
            berth_in_process: false,
        }
    }
}

impl Runtime {
    /// What is asked for and cannot be had, for the log.
    pub(super) fn warnings(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        if !self.cni.conf_template.is_empty() {
            all.push("conf_template of the cni table: network configurations are not written by berth");
        }
        if self.enable_experimental_restore_via_create {
            all.push("enable_experimental_restore_via_create: containers are not made from checkpoints");
        }
        if self.selinux_category_range != 1024 && self.enable_selinux {
            all.push("selinux_category_range: labels are taken as they are asked for");
        }
        all
    }

    /// As the interface takes it.
    pub(super) fn pods(&self, config: &Config) -> Result<Pods> {
        let (root, state) = (&config.root, &config.state);
        let folder = "io.containerd.grpc.v1.cri";
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let mut handlers = BTreeMap::new();
        for (name, class) in &self.containerd.runtimes {
            let handler = self
                .handler(name, class, config)
                .with_context(|| format!("in the runtime {name} of plugins.{RUNTIME:?}"))?;
            handlers.insert(name.clone(), Arc::new(handler));
        }
        let default_handler = self.containerd.default_runtime_name.clone();
        if !handlers.contains_key(&default_handler) {
            bail!("default_runtime_name {default_handler:?} of plugins.{RUNTIME:?} is none of its runtimes");
        }
        Ok(Pods {
            root: root.join(folder),
            state: state.join(folder),
            bundles: state.join("io.containerd.runtime.v2.task/k8s.io"),
            network_namespaces: if self.netns_mounts_under_state_dir {
                state.join(folder).join("netns")
            } else {
                "/var/run/netns".into()
            },
            shim: parts::beside(&own, "berth-shim"),
            default_handler,
            handlers,
            network: self.cni.network(),
            address_preference: match self.cni.ip_pref.as_str() {
                "" | "ipv4" => AddressPreference::V4,
                "ipv6" => AddressPreference::V6,
                "cni" => AddressPreference::AsGiven,
                other => bail!("ip_pref {other:?} of plugins.{RUNTIME:?} is none of ipv4, ipv6 and cni"),
            },
            // Nothing or less is no limit.
            log_line: usize::try_from(self.max_container_log_line_size)
                .ok()
                .filter(|size| *size > 0)
                .unwrap_or(1 << 20),
            unprivileged_ports: self.enable_unprivileged_ports,
            unprivileged_icmp: self.enable_unprivileged_icmp,
            unset_seccomp: Some(self.unset_seccomp_profile.clone()).filter(|profile| !profile.is_empty()),
            restrict_oom_score: self.restrict_oom_score_adj,
            disable_hugetlb: self.disable_hugetlb_controller,
            checkpoints: self.enable_criu,
            ignore_block_io_classes: self.containerd.ignore_blockio_not_enabled_errors,
            ignore_rdt_classes: self.containerd.ignore_rdt_not_enabled_errors,
            ignore_image_volumes: self.ignore_image_defined_volumes,
            device_ownership_from_user: self.device_ownership_from_security_context,
            disable_apparmor: self.disable_apparmor,
            enable_selinux: self.enable_selinux,
            drain_exec: self.drain_exec_sync_io_timeout.as_std(),
            cdi_folders: if self.enable_cdi { self.cdi_spec_dirs.clone() } else { Vec::new() },
        })
    }

    fn handler(&self, name: &str, class: &RuntimeClass, config: &Config) -> Result<Handler> {
        let controller = Some(class.sandboxer.as_str()).filter(|name| !["", "podsandbox"].contains(name));
        if let Some(name) = controller
            && name != "shim"
            && !proxy::is_controller(config, name)
        {
            bail!(
                "sandboxer {name:?} is not there: podsandbox, shim and [proxy_plugins] of type sandbox are"
            );
        }
        let systemd_cgroup = match class.options.get("SystemdCgroup") {
            Some(value) => value.as_bool().context("SystemdCgroup must be true or false")?,
            None => Path::new(SYSTEMD).is_dir(),
        };
        let is_own = class.runtime_type == OWN
            && class.runtime_path.is_empty()
            && controller.is_none()
            && !config.plugins.shims.runtimes.contains_key(OWN);
        let base_spec = match class.base_runtime_spec.as_str() {
            "" => None,
            path => Some(Arc::new(read_spec(Path::new(path))?)),
        };
        Ok(Handler {
            name: name.to_owned(),
            runtime: RuntimeInfo {
                name: class.runtime_type.clone(),
                options: options(&class.runtime_type, &class.options, systemd_cgroup)?,
            },
            runtime_path: class.runtime_path.clone(),
            is_own,
            controller: controller.map(str::to_owned),
            pause_container: class.berth_pause_container,
            systemd_cgroup,
            pod_annotations: class.pod_annotations.clone(),
            container_annotations: class.container_annotations.clone(),
            privileged_without_host_devices: class.privileged_without_host_devices,
            all_devices_allowed: class.privileged_without_host_devices_all_devices_allowed,
            cgroup_writable: class.cgroup_writable,
            base_spec,
            snapshotter: match class.snapshotter.as_str() {
                "" => None,
                name => Some(name.parse()?),
            },
            network: (!class.cni_conf_dir.is_empty()).then(|| Network {
                conf_dir: PathBuf::from(&class.cni_conf_dir),
                max_conf_num: class.cni_max_conf_num,
                ..self.cni.network()
            }),
        })
    }
}

impl Cni {
    fn network(&self) -> Network {
        // The older key is one folder; the newer one outranks it unless it is the default.
        let bin_dirs =
            if self.bin_dir.is_empty() { self.bin_dirs.clone() } else { vec![self.bin_dir.clone().into()] };
        Network {
            conf_dir: self.conf_dir.clone(),
            bin_dirs,
            max_conf_num: self.max_conf_num,
            is_serial: self.setup_serially,
            in_process: if self.berth_in_process { InProcess::WhenPossible } else { InProcess::Marked },
        }
    }
}

fn read_spec(path: &Path) -> Result<Spec> {
    let text =
        std::fs::read(path).with_context(|| format!("cannot read base_runtime_spec {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("base_runtime_spec {} is no runtime specification", path.display()))
}

/// `options` of a runtime as its shim takes them; none when nothing is said.
fn options(runtime: &str, table: &toml::Table, systemd_cgroup: bool) -> Result<Option<Any>> {
    if runtime != OWN {
        return other_options(table);
    }
    let mut options = RuncOptions { systemd_cgroup, ..RuncOptions::default() };
    for (key, value) in table {
        let wrong = || format!("option {key} cannot be {value}");
        let text = || value.as_str().map(str::to_owned).with_context(wrong);
        let flag = || value.as_bool().with_context(wrong);
        let id = || value.as_integer().and_then(|id| u32::try_from(id).ok()).with_context(wrong);
        match key.as_str() {
            "BinaryName" => options.binary_name = text()?,
            "Root" => options.root = text()?,
            "SystemdCgroup" => {}
            "NoPivotRoot" => options.no_pivot_root = flag()?,
            "NoNewKeyring" => options.no_new_keyring = flag()?,
            "ShimCgroup" => options.shim_cgroup = text()?,
            "IoUid" => options.io_uid = id()?,
            "IoGid" => options.io_gid = id()?,
            "CriuImagePath" => options.criu_image_path = text()?,
            "CriuWorkPath" => options.criu_work_path = text()?,
            // Of older versions, and of no effect in newer ones.
            "CriuPath" | "TaskApiAddress" | "TaskApiVersion" => {}
            _ => bail!("{OWN} has no option {key}"),
        }
    }
    Ok((options != RuncOptions::default()).then(|| pack(&options)))
}

fn other_options(table: &toml::Table) -> Result<Option<Any>> {
    if table.is_empty() {
        return Ok(None);
    }
    let text = |key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    let options = OtherOptions {
        type_url: text("TypeUrl"),
        config_path: text("ConfigPath"),
        config_body: if table.contains_key("ConfigPath") || table.contains_key("ConfigBody") {
            text("ConfigBody").into_bytes()
        } else {
            // A runtime whose options are a table of its own is told the table, as containerd does.
            toml::to_string(table).context("the options cannot be written")?.into_bytes()
        },
    };
    Ok(Some(pack(&options)))
}
