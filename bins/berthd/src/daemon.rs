//! The daemon, from the configuration to the end.
//!
//! ```text
//!   folders locked ─▶ content ─▶ snapshotters ─▶ metadata ─▶ differs ─▶ runtime ─▶ shims taken up ─▶ sockets
//! ```
//! Normal start and start after a crash are the same code: there is always a look for what the last daemon left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_content::Store;
use berth_core::{Catalog, Mounts};
use berth_diff::ImageForm;
use berth_metadata::{GcConfig, Metadata, Sharing};
use berth_mounts::Activations;
use berth_registry::Registries;
use berth_runtime::{Deps, Exchange, Runtime, Scoped, ShimLog, Timeouts};
use berth_server::{Limits, Listeners, Owner, Socket};
use berth_sys::limits::OpenFiles;
use tokio::task::JoinSet;

use crate::catalog::{Controllers, DifferSource, Differs, Own, RuntimeDetails};
use crate::command::Source;
use crate::config::Config;
use crate::introspection::{Parts, ready};
use crate::inventory::{RESTART_MONITOR, inventory, needed};
use crate::notify::Notify;
use crate::parts::{named, snapshotters};
use crate::places::{Places, join_cgroup, raise_open_files, set_oom_score};
use crate::signals::{Signals, Wish};
use crate::traces::{Traces, Wanted};
use crate::{figures, identity, kubernetes, log, parts, proxy, reload, report, traces};

/// containerd's table with the files of classes.
const TASKS: &str = "io.containerd.service.v1.tasks-service";
/// containerd's table of its differ for EROFS images, which is part of ours.
const IMAGES: &str = "io.containerd.differ.v1.erofs";
/// Where containerd has it, and so whoever reads its mount points.
const MOUNTS: &str = "io.containerd.mount-manager.v1.bolt";
/// Threads that serve. One would do for most; with two a large answer does not hold up a small one.
const WORKERS: usize = 2;
/// Threads for work that blocks, at most; each ends when it has had nothing to do for a while.
const BLOCKING: usize = 64;
const IDLE_THREAD: Duration = Duration::from_secs(2);
/// How long work that blocks may go on after everything else has ended.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to stop.
pub(crate) fn run(source: &Source) -> Result<()> {
    let began = Instant::now();
    let config = source.config()?;
    let wanted = traces::wanted(&config);
    let traces = match &wanted {
        Wanted::On(collector) => Some(Traces::start(collector.clone(), source.identity.name)),
        Wanted::Off(_) | Wanted::Wrong(_) => None,
    };
    let log = log::start(&config.debug.level, &config.debug.format, traces.as_ref())?;
    tracing::info!(
        version = identity::version(),
        revision = identity::revision(),
        "starting {}",
        source.identity.name
    );
    let _places = Places::take(&config)?;
    for warning in config.warnings.iter().cloned().chain(proxy::warnings(&config)).chain(unused(&config)) {
        tracing::warn!("{warning}");
    }
    if let Wanted::Wrong(why) = &wanted {
        tracing::warn!("there are no traces: {why}");
    }
    set_oom_score(config.oom_score);
    join_cgroup(&config.cgroup.path)?;
    let open_files = raise_open_files();

    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(IDLE_THREAD)
        // A thread that ends was not needed for a while, and what was needed then is free now.
        .on_thread_stop(berth_sys::memory::trim)
        .enable_all()
        .build()
        .context("cannot start the threads that serve")?;
    if let Some(traces) = &traces {
        traces.run_on(tokio.handle().clone());
    }
    let result = tokio.block_on(serve(source, config, open_files, &log, traces.is_some(), began));
    if let Some(traces) = &traces {
        traces.close();
    }
    tokio.shutdown_timeout(LAST_WORK);
    result
}

async fn serve(
    source: &Source,
    mut config: Config,
    open_files: Option<OpenFiles>,
    log: &log::Handle,
    is_traced: bool,
    began: Instant,
) -> Result<()> {
    let mut signals = Signals::catch()?;
    let notify = Notify::new(std::env::var_os("NOTIFY_SOCKET").as_deref());
    let mut daemon = tokio::select! {
        daemon = Daemon::open(&config, open_files) => daemon?,
        () = signals.stop() => return Ok(()),
    };
    let figures = figures::listen(&config).await?;
    let cri = kubernetes::open(&config, daemon.catalog.clone()).await?;
    if let Some(cri) = &cri {
        // There is no other.
        let _ = daemon.controllers.pods.set(cri.clone());
    }
    let services = kubernetes::services(cri.clone());
    let services = if is_traced { traces::around(services) } else { services };
    let listeners = listen(&config)?;
    if let Some(listener) = figures {
        let containers = !config.plugins.cgroups.no_prometheus;
        daemon.monitors.spawn(figures::serve(listener, daemon.catalog.clone(), containers));
    }
    notify.ready();
    tracing::info!("{} successfully booted in {:.6}s", source.identity.name, began.elapsed().as_secs_f64());

    // The start is most of what has been executed so far.
    if let Err(error) = berth_sys::memory::forget_code() {
        tracing::debug!(%error, "the code of the start stays in memory");
    }

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // An error means that the sender is gone, which says the same.
    let serving =
        berth_server::serve(daemon.catalog.clone(), listeners, services, async { drop(stopped.await) });
    tokio::pin!(serving);
    let mut stop = Some(stop);
    let result = loop {
        tokio::select! {
            result = &mut serving => break result,
            wish = signals.next() => match wish {
                Wish::Stop => {
                    tracing::info!("stopping; containers go on");
                    notify.stopping();
                    stop.take();
                }
                Wish::Reload => {
                    notify.reloading();
                    if let Err(error) = reload::reload(source, &mut config, log) {
                        tracing::error!("the config cannot be read, and nothing changes: {error:#}");
                    }
                    notify.ready();
                }
                Wish::Report => report::report(),
            },
        }
    };
    if let Some(cri) = cri {
        cri.close().await;
    }
    daemon.close().await;
    result.map_err(|error| anyhow::anyhow!(error.chain()))
}

/// The parts that run.
struct Daemon {
    metadata: Arc<Metadata>,
    runtime: Arc<Runtime>,
    catalog: Arc<dyn Catalog>,
    controllers: Arc<Controllers>,
    /// What goes on beside the requests.
    monitors: JoinSet<()>,
}

impl Daemon {
    /// Opens the parts, each over those before it, and takes up the tasks of the daemon before this one.
    async fn open(config: &Config, open_files: Option<OpenFiles>) -> Result<Self> {
        let Config { root, disabled_plugins, .. } = config;
        let exchange = Exchange::new();

        let content = Store::open(&root.join("io.containerd.content.v1.content"))?;

        let (opened, mut records) = snapshotters(config).open(root, disabled_plugins);

        let known = |name: &str| opened.contains_key(name);
        let transfers = config.plugins.transfer.settings(&known, &config.plugins.diff.default)?;

        let activations = activations(config)?;
        let metadata = Metadata::open(
            &root.join("io.containerd.metadata.v1.bolt/meta.redb"),
            berth_metadata::Parts {
                content: Arc::new(content),
                snapshotters: named(opened),
                mounts: Some(Arc::new(activations.clone())),
                events: exchange.clone(),
                gc: gc(config),
                sharing: sharing(config)?,
            },
        )?;

        let differs = differs(config)?;
        records.extend(differ_records(&differs));

        let settings = berth_runtime::Config { open_files, ..runtime_config(config)? };
        let runtime = Runtime::open(settings, deps(&metadata, &activations, &exchange)).await?;
        let recovery = runtime.recover().await?;
        tracing::debug!(
            alive = recovery.alive,
            gone = recovery.gone,
            unknown = recovery.unknown,
            "looked for the last daemon's shims"
        );

        records.extend(proxy::controller_records(config));
        records.extend(inventory(config));
        let introspection = Parts::new(root, records, Box::new(RuntimeDetails(runtime.clone())))?;
        introspection.require(&config.required_plugins)?;

        let mut monitors = JoinSet::new();
        if !disabled_plugins.iter().any(|uri| uri == RESTART_MONITOR) {
            monitors.spawn(runtime.clone().restart_monitor());
        }
        let controllers =
            Arc::new(Controllers { remote: proxy::controllers(config), ..Controllers::default() });
        let catalog = Own {
            metadata: metadata.clone(),
            activations,
            differs: Arc::new(differs),
            runtime: runtime.clone(),
            exchange,
            introspection: Arc::new(introspection),
            registries: Registries::new(config.plugins.transfer.registries()),
            transfers,
            controllers: controllers.clone(),
        };
        Ok(Self { metadata, runtime, catalog: Arc::new(catalog), controllers, monitors })
    }

    /// Ends every part, the last one opened first.
    async fn close(mut self) {
        self.monitors.shutdown().await;
        self.runtime.close().await;
        if let Err(error) = self.metadata.close().await {
            tracing::error!(error = error.chain(), "cannot close the metadata store");
        }
    }
}

/// The sockets, which open last.
fn listen(config: &Config) -> Result<Listeners> {
    let (grpc, ttrpc) = (&config.plugins.grpc, &config.plugins.ttrpc);
    let clients = Socket::bind(&PathBuf::from(&grpc.address), Owner { uid: grpc.uid, gid: grpc.gid })?;
    let shims = Socket::bind(&PathBuf::from(&ttrpc.address), Owner { uid: ttrpc.uid, gid: ttrpc.gid });
    let shims = match shims {
        Ok(shims) => shims,
        Err(error) => {
            clients.remove();
            return Err(error.into());
        }
    };
    tracing::info!(address = grpc.address, "serving...");
    tracing::info!(address = ttrpc.address, "serving...");
    let limit = |size: usize| if size == 0 { usize::MAX } else { size };
    let limits =
        Limits { receive: limit(grpc.max_recv_message_size), send: limit(grpc.max_send_message_size) };
    Ok(Listeners { grpc: clients, ttrpc: shims, limits })
}

fn gc(config: &Config) -> GcConfig {
    let gc = &config.plugins.gc;
    GcConfig {
        pause_threshold: gc.pause_threshold,
        deletion_threshold: gc.deletion_threshold,
        mutation_threshold: gc.mutation_threshold,
        schedule_delay: gc.schedule_delay.as_std(),
        startup_delay: gc.startup_delay.as_std(),
    }
}

fn sharing(config: &Config) -> Result<Sharing> {
    match config.plugins.metadata.content_sharing_policy.as_str() {
        "shared" => Ok(Sharing::Shared),
        "isolated" => Ok(Sharing::Isolated),
        other => bail!("unknown content_sharing_policy {other:?}: shared and isolated are known"),
    }
}

fn differs(config: &Config) -> Result<Differs> {
    let table = config.plugins.others.get(IMAGES).and_then(toml::Value::as_table);
    let is_on = |key| table.and_then(|table| table.get(key)).and_then(toml::Value::as_bool) == Some(true);
    if is_on("enable_dmverity") {
        bail!(
            "enable_dmverity of {IMAGES}: berth cannot make dm-verity devices, so nothing would verify the layers: remove it"
        );
    }
    let mut remote = proxy::differs(config);
    let diff = &config.plugins.diff;
    let mut order = Vec::new();
    for name in &diff.default {
        // containerd's differ for images is part of ours, which knows a snapshot of them by its folder.
        let name = if name == "erofs" { "walking" } else { name };
        if !order.contains(&name) {
            order.push(name);
        }
    }
    let order = order.into_iter().map(|name| match name {
        "walking" => Ok(DifferSource::Walking),
        name => remote.remove(name).map(DifferSource::Remote).with_context(|| {
            format!("needed differ not loaded: {name}; walking and [proxy_plugins] are there")
        }),
    });
    let processors = config.stream_processors.iter().map(|(id, processor)| processor.named(id));
    Ok(Differs {
        order: order.collect::<Result<_>>()?,
        processors: processors.collect::<Result<Vec<_>>>()?.into(),
        images: if is_on("enable_tar_index") { ImageForm::Indexed } else { ImageForm::Whole },
        sync: diff.sync_fs,
    })
}

fn differ_records(differs: &Differs) -> Vec<berth_types::PluginInfo> {
    let mut records = Vec::new();
    for source in &differs.order {
        let (id, address) = match source {
            DifferSource::Walking => ("walking".to_owned(), None),
            DifferSource::Remote(client) => {
                let address = client.address().display().to_string();
                (address.clone(), Some(address))
            }
        };
        let mut record = ready("io.containerd.differ.v1", &id, &["io.containerd.metadata.v1"]);
        record.platforms = vec![berth_oci::image::host_platform()];
        if differs.are_own() {
            record.capabilities = vec![berth_diff::ARRIVING.to_owned(), berth_diff::RECIPES.to_owned()];
        }
        record.exports.extend(address.map(|address| ("address".to_owned(), address)));
        records.push(record);
    }
    records
}

/// The mounts that are performed for clients, as containerd has them below the state folder. What clients have made is
/// below the root folder, or where a snapshotter keeps its own.
fn activations(config: &Config) -> Result<Activations> {
    let plugins = &config.plugins;
    let elsewhere = [
        &plugins.blockfile.root_path,
        &plugins.btrfs.root_path,
        &plugins.erofs.root_path,
        &plugins.native.root_path,
        &plugins.overlayfs.root_path,
    ];
    let elsewhere = elsewhere.into_iter().filter(|folder| folder.is_absolute()).cloned();
    let folder = config.state.join(MOUNTS).join("t");
    Ok(Activations::open(&folder, [config.root.clone()].into_iter().chain(elsewhere))?)
}

fn deps(metadata: &Arc<Metadata>, activations: &Activations, exchange: &Arc<Exchange>) -> Deps {
    let activations = activations.clone();
    let mounts: Scoped<dyn Mounts> = Box::new(move |scope| activations.mounts(scope));
    let (containers, snapshotters, content) = (metadata.clone(), metadata.clone(), metadata.clone());
    Deps {
        events: exchange.clone(),
        namespaces: metadata.namespaces(),
        containers: Box::new(move |scope| containers.containers(scope)),
        snapshotters: Box::new(move |name, scope| snapshotters.snapshotter(name, scope)),
        content: Box::new(move |scope| content.content(scope)),
        mounts: Some(mounts),
    }
}

fn runtime_config(config: &Config) -> Result<berth_runtime::Config> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let (grpc, ttrpc) = (PathBuf::from(&config.plugins.grpc.address), &config.plugins.ttrpc.address);
    let shim = parts::beside(&own, "berth-shim");
    let mut runtime =
        berth_runtime::Config::new(&config.root, &config.state, &grpc, &PathBuf::from(ttrpc), &shim);
    runtime.publish_binary = own;
    runtime.runtimes.clone_from(&config.plugins.shims.runtimes);
    if let Some(path) = std::env::var_os("PATH") {
        runtime.search_path = path;
    }
    runtime.shim_environment = std::env::vars_os().collect();
    for pair in &config.plugins.shim.env {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("{pair:?} in the shims' env is not of the form NAME=VALUE"))?;
        runtime.shim_environment.push((name.into(), value.into()));
    }
    if !config.plugins.shim.socket_dir.is_empty() {
        runtime.socket_folder = PathBuf::from(&config.plugins.shim.socket_dir);
    }
    if matches!(config.debug.level.as_str(), "debug" | "trace") {
        runtime.shim_log = ShimLog::Debug;
    }
    let Timeouts { load, cleanup, shutdown, state, .. } = &mut runtime.timeouts;
    for (name, timeout) in [
        ("io.containerd.timeout.shim.load", load),
        ("io.containerd.timeout.shim.cleanup", cleanup),
        ("io.containerd.timeout.shim.shutdown", shutdown),
        ("io.containerd.timeout.task.state", state),
    ] {
        // Zero is "none" in containerd, and nothing here waits for ever.
        if let Some(configured) = config.timeout(name).filter(|timeout| !timeout.is_zero()) {
            *timeout = configured;
        }
    }
    runtime.restart_interval = config.plugins.restart.interval.as_std();
    Ok(runtime)
}

/// What the configuration asks for and the daemon does not do.
fn unused(config: &Config) -> Vec<String> {
    let mut warnings: Vec<String> = needed(config)
        .into_iter()
        .map(|uri| format!("{uri} is disabled in the config, and runs: the daemon cannot do without it"))
        .collect();
    if config.plugins.metadata.no_sync {
        warnings.push("no_sync has no effect: records reach the disk in groups as it is".to_owned());
    }
    let tasks = config.plugins.others.get(TASKS).and_then(toml::Value::as_table);
    for (key, instead) in [
        (
            "blockio_config_file",
            "there are no classes of block I/O, and a container that asks for one is refused",
        ),
        ("rdt_config_file", "classes of RDT are the folders of /sys/fs/resctrl"),
    ] {
        if tasks.and_then(|table| table.get(key)).is_some_and(|value| value.as_str() != Some("")) {
            warnings.push(format!("{key} of {TASKS} is not read: {instead}"));
        }
    }
    warnings
}
