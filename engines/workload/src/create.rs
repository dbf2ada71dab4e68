//! Making a container: a name, a folder, volumes, the record, the snapshot. Whatever fails undoes what was done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_core::{NewSnapshot, Rollback};
use berth_rootfs::{Identity, Keep, copy_contents, read_only};
use berth_sys::beneath::Root;
use berth_types::{
    Any, Container, ContainerId, Error, ErrorKind, Image, Labels, Mount, Platform, Result, RuntimeInfo,
    SnapshotKey,
};

use crate::network::Given;
use crate::parse::{MountKind, MountRequest, RestartName};
use crate::{
    Config, Definition, HostConfig, ImageFacts, MountPoint, Workload, files, labels, merge, names, parse,
    spec,
};

/// The type of a specification among a container's fields.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// A container to be made.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// The name; made up when missing.
    pub name: Option<String>,
    /// What runs; what is left open comes from the image.
    pub config: Config,
    /// How it sits on the host.
    pub host: HostConfig,
    /// The image, unless a folder is the root filesystem.
    pub image: Option<Image>,
    /// A folder that is the root filesystem as it is.
    pub rootfs: Option<PathBuf>,
    /// What is mounted, in the order in which it was given.
    pub mounts: Vec<MountRequest>,
    /// The platform of the image, if not the host's.
    pub platform: Option<Platform>,
}

/// A container that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its record.
    pub container: Container,
    /// Its description.
    pub definition: Definition,
    /// How its root filesystem is mounted; empty for a folder as it is.
    pub rootfs: Vec<Mount>,
    /// Its name.
    pub name: String,
}

struct Source {
    image: Image,
    facts: ImageFacts,
    platform: Platform,
}

impl Workload {
    /// Makes a container. Nothing is left of it if that fails.
    pub async fn create(&self, request: CreateRequest) -> Result<Created> {
        let mut undo = Rollback::default();
        match self.create_with(request, &mut undo).await {
            Ok(created) => {
                undo.commit();
                Ok(created)
            }
            Err(error) => {
                for (what, failure) in undo.undo().await {
                    tracing::warn!(what, error = %failure.chain(), "undoing a container's creation");
                }
                Err(error)
            }
        }
    }

    async fn create_with(&self, mut request: CreateRequest, undo: &mut Rollback) -> Result<Created> {
        let id = names::new_id();
        let mut source = self.source(&request).await?;
        if let Some(source) = &source {
            merge::with_image(&mut request.config, &source.facts.process);
        }
        check_labels(&request.config.labels)?;
        if request.config.hostname.is_empty() {
            request.config.hostname = hostname(&request.host, &id);
        }
        let user = self.identity(&request, source.as_mut()).await?;
        let folder = self.home.make_container(&id)?;
        let (home, undo_id) = (self.home.clone(), id.clone());
        undo.push("folder", move || async move { home.remove_container(&undo_id) });
        let name = self.reserve_name(request.name.as_deref(), &id, undo).await?;
        let mounts = self.mount_points(&request, undo).await?;
        let network = self.join_network(&id, &name, &request).await?;
        if network.endpoint.is_some() {
            let (workload, undo_id) = (self.clone(), id.clone());
            undo.push("network", move || async move { workload.leave_network(&undo_id) });
        }
        files::write(&folder, &request.config, &request.host, &network)?;
        if let Some(endpoint) = &network.endpoint {
            self.tell_neighbours(&endpoint.network)?;
        }
        let definition = Definition {
            config: request.config,
            host: request.host,
            image_id: source
                .as_ref()
                .map(|source| source.image.target.digest.to_string())
                .unwrap_or_default(),
            mounts,
            rootfs: request.rootfs.as_deref().map(|folder| folder.to_string_lossy().into_owned()),
            user,
        };
        let container = self.record((&id, &name), &definition, source.as_ref(), &folder, &network).await?;
        let containers = self.catalog.containers(&self.scope);
        let container = containers.create(container).await?;
        let undo_id = id.clone();
        undo.push("container", move || async move { containers.delete(&undo_id).await });
        let rootfs = match &source {
            Some(source) => self.snapshot(&container, source, undo).await?,
            None => Vec::new(),
        };
        self.fill_volumes(&definition, &rootfs)?;
        Ok(Created { container, definition, rootfs, name })
    }

    async fn source(&self, request: &CreateRequest) -> Result<Option<Source>> {
        let Some(image) = &request.image else { return Ok(None) };
        let platform = request.platform.clone().unwrap_or_else(|| self.settings.platform.clone());
        let facts = self.image_facts(image, &platform).await?;
        Ok(Some(Source { image: image.clone(), facts, platform }))
    }

    async fn identity(&self, request: &CreateRequest, source: Option<&mut Source>) -> Result<Identity> {
        let (user, added) = (&request.config.user, &request.host.group_add);
        match (source, &request.rootfs) {
            (Some(source), _) => {
                self.identity_in_image(&source.image, &mut source.facts, &source.platform, user, added).await
            }
            (None, Some(folder)) => crate::lookup::identity_in_folder(folder, user, added),
            (None, None) => Err(Error::invalid_argument("a container needs an image or a root filesystem")),
        }
    }

    async fn reserve_name(
        &self,
        wanted: Option<&str>,
        id: &ContainerId,
        undo: &mut Rollback,
    ) -> Result<String> {
        let name = names::reserve(&self.home, wanted, id)?;
        let (home, undo_id, undo_name) = (self.home.clone(), id.clone(), name.clone());
        undo.push("name", move || async move {
            names::release(&home, &undo_name, &undo_id);
            Ok(())
        });
        // Other tools keep names in the same label and do not know of our reservations.
        if wanted.is_some()
            && let Some(other) = self.by_name(&name).await?
        {
            return Err(names::in_use(&name, other.id.as_str()));
        }
        Ok(name)
    }

    async fn record(
        &self,
        (id, name): (&ContainerId, &str),
        definition: &Definition,
        source: Option<&Source>,
        folder: &Path,
        network: &Given,
    ) -> Result<Container> {
        let host = &definition.host;
        let runtime = if host.runtime.is_empty() { &self.settings.runtime } else { &host.runtime };
        let (runtime_name, options) = crate::task::runtime(runtime);
        let mut container = Container::new(id.clone(), RuntimeInfo { name: runtime_name, options });
        let peers = self.peers(host).await?;
        let spec = spec::build(&spec::Inputs {
            id,
            namespace: &self.scope.namespace,
            definition,
            folder,
            network: network.namespace.as_deref(),
            init: &self.settings.init,
            peer: &|name| {
                peers.get(name).copied().ok_or_else(|| Error::not_found(format!("No such container: {name}")))
            },
        })?;
        container.spec = Some(Any::new(SPEC_TYPE, spec.to_vec()));
        container.labels = self.labels(name, definition, source, folder);
        if let Some(endpoint) = &network.endpoint {
            let record = self.networks().record(&endpoint.owner)?;
            container.labels.insert(labels::ENDPOINT.to_owned(), record.to_string_lossy().into_owned());
        }
        container.extensions.insert(labels::DEFINITION.to_owned(), definition.to_any());
        if let Some(source) = source {
            container.image = source.image.name.to_string();
            container.snapshotter = self.settings.snapshotter.to_string();
            container.snapshot_key = id.to_string();
        }
        Ok(container)
    }

    fn labels(&self, name: &str, definition: &Definition, source: Option<&Source>, folder: &Path) -> Labels {
        let (config, host) = (&definition.config, &definition.host);
        let mut set = config.labels.clone();
        let mut put = |key: &str, value: String| set.insert(key.to_owned(), value);
        put(labels::NAME, name.to_owned());
        put(labels::NAMESPACE, self.scope.namespace.to_string());
        put(labels::HOSTNAME, config.hostname.clone());
        put(labels::STATE_DIR, folder.to_string_lossy().into_owned());
        put(labels::NETWORKS, format!("[\"{}\"]", host.network_name()));
        if let Some(source) = source {
            put(labels::PLATFORM, source.facts.platform.clone());
        }
        if host.auto_remove {
            put(labels::AUTO_REMOVE, "true".to_owned());
        }
        let policy = host.restart_policy.label();
        if host.restart_policy.name != RestartName::No {
            put(labels::RESTART_POLICY, policy);
            if let Some(uri) = self.log_uri_of(folder, host, config) {
                put(labels::RESTART_LOG_URI, uri);
            }
        }
        set
    }

    /// The pids of the containers whose namespaces are to be shared.
    async fn peers(&self, host: &HostConfig) -> Result<BTreeMap<String, u32>> {
        let mut pids = BTreeMap::new();
        for mode in [&host.pid_mode, &host.ipc_mode, &host.uts_mode] {
            let Some(name) = mode.strip_prefix("container:") else { continue };
            let found = self.find(name).await?;
            let pid = self.running_pid(&found.container.id).await?;
            pids.insert(name.to_owned(), pid);
        }
        Ok(pids)
    }

    async fn snapshot(
        &self,
        container: &Container,
        source: &Source,
        undo: &mut Rollback,
    ) -> Result<Vec<Mount>> {
        let snapshotter = self.catalog.snapshotter(&self.settings.snapshotter, &self.scope)?;
        let key: SnapshotKey = container.snapshot_key.parse()?;
        let parent = source.facts.chain.as_ref().map(|chain| chain.as_str().parse()).transpose()?;
        let new = NewSnapshot { key: key.clone(), parent, labels: Labels::new() };
        let mounts = match snapshotter.prepare(new.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.unpack.unpack(&source.image, &source.platform, &self.settings.snapshotter).await?;
                snapshotter.prepare(new).await?
            }
            other => other?,
        };
        undo.push("snapshot", move || async move { snapshotter.remove(&key).await });
        Ok(mounts)
    }

    /// What is mounted where, with volumes made.
    async fn mount_points(&self, request: &CreateRequest, undo: &mut Rollback) -> Result<Vec<MountPoint>> {
        let mut points: Vec<MountPoint> = Vec::new();
        for from in &request.host.volumes_from {
            points.extend(self.volumes_from(from).await?);
        }
        let mut taken: Vec<&str> = Vec::new();
        for wanted in &request.mounts {
            if taken.contains(&wanted.target.as_str()) {
                return Err(Error::invalid_argument(format!("Duplicate mount point: {}", wanted.target)));
            }
            taken.push(&wanted.target);
            let point = self.mount_point(wanted, undo)?;
            points.retain(|known| known.destination != point.destination);
            points.push(point);
        }
        for path in request.config.volumes.iter().flat_map(|volumes| volumes.keys()) {
            let target = parse::clean(Path::new(path)).to_string_lossy().into_owned();
            if target == "/" {
                return Err(Error::invalid_argument(format!("the image has an invalid volume: {path}")));
            }
            if points.iter().all(|known| known.destination != target) {
                let wanted = MountRequest { kind: MountKind::Volume, target, ..MountRequest::default() };
                points.push(self.mount_point(&wanted, undo)?);
            }
        }
        Ok(points)
    }

    async fn volumes_from(&self, text: &str) -> Result<Vec<MountPoint>> {
        let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if !matches!(mode, "ro" | "rw" | "z" | "Z") {
            return Err(Error::invalid_argument(format!("invalid mode for --volumes-from: {mode}")));
        }
        let found = self.find(name).await?;
        let definition = found.definition()?;
        let mut points: Vec<MountPoint> =
            definition.mounts.into_iter().filter(|point| point.kind != MountKind::Tmpfs).collect();
        for point in &mut points {
            point.anonymous = false;
            point.copy_up = false;
            if mode == "ro" && point.rw {
                point.rw = false;
                point.options.push("ro".to_owned());
            }
        }
        Ok(points)
    }

    fn mount_point(&self, wanted: &MountRequest, undo: &mut Rollback) -> Result<MountPoint> {
        let mut point = MountPoint {
            kind: wanted.kind,
            destination: wanted.target.clone(),
            mode: wanted.mode.clone(),
            rw: !wanted.read_only,
            ..MountPoint::default()
        };
        match wanted.kind {
            MountKind::Tmpfs => {
                point.options.clone_from(&wanted.tmpfs_options);
                if wanted.read_only && !point.options.iter().any(|option| option == "ro") {
                    point.options.push("ro".to_owned());
                }
                return Ok(point);
            }
            MountKind::Volume => self.volume_point(wanted, &mut point, undo)?,
            MountKind::Bind => bind_point(wanted, &mut point)?,
        }
        let bind = wanted.bind_options.clone().unwrap_or_default();
        let propagation = if bind.propagation.is_empty() { "rprivate" } else { &bind.propagation };
        point.options =
            vec![if bind.non_recursive { "bind" } else { "rbind" }.to_owned(), propagation.to_owned()];
        if wanted.kind == MountKind::Bind {
            propagation.clone_into(&mut point.propagation);
        }
        if wanted.read_only {
            point.options.push(if bind.read_only_force_recursive { "rro" } else { "ro" }.to_owned());
        }
        Ok(point)
    }

    fn volume_point(&self, wanted: &MountRequest, point: &mut MountPoint, undo: &mut Rollback) -> Result<()> {
        let name = Some(wanted.source.as_str()).filter(|name| !name.is_empty());
        let (volume, made) = self.create_volume(name, BTreeMap::new())?;
        if made {
            let (workload, name) = (self.clone(), volume.name.clone());
            undo.push("volume", move || async move { workload.drop_volume(&name) });
        }
        point.source.clone_from(&volume.mountpoint);
        if !wanted.subpath.is_empty() {
            let data = Root::open(Path::new(&volume.mountpoint))
                .map_err(|error| Error::io(format!("cannot open volume {}", volume.name), error))?;
            let path = Path::new(&wanted.subpath);
            data.entry(path).and_then(|entry| entry.stat()).map_err(|error| {
                Error::io(format!("cannot use {} of volume {}", wanted.subpath, volume.name), error)
            })?;
            point.source = Path::new(&volume.mountpoint).join(path).to_string_lossy().into_owned();
        }
        point.copy_up = !wanted.no_copy && wanted.subpath.is_empty();
        point.anonymous = name.is_none();
        point.name = volume.name;
        "local".clone_into(&mut point.driver);
        Ok(())
    }

    /// Gives empty volumes what the image has at their place.
    fn fill_volumes(&self, definition: &Definition, rootfs: &[Mount]) -> Result<()> {
        let empty = |point: &&MountPoint| {
            point.copy_up
                && std::fs::read_dir(&point.source).is_ok_and(|mut entries| entries.next().is_none())
        };
        let volumes: Vec<&MountPoint> = definition.mounts.iter().filter(empty).collect();
        if volumes.is_empty() {
            return Ok(());
        }
        let fill = |root: &Root, _: &Path| -> Result<()> {
            for point in &volumes {
                let target = Root::open(Path::new(&point.source))
                    .map_err(|error| Error::io(format!("cannot open volume {}", point.name), error))?;
                fill_volume(root, Path::new(&point.destination), &target).map_err(|error| {
                    let text =
                        format!("cannot copy {} of the image into volume {}", point.destination, point.name);
                    Error::io(text, error)
                })?;
            }
            Ok(())
        };
        match &definition.rootfs {
            Some(folder) => {
                let folder = Path::new(folder);
                let root = Root::open(folder)
                    .map_err(|error| Error::io(format!("cannot open {}", folder.display()), error))?;
                fill(&root, folder)
            }
            None => self.in_mounts(&read_only(rootfs), fill),
        }
    }
}

/// Copies a folder of an image; there being none, or something else, leaves the volume empty.
fn fill_volume(root: &Root, source: &Path, target: &Root) -> std::io::Result<()> {
    // The folder itself may be behind links of the image, which are followed inside it.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let relative = source.strip_prefix("/").unwrap_or(source);
    let folder = match root.open_file(relative, flags, rustix::fs::Mode::empty()) {
        Ok(folder) => Root::from_fd(folder),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    copy_contents(&folder, Path::new(""), target, Path::new(""), Keep::Everything)
}

fn bind_point(wanted: &MountRequest, point: &mut MountPoint) -> Result<()> {
    point.source.clone_from(&wanted.source);
    let source = Path::new(&wanted.source);
    if source.symlink_metadata().is_ok() {
        return Ok(());
    }
    if !wanted.bind_options.as_ref().is_some_and(|options| options.create_mountpoint) {
        return Err(Error::invalid_argument(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            wanted.source
        )));
    }
    std::fs::create_dir_all(source)
        .map_err(|error| Error::io(format!("cannot make the folder {} to mount", wanted.source), error))
}

fn hostname(host: &HostConfig, id: &ContainerId) -> String {
    if host.network_mode == "host" || host.uts_mode == "host" {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    id.as_str()[..12].to_owned()
}

fn check_labels(set: &BTreeMap<String, String>) -> Result<()> {
    if let Some(key) = set.keys().find(|key| labels::is_reserved(key)) {
        return Err(Error::invalid_argument(format!("label {key} is reserved for tools")));
    }
    berth_types::validate_labels(set)
}
