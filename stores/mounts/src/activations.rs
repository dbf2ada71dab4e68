//! The activations of a daemon.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use berth_core::{Extent, HeldMount, MountKeeper, Mounts, NewActivation, Scope};
use berth_sys::mount::info;
use berth_types::filter::Filters;
use berth_types::{Activation, Error, FieldMask, Labels, Mount, Namespace, Result, validate_labels};

use crate::perform;
use crate::plan::{Part, Plan};
use crate::record::{self, Progress, Record};
use crate::roots::{Roots, failed};
use crate::table::{Made, Table};

/// Every activation, over one folder. Clones share everything.
#[derive(Clone, Debug)]
pub struct Activations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    roots: Roots,
    boot: String,
    table: Mutex<Table>,
}

impl Activations {
    /// Opens the folder, which is made if it is not there, takes up what an earlier daemon has activated, and ends what
    /// it had only begun. Below `roots`, and below the folder itself, clients may have folders and filesystems made.
    /// Blocking.
    pub fn open(folder: &Path, roots: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed("make", folder, error))?;
        let roots = roots.into_iter().chain([folder.to_owned()]).collect();
        let inner = Inner {
            folder: folder.to_owned(),
            roots: Roots::new(roots),
            boot: record::boot()?,
            table: Mutex::default(),
        };
        inner.take_up()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The activations of one namespace; what is activated is held by the scope's lease.
    pub fn mounts(&self, scope: &Scope) -> Arc<dyn Mounts> {
        Arc::new(View { inner: Arc::clone(&self.0), scope: scope.clone() })
    }
}

#[async_trait]
impl MountKeeper for Activations {
    fn held(&self) -> Vec<HeldMount> {
        let table = self.0.table();
        let held = table.all().map(|(namespace, made)| HeldMount {
            number: made.number,
            namespace: namespace.clone(),
            name: made.activation.name.clone(),
            lease: made.lease.clone(),
            labels: made.activation.labels.clone(),
        });
        held.collect()
    }

    async fn let_go(&self, numbers: Vec<u64>) {
        let ended = blocking(&self.0, move |inner| {
            inner.let_go(&numbers);
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::warn!(error = error.chain(), "mounts not let go");
        }
    }
}

/// The activations of a namespace.
struct View {
    inner: Arc<Inner>,
    scope: Scope,
}

#[async_trait]
impl Mounts for View {
    async fn activate(&self, new: NewActivation) -> Result<Activation> {
        let NewActivation { name, mounts, labels, extent, by_client } = new;
        let Some(plan) = Plan::of(mounts, extent, &by_client) else {
            return Err(Error::not_implemented(
                "the mounts can be performed as they are: nothing to activate",
            ));
        };
        if name.is_empty() {
            return Err(Error::invalid_argument("the name of an activation must not be empty"));
        }
        validate_labels(&labels)?;
        let record = Record {
            namespace: self.scope.namespace.clone(),
            lease: self.scope.lease.clone(),
            boot: self.inner.boot.clone(),
            progress: Progress::Unfinished,
            activation: Activation { name, active: Vec::new(), system: Vec::new(), labels },
        };
        blocking(&self.inner, move |inner| inner.activate(plan, record, extent)).await
    }

    async fn deactivate(&self, name: &str) -> Result<()> {
        let (namespace, name) = (self.scope.namespace.clone(), name.to_owned());
        blocking(&self.inner, move |inner| {
            let made = inner.table().take(&namespace, &name)?;
            inner.end(&namespace, &made)
        })
        .await
    }

    async fn info(&self, name: &str) -> Result<Activation> {
        self.inner.table().made(&self.scope.namespace, name).map(|made| made.activation.clone())
    }

    async fn update(&self, name: &str, labels: Labels, mask: &FieldMask) -> Result<Activation> {
        if let Some(path) = mask.paths().iter().find(|path| *path != "labels" && !path.starts_with("labels."))
        {
            let text = format!("cannot update {path:?} of the mount {name:?}: only its labels can change");
            return Err(Error::invalid_argument(text));
        }
        let (namespace, name, mask) = (self.scope.namespace.clone(), name.to_owned(), mask.clone());
        blocking(&self.inner, move |inner| inner.relabel(&namespace, &name, &labels, &mask)).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Activation>> {
        let table = self.inner.table();
        let own = table.all().filter(|(namespace, _)| **namespace == self.scope.namespace);
        let all = own.map(|(_, made)| &made.activation);
        Ok(all.filter(|activation| filters.matches(*activation)).cloned().collect())
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change is one step, so it is always whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn activate(&self, plan: Plan, mut record: Record, extent: Extent) -> Result<Activation> {
        let (namespace, name) = (record.namespace.clone(), record.activation.name.clone());
        let number = self.table().begin(&namespace, &name)?;
        match self.make(number, plan, &mut record, extent) {
            Ok(()) => {
                let activation = record.activation;
                let made = Made { number, lease: record.lease, activation: activation.clone() };
                self.table().put(&namespace, made);
                Ok(activation)
            }
            Err(error) => {
                self.end_folder(number);
                self.table().forget(&namespace, &name);
                Err(error)
            }
        }
    }

    fn make(&self, number: u64, plan: Plan, record: &mut Record, extent: Extent) -> Result<()> {
        let folder = self.path(number);
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| failed("make", &folder, error))?;
        record.write(&folder)?;
        let Plan { parts, performed } = plan;
        let Activation { active, system, .. } = &mut record.activation;
        for (index, Part { mut mount, steps }) in parts.into_iter().enumerate() {
            if index <= performed {
                for step in steps {
                    mount = step.take(mount, active, &self.roots)?;
                }
            }
            if index < performed {
                let name = perform::name(index, performed);
                active.push(perform::perform(mount, &folder, &name)?);
            } else {
                system.push(mount);
            }
        }
        if system.is_empty() {
            // A device alone is no root filesystem, unless everything was asked for.
            let last = active.last().filter(|last| extent == Extent::Everything || last.mount.kind != "loop");
            system.extend(last.map(|last| bind(&last.point)));
        }
        record.progress = Progress::Made;
        record.write(&folder)
    }

    fn relabel(
        &self,
        namespace: &Namespace,
        name: &str,
        labels: &Labels,
        mask: &FieldMask,
    ) -> Result<Activation> {
        let mut made = self.table().take(namespace, name)?;
        let mut activation = made.activation.clone();
        mask.merge_map("labels", &mut activation.labels, labels);
        let written = validate_labels(&activation.labels)
            .and_then(|()| self.record(namespace, &made, Progress::Made, activation.clone()));
        if written.is_ok() {
            made.activation = activation.clone();
        }
        self.table().put(namespace, made);
        written.map(|()| activation)
    }

    fn record(
        &self,
        namespace: &Namespace,
        made: &Made,
        progress: Progress,
        activation: Activation,
    ) -> Result<()> {
        let (namespace, lease, boot) = (namespace.clone(), made.lease.clone(), self.boot.clone());
        Record { namespace, lease, boot, progress, activation }.write(&self.path(made.number))
    }

    /// Ends an activation that was taken.
    fn end(&self, namespace: &Namespace, made: &Made) -> Result<()> {
        // From here on a daemon that finds the folder ends what is left of it.
        let noted = self.record(namespace, made, Progress::Unfinished, made.activation.clone());
        if let Err(error) = noted {
            self.table().put(namespace, made.clone());
            return Err(error);
        }
        let ended = perform::end(&self.path(made.number));
        let mut table = self.table();
        if ended.is_err() {
            table.leave(made.number);
        }
        table.forget(namespace, &made.activation.name);
        ended
    }

    fn let_go(&self, numbers: &[u64]) {
        let leftovers = self.table().leftovers();
        for number in leftovers {
            self.end_folder(number);
        }
        let named: Vec<(Namespace, String)> = {
            let table = self.table();
            let garbage = table.all().filter(|(_, made)| numbers.contains(&made.number));
            garbage.map(|(namespace, made)| (namespace.clone(), made.activation.name.clone())).collect()
        };
        for (namespace, name) in named {
            let taken = self.table().take(&namespace, &name);
            // Somebody may be changing it, or may have ended it and made another one.
            let Ok(made) = taken else { continue };
            if !numbers.contains(&made.number) {
                self.table().put(&namespace, made);
            } else if let Err(error) = self.end(&namespace, &made) {
                tracing::warn!(%namespace, name, error = error.chain(), "a mount that nothing holds cannot be ended");
            }
        }
    }

    /// Ends the folder of a number, now or with the next collection.
    fn end_folder(&self, number: u64) {
        if let Err(error) = perform::end(&self.path(number)) {
            tracing::warn!(number, error = error.chain(), "what is left of a mount cannot be ended yet");
            self.table().leave(number);
        }
    }

    /// Finds what an earlier daemon has left.
    fn take_up(&self) -> Result<()> {
        let error = |error| failed("look into", &self.folder, error);
        let mounted: HashSet<PathBuf> =
            info::own().map_err(error)?.into_iter().map(|mount| mount.point).collect();
        for entry in fs::read_dir(&self.folder).map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
            self.table().number_after(number);
            let record = Record::read(&self.path(number)).map_err(error)?;
            match record.filter(|record| self.stands(record, &mounted)) {
                Some(Record { namespace, lease, activation, .. }) => {
                    self.table().put(&namespace, Made { number, lease, activation });
                }
                None => self.end_folder(number),
            }
        }
        Ok(())
    }

    /// Whether everything of an activation is still mounted.
    fn stands(&self, record: &Record, mounted: &HashSet<PathBuf>) -> bool {
        let is_there = |point: &Path| mounted.contains(point) || point.is_symlink();
        record.progress == Progress::Made
            && record.boot == self.boot
            && record.activation.active.iter().all(|active| is_there(Path::new(&active.point)))
    }
}

/// What is mounted at a place, for whoever wants it at another.
fn bind(point: &str) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: point.to_owned(),
        target: String::new(),
        options: vec!["rbind".to_owned()],
    }
}

/// Runs work where it may block, to its end even if the caller goes away.
async fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
) -> Result<T> {
    let inner = Arc::clone(inner);
    tokio::task::spawn_blocking(move || work(&inner))
        .await
        .map_err(|error| Error::internal("work on mounts ended early").caused_by(error))?
}
