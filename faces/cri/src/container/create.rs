//! `CreateContainer`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use berth_core::{NewSnapshot, Rollback};
use berth_oci::runtime::signal;
use berth_proto::runtime::v1 as proto;
use berth_rootfs::{Accounts, Identity, Keep, copy_contents, look_into, read_only};
use berth_sys::beneath::Root;
use berth_types::{
    Any, Container as Record, ContainerId, Error, ErrorKind, Labels, Mount, Result, SnapshotKey,
};
use proto::NamespaceMode;
use tokio::sync::watch;

use super::{CONFIG, Container, LIFE, Life, ORIGIN, Origin, json};
use crate::blocking::blocking;
use crate::diary::Work;
use crate::image::{Facts, Present};
use crate::pod::Pod;
use crate::spec::{self, Inputs, Processes, SPEC_TYPE, Volume};
use crate::stats::Measured;
use crate::{Cri, names};

/// A label of what the garbage collector leaves alone, as in containerd.
const GC_ROOT: &str = "containerd.io/gc.root";
/// A label of a container's snapshots: whose.
pub(super) const SNAPSHOT_OF: &str = "io.berth.cri.container";

impl Cri {
    /// Makes a container and answers its id. The same request again is answered with the same container.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        request: proto::CreateContainerRequest,
    ) -> Result<String> {
        let config = request
            .config
            .ok_or_else(|| Error::invalid_argument("the request must include a container config"))?;
        let pod = self.pod(&request.pod_sandbox_id)?;
        let name = names::of_container(&config, &names::of_pod(&pod.config)?)?;
        let cri = self.clone();
        let key = format!("create {name}");
        let work = async move { cri.made_container(name, pod, config).await };
        self.nursery.join(key, work).await
    }

    async fn made_container(
        self: Arc<Self>,
        name: String,
        pod: Arc<Pod>,
        config: proto::ContainerConfig,
    ) -> Result<String> {
        if let Some(known) = self.containers.named(&name)
            && known.life() == Life::default()
            && known.config == config
        {
            return Ok(known.id.to_string());
        }
        let failed = |error: Error| {
            let words = config.metadata.clone().unwrap_or_default().name;
            error.context(format!("cannot create container {words} of pod {}", pod.title()))
        };
        if !pod.is_ready() {
            return Err(failed(Error::failed_precondition(format!("pod sandbox {} is not ready", pod.id))));
        }
        let _pause = self.pause_joins().await;
        let work =
            pod.diary.begin(format!("CreateContainer {}", config.metadata.clone().unwrap_or_default().name));
        let mut undo = Rollback::default();
        let made = self.make_container(name, &pod, &config, &work, &mut undo).await;
        self.conclude(&pod, &work, &made);
        match made {
            Ok(container) => {
                undo.commit();
                self.tell_created(&container).await;
                self.events.created(&self, &pod, container.id.as_str());
                Ok(container.id.to_string())
            }
            Err(error) => {
                for (what, failure) in undo.undo().await {
                    tracing::error!(pod = %pod.id, "cannot undo {what}: {}", failure.chain());
                }
                Err(failed(error))
            }
        }
    }

    async fn make_container(
        self: &Arc<Self>,
        name: String,
        pod: &Arc<Pod>,
        config: &proto::ContainerConfig,
        work: &Work,
        undo: &mut Rollback,
    ) -> Result<Arc<Container>> {
        let id: ContainerId = names::new_id()?.parse()?;
        let wanted = config.image.clone().unwrap_or_default().image;
        let image = self
            .find(&wanted)
            .await?
            .ok_or_else(|| Error::not_found(format!("image {wanted:?} is not there: PullImage brings it")))?;
        let root = self.config.pods.root.join("containers").join(id.as_str());
        let log = super::log::path(&pod.config.log_directory, &config.log_path)?;

        let mounts = work.step("its snapshot", self.prepare(&id, pod, &image, undo)).await?;
        let user = work.step("the image's users", self.user_of(config, &image.facts, &mounts)).await?;
        let image_mounts = work.step("images as volumes", self.mount_images(&id, pod, config, undo)).await?;
        let volumes = self.image_volumes(&root, config, &image.facts, &mounts, undo);
        let mut volumes = work.step("the image's volumes", volumes).await?;
        volumes.extend(image_mounts.volumes);
        let processes = self.processes_of(pod, config).await?;
        let mut built = spec::build(&Inputs {
            pods: &self.config.pods,
            pod,
            id: id.as_str(),
            config,
            image: &image.facts,
            user: &user,
            processes,
            volumes: &volumes,
        })?;

        let origin = Origin {
            image: image.facts.id.to_string(),
            image_ref: image.reference(),
            stop_signal: stop_signal(config, &image.facts)?,
            user,
            log,
            image_mounts: image_mounts.snapshots,
        };
        let mut record = Record::new(id.clone(), pod.handler.runtime.clone());
        let from_image = image.facts.process.labels.iter().filter(|(key, _)| !names::is_reserved(key));
        record.labels = names::labels(names::CONTAINER, from_image.chain(&config.labels));
        record.image = image.name();
        record.snapshotter = self.snapshotter_of(pod).to_string();
        record.snapshot_key = id.to_string();
        record.sandbox = pod.id.to_string();
        record.extensions.insert(CONFIG.to_owned(), berth_proto::convert::pack(config));
        record.extensions.insert(ORIGIN.to_owned(), json(ORIGIN, &origin)?);
        record.extensions.insert(LIFE.to_owned(), json(LIFE, &Life::default())?);
        self.give_devices(config, &mut built).await?;
        work.step("NRI plugins", self.adjust(pod, &record, config, &mut built, undo)).await?;
        record.spec = Some(Any::new(SPEC_TYPE, built.to_vec()));
        let record = work.step("its record", self.containers_store().create(record)).await?;
        let (store, made) = (self.containers_store(), id.clone());
        undo.push("record", move || async move { store.delete(&made).await });

        let container =
            Arc::new(Container::new((id, name), pod, config.clone(), origin, record.created_at, root));
        self.containers.insert(container.clone())?;
        Ok(container)
    }

    /// Whose snapshots a pod's containers have.
    pub(crate) fn snapshotter_of(&self, pod: &Pod) -> berth_types::SnapshotterName {
        pod.handler.snapshotter.clone().unwrap_or_else(|| self.config.snapshotter.clone())
    }

    /// Makes the container's own layer over its image.
    pub(crate) async fn prepare(
        &self,
        id: &ContainerId,
        pod: &Pod,
        image: &Present,
        undo: &mut Rollback,
    ) -> Result<Vec<Mount>> {
        let snapshotter = self.catalog.snapshotter(&self.snapshotter_of(pod), &self.scope)?;
        let key: SnapshotKey = id.as_str().parse()?;
        let parent = image.facts.chain.as_ref().map(|chain| chain.as_str().parse()).transpose()?;
        let new = NewSnapshot { key: key.clone(), parent, labels: snapshot_labels(id, pod) };
        let mounts = match snapshotter.prepare(new.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.unpack(image, &self.snapshotter_of(pod)).await?;
                snapshotter.prepare(new).await?
            }
            done => done?,
        };
        undo.push("snapshot", move || async move { snapshotter.remove(&key).await });
        Ok(mounts)
    }

    /// Who the container runs as: what was asked for, else what its image says.
    pub(crate) async fn user_of(
        &self,
        config: &proto::ContainerConfig,
        image: &Facts,
        mounts: &[Mount],
    ) -> Result<Identity> {
        let security = config.linux.clone().and_then(|linux| linux.security_context).unwrap_or_default();
        let wanted = super::user::wanted(&security, &image.process.user)?;
        let accounts = self.accounts(image, mounts).await?;
        super::user::resolve(&wanted, &security, &accounts)
    }

    /// The users of an image. They follow from its layers, so they are read once.
    async fn accounts(&self, image: &Facts, mounts: &[Mount]) -> Result<Arc<Accounts>> {
        if let Some(accounts) = self.known.accounts(&image.id) {
            return Ok(accounts);
        }
        let (mounts, at) = (read_only(mounts), self.look_folder());
        let accounts = blocking(move || {
            make_look_folder(&at)?;
            look_into(&mounts, &at, |root, _| Accounts::read(root))
        })
        .await?;
        Ok(self.known.keep_accounts(&image.id, accounts))
    }

    /// An empty folder over which images are mounted for a look.
    pub(super) fn look_folder(&self) -> PathBuf {
        self.config.pods.state.join("look")
    }

    /// Gives the container a folder of its own for each path that its image wants kept, with what the image has there.
    async fn image_volumes(
        &self,
        root: &std::path::Path,
        config: &proto::ContainerConfig,
        image: &Facts,
        mounts: &[Mount],
        undo: &mut Rollback,
    ) -> Result<Vec<Volume>> {
        let is_free = |path: &String| {
            config
                .mounts
                .iter()
                .all(|mount| mount.container_path.trim_end_matches('/') != path.trim_end_matches('/'))
        };
        let paths: Vec<String> = image.process.volumes.keys().filter(|path| is_free(path)).cloned().collect();
        if self.config.pods.ignore_image_volumes || paths.is_empty() {
            return Ok(Vec::new());
        }
        let removed = root.to_owned();
        undo.push("volumes", move || async move {
            blocking(move || super::remove::remove_folder(&removed)).await
        });
        let (root, mounts, at) = (root.to_owned(), read_only(mounts), self.look_folder());
        blocking(move || {
            make_look_folder(&at)?;
            look_into(&mounts, &at, |image, _| {
                let fill = |(number, path): (usize, &String)| {
                    let source = root.join("volumes").join(number.to_string());
                    fill_volume(image, path, &source)?;
                    Ok(Volume { source, target: path.clone(), is_readonly: false })
                };
                paths.iter().enumerate().map(fill).collect()
            })
        })
        .await
    }

    /// Whose processes the container sees.
    async fn processes_of(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        config: &proto::ContainerConfig,
    ) -> Result<Processes> {
        let security = config.linux.clone().and_then(|linux| linux.security_context).unwrap_or_default();
        let options = security.namespace_options.unwrap_or_else(|| pod.namespace_options());
        match options.pid() {
            NamespaceMode::Container => Ok(Processes::Own),
            NamespaceMode::Node => Ok(Processes::Host),
            NamespaceMode::Pod => {
                let pid = self.first_process(pod).await?;
                Ok(Processes::Of(PathBuf::from(format!("/proc/{pid}/ns/pid"))))
            }
            NamespaceMode::Target => {
                let target = self.container(&options.target_id)?;
                if target.pod != pod.id.as_str() {
                    return Err(Error::invalid_argument(format!(
                        "container {} is of another pod: its processes cannot be shared",
                        target.id
                    )));
                }
                target.must_run()?;
                Ok(Processes::Of(PathBuf::from(format!("/proc/{}/ns/pid", target.life().pid))))
            }
        }
    }
}

impl Container {
    /// One of which nothing has become yet.
    pub(super) fn new(
        (id, name): (ContainerId, String),
        pod: &Pod,
        config: proto::ContainerConfig,
        origin: Origin,
        created_at: SystemTime,
        root: PathBuf,
    ) -> Self {
        Self {
            id,
            name,
            pod: pod.id.to_string(),
            config,
            origin,
            created_at,
            root,
            life: watch::Sender::new(Life::default()),
            limits: Mutex::default(),
            measured: Measured::default(),
            process: tokio::sync::OnceCell::new(),
            work: tokio::sync::Mutex::default(),
        }
    }
}

/// The labels of a container's snapshots. The garbage collector must not take one before its container's record is there,
/// so they are kept by themselves; one that no container has is removed at the start of a daemon.
pub(super) fn snapshot_labels(id: &ContainerId, pod: &Pod) -> Labels {
    let mut labels = pod.users().map(|users| users.labels()).unwrap_or_default();
    labels.insert(GC_ROOT.to_owned(), crate::time::now().to_string());
    labels.insert(SNAPSHOT_OF.to_owned(), id.to_string());
    labels
}

/// Makes a volume with what the image has at its place; an image that has nothing there leaves it empty.
fn fill_volume(image: &Root, path: &str, source: &std::path::Path) -> Result<()> {
    let failed = |error| Error::io(format!("cannot make the image's volume {path}"), error);
    std::fs::create_dir_all(source).map_err(failed)?;
    let inside = std::path::Path::new(path);
    let is_folder = match image.open_file(
        inside,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    ) {
        Ok(_) => true,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            false
        }
        Err(error) => return Err(failed(error)),
    };
    if !is_folder {
        return Ok(());
    }
    let target = Root::open(source).map_err(failed)?;
    copy_contents(image, inside, &target, std::path::Path::new(""), Keep::Everything).map_err(failed)
}

pub(super) fn make_look_folder(at: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(at).map_err(|error| Error::io(format!("cannot make {}", at.display()), error))
}

/// The signal that asks a container to end: what was asked for, else what its image says, else SIGTERM.
fn stop_signal(config: &proto::ContainerConfig, image: &Facts) -> Result<u32> {
    if config.stop_signal() != proto::Signal::RuntimeDefault {
        return signal(&wire_name(config.stop_signal()));
    }
    signal(image.process.stop_signal.as_deref().filter(|name| !name.is_empty()).unwrap_or("TERM"))
}

/// A signal's name as everybody else writes it: the CRI has `SIGRTMINPLUS1` for `SIGRTMIN+1`.
fn wire_name(signal: proto::Signal) -> String {
    signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-").replace("SIGSIG", "SIG")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_interface_has_a_number() {
        for number in 1..=65 {
            let name = wire_name(proto::Signal::try_from(number).unwrap());
            assert!(signal(&name).is_ok(), "{name}");
        }
        assert_eq!(signal(&wire_name(proto::Signal::Sigrtminplus3)).unwrap(), 37);
        assert_eq!(signal(&wire_name(proto::Signal::Sigusr1)).unwrap(), 10);
    }
}
