//! The flags of `run` and `create`, and the container that they describe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_workload::parse;
use berth_workload::{Config, CreateRequest, HostConfig, LogConfig};
use clap::Args;

use crate::failure::Failure;

/// What a container is made of.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ContainerOptions {
    /// Name of the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// When to fetch the image: always, missing, never
    #[arg(long, default_value = "missing", value_parser = ["always", "missing", "never"])]
    pub(crate) pull: String,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Platform of the image, such as linux/amd64
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// The image is a folder that is the root filesystem as it is
    #[arg(long)]
    pub(crate) rootfs: bool,
    #[command(flatten)]
    process: ProcessOptions,
    #[command(flatten)]
    storage: StorageOptions,
    #[command(flatten)]
    isolation: IsolationOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    life: LifeOptions,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Process")]
struct ProcessOptions {
    /// Set a variable: NAME=VALUE, or NAME for the own value
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// User and group: NAME|ID[:GROUP]
    #[arg(short, long)]
    user: Option<String>,
    /// Add a group to the user's
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Replace the image's entry point
    #[arg(long, allow_hyphen_values = true)]
    entrypoint: Option<String>,
    /// Host name
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Domain name
    #[arg(long)]
    domainname: Option<String>,
    /// Run an init that passes signals on and takes in orphans
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init: Option<bool>,
    /// File mode mask, octal
    #[arg(long)]
    umask: Option<String>,
    /// Set a resource limit: NAME=SOFT[:HARD]
    #[arg(long)]
    ulimit: Vec<String>,
    /// Set a label: KEY[=VALUE]
    #[arg(short, long)]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set an annotation for the runtime: KEY=VALUE
    #[arg(long)]
    annotation: Vec<String>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Storage")]
struct StorageOptions {
    /// Mount a volume or a folder of the host: [SOURCE:]TARGET[:OPTIONS]
    #[arg(short, long)]
    volume: Vec<String>,
    /// Mount something: type=bind|volume|tmpfs,source=…,target=…
    #[arg(long)]
    mount: Vec<String>,
    /// Mount a filesystem in memory: TARGET[:OPTIONS]
    #[arg(long)]
    tmpfs: Vec<String>,
    /// Mount what another container has: CONTAINER[:ro]
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Make the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Add a device of the host, HOST[:CONTAINER][:rwm], or one that a vendor describes, vendor.com/class=name
    #[arg(long)]
    device: Vec<String>,
    /// Allow devices by number: 'c 1:3 rwm'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Isolation")]
struct IsolationOptions {
    /// Network: bridge (the default), host, none, a network's name, or container:NAME
    #[arg(long, visible_alias = "net", env = "BERTH_NETWORK", hide_env = true)]
    network: Option<String>,
    /// Publish a port: [[ADDRESS:]PORT:]PORT[/PROTOCOL]
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish every exposed port to a port that is free
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port: PORT[-PORT][/PROTOCOL]
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// IPv4 address on its network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address on its network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Hardware address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// One more name for others on its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// Name server
    #[arg(long)]
    dns: Vec<String>,
    /// Option of the resolver
    #[arg(long, visible_alias = "dns-opt")]
    dns_option: Vec<String>,
    /// Domain to search
    #[arg(long)]
    dns_search: Vec<String>,
    /// Add a line to /etc/hosts: NAME:ADDRESS
    #[arg(long)]
    add_host: Vec<String>,
    /// PID namespace: host or container:NAME
    #[arg(long)]
    pid: Option<String>,
    /// IPC namespace: private, host, none or container:NAME
    #[arg(long)]
    ipc: Option<String>,
    /// UTS namespace: host
    #[arg(long)]
    uts: Option<String>,
    /// Cgroup namespace: private or host
    #[arg(long)]
    cgroupns: Option<String>,
    /// Add a capability
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long)]
    cap_drop: Vec<String>,
    /// seccomp=FILE|unconfined, apparmor=PROFILE, no-new-privileges, systempaths=unconfined …
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Give it every right
    #[arg(long)]
    privileged: bool,
    /// Set a kernel parameter of its namespaces: NAME=VALUE
    #[arg(long)]
    sysctl: Vec<String>,
    /// Runtime: io.containerd.NAME.VERSION, a shim's path, or runc, crun, youki
    #[arg(long)]
    runtime: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitOptions {
    /// Memory
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory to shrink to when the host is short of it
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 for any
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// How readily memory is swapped, 0 to 100
    #[arg(long, allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Do not end it when it runs out of memory (cgroup v1)
    #[arg(long)]
    oom_kill_disable: bool,
    /// How readily the kernel ends it, -1000 to 1000
    #[arg(long, allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Processors, such as 1.5
    #[arg(long)]
    cpus: Option<String>,
    /// Weight against others
    #[arg(short = 'c', long)]
    cpu_shares: Option<u64>,
    /// Microseconds of a period
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Microseconds to run in a period
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Microseconds of a real-time period
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Microseconds to run real-time in a period
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// Processors to run on: 0-3, 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads; -1 for any number
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Weight on block devices, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Life")]
struct LifeOptions {
    /// When to start it again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Signal that asks it to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds that it has to end
    #[arg(long, allow_hyphen_values = true, value_name = "SECONDS")]
    stop_timeout: Option<i64>,
    /// Where output is kept: json-file or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// max-size=BYTES, max-file=NUMBER
    #[arg(long, value_name = "OPTION")]
    log_opt: Vec<String>,
    /// The cgroup to make its own in
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<String>,
    /// Set a key of cgroup v2: KEY=VALUE
    #[arg(long, value_name = "SETTING")]
    cgroup_conf: Vec<String>,
    /// Limit reading from a device: DEVICE:BYTES
    #[arg(long, value_name = "LIMIT")]
    device_read_bps: Vec<String>,
    /// Limit writing to a device: DEVICE:BYTES
    #[arg(long, value_name = "LIMIT")]
    device_write_bps: Vec<String>,
    /// Limit operations that read from a device: DEVICE:NUMBER
    #[arg(long, value_name = "LIMIT")]
    device_read_iops: Vec<String>,
    /// Limit operations that write to a device: DEVICE:NUMBER
    #[arg(long, value_name = "LIMIT")]
    device_write_iops: Vec<String>,
    /// Weight on one device: DEVICE:WEIGHT
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight_device: Vec<String>,
}

impl ContainerOptions {
    /// The container that the flags describe, without its image. `command` is what follows the image.
    pub(crate) fn request(&self, image: &str, command: Vec<String>) -> Result<CreateRequest, Failure> {
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let mut mounts = Vec::new();
        for text in &self.storage.volume {
            mounts.push(parse::volume(text, &cwd)?);
        }
        for text in &self.storage.mount {
            mounts.push(parse::mount(text, &cwd)?);
        }
        for text in &self.storage.tmpfs {
            mounts.push(parse::tmpfs(text)?);
        }
        let platform = self.platform.as_deref().map(berth_oci::image::parse_platform).transpose()?;
        let mut host = self.host()?;
        host.binds.clone_from(&self.storage.volume);
        host.mounts = mounts.iter().filter(|_| !self.storage.mount.is_empty()).cloned().collect();
        Ok(CreateRequest {
            name: self.name.clone(),
            config: self.config(image, command)?,
            host,
            image: None,
            rootfs: None,
            mounts,
            platform,
        })
    }

    fn config(&self, image: &str, command: Vec<String>) -> Result<Config, Failure> {
        let process = &self.process;
        if let Some(signal) = &self.life.stop_signal {
            parse::signal(signal)?;
        }
        Ok(Config {
            hostname: process.hostname.clone().unwrap_or_default(),
            domainname: process.domainname.clone().unwrap_or_default(),
            user: process.user.clone().unwrap_or_default(),
            attach_stdin: self.interactive,
            attach_stdout: true,
            attach_stderr: true,
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive,
            env: environment(&process.env_file, &process.env)?,
            cmd: if command.is_empty() { None } else { Some(command) },
            image: image.to_owned(),
            working_dir: process.workdir.clone().unwrap_or_default(),
            entrypoint: process.entrypoint.clone().map(|word| vec![word]),
            exposed_ports: self.exposed()?,
            labels: self.labels()?,
            stop_signal: self.life.stop_signal.clone().unwrap_or_default(),
            stop_timeout: self.life.stop_timeout,
            ..Config::default()
        })
    }

    fn exposed(&self) -> Result<BTreeMap<String, serde_json::Value>, Failure> {
        let mut exposed = BTreeMap::new();
        for text in self.isolation.expose.iter().chain(&self.isolation.publish) {
            for port in berth_net::PortMapping::parse(text)? {
                exposed.insert(port.inner(), serde_json::Value::Object(serde_json::Map::new()));
            }
        }
        Ok(exposed)
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut lines = Vec::new();
        for file in &self.process.label_file {
            lines.extend(parse::label_file(&read(file)?, &file.to_string_lossy())?);
        }
        lines.extend(self.process.label.iter().cloned());
        Ok(pairs(&lines))
    }

    fn host(&self) -> Result<HostConfig, Failure> {
        let (storage, isolation, life) = (&self.storage, &self.isolation, &self.life);
        let (devices, device_requests) = parse::devices(&storage.device)?;
        let mut host = HostConfig {
            container_id_file: self
                .cidfile
                .as_ref()
                .map(|file| file.display().to_string())
                .unwrap_or_default(),
            log_config: self.log()?,
            network_mode: match isolation.network.as_deref() {
                None | Some("default") => berth_net::DEFAULT.to_owned(),
                Some(name) => name.to_owned(),
            },
            publish_all_ports: isolation.publish_all,
            ip_address: isolation.ip.clone().unwrap_or_default(),
            ip6_address: isolation.ip6.clone().unwrap_or_default(),
            mac_address: isolation.mac_address.clone().unwrap_or_default(),
            network_aliases: isolation.network_alias.clone(),
            restart_policy: parse::restart_policy(life.restart.as_deref().unwrap_or("no"))?,
            auto_remove: self.rm,
            volumes_from: storage.volumes_from.clone(),
            annotations: pairs(&self.process.annotation),
            cap_add: isolation.cap_add.clone(),
            cap_drop: isolation.cap_drop.clone(),
            cgroupns_mode: isolation.cgroupns.clone().unwrap_or_default(),
            dns: isolation.dns.clone(),
            dns_options: isolation.dns_option.clone(),
            dns_search: isolation.dns_search.clone(),
            extra_hosts: isolation.add_host.clone(),
            group_add: self.process.group_add.clone(),
            ipc_mode: isolation.ipc.clone().unwrap_or_default(),
            pid_mode: isolation.pid.clone().unwrap_or_default(),
            privileged: isolation.privileged,
            readonly_rootfs: storage.read_only,
            security_opt: isolation.security_opt.clone(),
            uts_mode: isolation.uts.clone().unwrap_or_default(),
            shm_size: storage.shm_size.as_deref().map(parse::bytes).transpose()?.unwrap_or(0),
            sysctls: assignments("--sysctl", &isolation.sysctl)?,
            runtime: isolation.runtime.clone().unwrap_or_default(),
            cgroup_parent: life.cgroup_parent.clone().unwrap_or_default(),
            blkio_weight_device: parsed(&life.blkio_weight_device, parse::weight)?,
            blkio_device_read_bps: parsed(&life.device_read_bps, parse::throttle)?,
            blkio_device_write_bps: parsed(&life.device_write_bps, parse::throttle)?,
            blkio_device_read_iops: parsed(&life.device_read_iops, parse::throttle)?,
            blkio_device_write_iops: parsed(&life.device_write_iops, parse::throttle)?,
            devices,
            device_requests,
            device_cgroup_rules: storage.device_cgroup_rule.clone(),
            ulimits: parsed(&self.process.ulimit, parse::ulimit)?,
            init: self.process.init,
            umask: self.process.umask.as_deref().map(umask).transpose()?,
            cgroup_conf: assignments("--cgroup-conf", &life.cgroup_conf)?,
            ..HostConfig::default()
        };
        for text in &isolation.publish {
            berth_net::PortMapping::parse(text)?.iter().for_each(|port| host.publish(port));
        }
        self.limits.apply(&mut host)?;
        if host.auto_remove && host.restart_policy.name != parse::RestartName::No {
            return Err(Failure::new("conflicting options: cannot specify both --restart and --rm"));
        }
        Ok(host)
    }

    fn log(&self) -> Result<LogConfig, Failure> {
        let kind = self.life.log_driver.clone().unwrap_or_else(|| "json-file".to_owned());
        if !matches!(kind.as_str(), "json-file" | "none") {
            return Err(Failure::new(format!("log driver {kind:?} is not known: use json-file or none")));
        }
        let config = assignments("--log-opt", &self.life.log_opt)?;
        for (key, value) in &config {
            match key.as_str() {
                "max-size" => drop(parse::bytes(value)?),
                "max-file" if value.parse::<u32>().is_ok_and(|files| files > 0) => {}
                "max-file" => {
                    return Err(Failure::new(format!("max-file is a number of files, not {value:?}")));
                }
                _ => return Err(Failure::new(format!("unknown log opt '{key}': use max-size and max-file"))),
            }
        }
        Ok(LogConfig { kind, config })
    }
}

impl LimitOptions {
    /// Sets what was given and leaves the rest as it is.
    pub(crate) fn apply(&self, host: &mut HostConfig) -> Result<(), Failure> {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut host.memory, self.memory.as_deref().map(parse::memory).transpose()?);
        set(&mut host.memory_reservation, self.memory_reservation.as_deref().map(parse::memory).transpose()?);
        set(&mut host.memory_swap, self.memory_swap.as_deref().map(parse::memory).transpose()?);
        match self.memory_swappiness {
            None | Some(-1) => {}
            Some(value) => {
                let value =
                    u64::try_from(value).map_err(|_| Failure::new("memory-swappiness is 0 to 100"))?;
                host.memory_swappiness = Some(value);
            }
        }
        host.oom_kill_disable |= self.oom_kill_disable;
        set(&mut host.oom_score_adj, self.oom_score_adj);
        if !(-1000..=1000).contains(&host.oom_score_adj) {
            return Err(Failure::new("Invalid value, range for oom score adj is [-1000, 1000]"));
        }
        set(&mut host.nano_cpus, self.cpus.as_deref().map(parse::cpus).transpose()?);
        set(&mut host.cpu_shares, self.cpu_shares);
        set(&mut host.cpu_period, self.cpu_period);
        set(&mut host.cpu_quota, self.cpu_quota);
        set(&mut host.cpu_realtime_period, self.cpu_rt_period);
        set(&mut host.cpu_realtime_runtime, self.cpu_rt_runtime);
        set(&mut host.cpuset_cpus, self.cpuset_cpus.clone());
        set(&mut host.cpuset_mems, self.cpuset_mems.clone());
        if self.pids_limit.is_some() {
            host.pids_limit = self.pids_limit;
        }
        set(&mut host.blkio_weight, self.blkio_weight);
        Ok(())
    }
}

/// Variables of files and flags, with those that are taken over from the own environment.
pub(crate) fn environment(files: &[PathBuf], flags: &[String]) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for file in files {
        lines.extend(parse::env_file(&read(file)?, &file.to_string_lossy())?);
    }
    lines.extend(flags.iter().cloned());
    Ok(parse::with_inherited(lines, |name| std::env::var(name).ok())?)
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| Failure::new(format!("open {}: {error}", file.display())))
}

fn parsed<T>(list: &[String], parse: impl Fn(&str) -> berth_types::Result<T>) -> Result<Vec<T>, Failure> {
    Ok(list.iter().map(|text| parse(text)).collect::<berth_types::Result<_>>()?)
}

/// Words of the form KEY=VALUE; the value may be left out.
pub(super) fn pairs(lines: &[String]) -> BTreeMap<String, String> {
    let pair = |line: &String| match line.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (line.clone(), String::new()),
    };
    lines.iter().map(pair).collect()
}

fn assignments(flag: &str, lines: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |line: &String| match line.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::new(format!("invalid {flag} {line:?}: expected KEY=VALUE"))),
    };
    lines.iter().map(pair).collect()
}

fn umask(text: &str) -> Result<u32, Failure> {
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| Failure::new(format!("invalid umask {text:?}: an octal number such as 022")))
}
