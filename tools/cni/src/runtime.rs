//! Adding namespaces to networks, and the rest of the commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_types::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

use crate::attachment::{Attached, Attachment};
use crate::builtin::Builtin;
use crate::cache::{Cache, Record};
use crate::config::{NetworkList, Plugin, check_name};
use crate::error::PluginError;
use crate::folder::{Folder, Loaded};
use crate::in_process::InProcess;
use crate::invoke::{Command, Programs, Target, check_interface, excerpt, is_there};
use crate::outcome::Outcome;
use crate::version::Version;

/// Where things are, and how plugins are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of network configurations.
    pub conf_dir: PathBuf,
    /// The folders of plugins.
    pub bin_dirs: Vec<PathBuf>,
    /// How many configurations count; all for 0.
    pub max_conf_num: usize,
    /// What the devices in namespaces are called, before their number.
    pub prefix: String,
    /// The networks of one namespace one after the other, not at once.
    pub is_serial: bool,
    /// The folder of what was added, which libcni's other users share.
    pub cache_dir: PathBuf,
    /// How long one plugin may take for one command.
    pub deadline: Duration,
    /// The programs that plugins call are searched here.
    pub search_path: String,
    /// Which networks are done in process.
    pub in_process: InProcess,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into()],
            max_conf_num: 1,
            prefix: "eth".into(),
            is_serial: false,
            cache_dir: "/var/lib/cni".into(),
            deadline: Duration::from_secs(60),
            search_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            in_process: InProcess::default(),
        }
    }
}

/// The networks of one folder, and the plugins that make them.
#[derive(Debug)]
pub struct Cni {
    folder: Folder,
    prefix: String,
    is_serial: bool,
    programs: Programs,
    cache: Cache,
    pub(crate) in_process: InProcess,
}

impl Cni {
    /// The networks that `settings` lead to. Nothing is read yet.
    pub fn new(settings: Settings) -> Self {
        let Settings {
            conf_dir,
            bin_dirs,
            max_conf_num,
            prefix,
            is_serial,
            cache_dir,
            deadline,
            search_path,
            in_process,
        } = settings;
        Self {
            folder: Folder::new(conf_dir, max_conf_num),
            prefix,
            is_serial,
            programs: Programs { folders: bin_dirs, deadline, search_path },
            cache: Cache::new(&cache_dir),
            in_process,
        }
    }

    /// The networks as their files are now.
    pub fn networks(&self) -> Arc<Loaded> {
        self.folder.load()
    }

    /// The folder of configurations.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The folders of plugins.
    pub fn plugin_folders(&self) -> &[PathBuf] {
        &self.programs.folders
    }

    /// What the devices in namespaces are called, before their number.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The device that a namespace's main network has there.
    pub fn main_device(&self) -> String {
        format!("{}0", self.prefix)
    }

    /// Whether containers can be given networks: the configuration is there, and plugins that can be asked say so.
    pub fn status(&self) -> Result<()> {
        let loaded = self.ready()?;
        for network in &loaded.networks {
            if let Ok(builtin) = self.builtin(network) {
                builtin.status()?;
                continue;
            }
            if network.version < Version::V1_1_0 {
                continue;
            }
            for plugin in &network.plugins {
                let input = plugin.input(network, None, None);
                self.ask(network, plugin, Command::Status, Target::default(), &input)?;
            }
        }
        Ok(())
    }

    /// Puts a namespace on every network; what an earlier addition of it has left is taken away first. If one fails, it is taken off all of them again; what cannot be undone
    /// now is on disk for the next [`Cni::del`] or [`Cni::gc`].
    pub fn add(&self, attachment: &Attachment) -> Result<Attached> {
        check_name(&attachment.container)?;
        check_arguments(&attachment.arguments)?;
        let loaded = self.ready()?;
        let lo = crate::loopback::set_up(&attachment.namespace)?;
        let mut results = vec![("cni-loopback".to_owned(), "lo".to_owned(), lo)];
        let asked: Vec<(&NetworkList, String)> = loaded
            .networks
            .iter()
            .zip(0..)
            .map(|(list, number)| (list, format!("{}{number}", self.prefix)))
            .collect();
        let one = |(list, device): &(&NetworkList, String)| self.add_to(list, device, attachment);
        let outcomes: Vec<Result<Outcome>> = if self.is_serial || asked.len() < 2 {
            let mut outcomes = Vec::new();
            for network in &asked {
                outcomes.push(one(network));
                if outcomes.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            outcomes
        } else {
            std::thread::scope(|scope| {
                let workers: Vec<_> = asked.iter().map(|network| scope.spawn(move || one(network))).collect();
                workers
                    .into_iter()
                    .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            })
        };
        let mut failed = None;
        for ((list, device), outcome) in asked.iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => results.push((list.name.clone(), device.clone(), outcome)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            None => Ok(Attached { results }),
            Some(error) => {
                // Whatever cannot be taken back keeps its record.
                let _ = self.del(attachment);
                Err(error)
            }
        }
    }

    fn add_to(&self, list: &NetworkList, device: &str, attachment: &Attachment) -> Result<Outcome> {
        check_interface(device)?;
        // A retry after a crash: plugins refuse a second ADD without a DEL, and the first may be half done.
        if let Some(before) = self.cache.read(&list.name, &attachment.container, device) {
            self.del_record(&before, &attachment.namespace)?;
        }
        let builtin = self.builtin(list).ok();
        if builtin.is_none() {
            // A chain of which one program is missing would be half made, and could not be taken back.
            list.plugins.iter().try_for_each(|plugin| self.programs.find(&plugin.kind).map(drop))?;
        }
        let source = builtin.as_ref().map_or_else(|| list.source.clone(), Builtin::source);
        let mut record = Record::new(&list.name, &source, attachment, device);
        record.in_process = builtin.is_some();
        self.cache.write(&record)?;
        let outcome = match builtin {
            Some(builtin) => builtin.add(attachment, device)?,
            None => self.ask_for_addition(list, device, attachment)?,
        };
        record.result = Some(outcome.write(list.version));
        self.cache.write(&record)?;
        Ok(outcome)
    }

    fn ask_for_addition(&self, list: &NetworkList, device: &str, attachment: &Attachment) -> Result<Outcome> {
        let namespace = attachment.namespace.display().to_string();
        let target = target(attachment, &namespace, device);
        let mut before: Option<Outcome> = None;
        for plugin in &list.plugins {
            let result = before.as_ref().map(|outcome| outcome.write(list.version));
            let input = plugin.input(list, Some(&attachment.capabilities), result);
            let answer = self.ask(list, plugin, Command::Add, target, &input)?;
            before = Some(Outcome::read(&answer, list.version).map_err(|error| {
                let text = format!(
                    "CNI plugin {} of network {} answered {:?} to ADD",
                    plugin.kind,
                    list.name,
                    excerpt(&answer)
                );
                Error::unknown(text).caused_by(error)
            })?);
        }
        Ok(before.unwrap_or_default())
    }

    /// Takes a namespace off every network that it was put on, each by the configuration of that time. One that is
    /// on none is fine, and so is one whose namespace is gone.
    pub fn del(&self, attachment: &Attachment) -> Result<()> {
        check_name(&attachment.container)?;
        let mut failed = None;
        let own = format!("{}-", attachment.container);
        self.cache.sweep(&|of| of.starts_with(&own));
        for record in self.cache.of(Some(&attachment.container)) {
            if let Err(error) = self.del_record(&record, &attachment.namespace) {
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The networks that a container was put on, or was being put on, with its devices there.
    pub fn recorded(&self, container: &str) -> Vec<(String, String)> {
        let records = self.cache.of(Some(container)).into_iter();
        records.map(|record| (record.network, record.interface)).collect()
    }

    fn del_record(&self, record: &Record, namespace: &Path) -> Result<()> {
        let wrong =
            || format!("container {} cannot be taken off network {}", record.container, record.network);
        let list = record.config().ok_or_else(|| Error::data_loss("its record has no configuration"));
        let list = list.and_then(|text| NetworkList::parse(&text)).map_err(|error| error.context(wrong()))?;
        let attachment = record.attachment();
        let known = if namespace.as_os_str().is_empty() { &attachment.namespace } else { namespace };
        let namespace = if is_there(known) { known.display().to_string() } else { String::new() };
        let result = record.result.as_ref().filter(|_| list.version >= Version::V0_4_0);
        let before =
            result.and_then(|result| Outcome::read(result.to_string().as_bytes(), list.version).ok());
        let builtin =
            if record.in_process { Builtin::of(&list, self.deadline()) } else { self.builtin(&list) };
        if let Ok(builtin) = builtin {
            builtin.del(&attachment, Path::new(&namespace), &record.interface, before)?;
            return self.cache.remove(&record.network, &record.container, &record.interface);
        }
        let mut missing = None;
        for plugin in list.plugins.iter().rev() {
            // One whose program has gone keeps the others from nothing; the record stays until it is there again.
            if let Err(error) = self.programs.find(&plugin.kind) {
                missing = missing.or(Some(error));
                continue;
            }
            let before = before.as_ref().map(|outcome| outcome.write(list.version));
            let input = plugin.input(&list, Some(&attachment.capabilities), before);
            let target = target(&attachment, &namespace, &record.interface);
            match self.ask(&list, plugin, Command::Del, target, &input) {
                Err(error) if !says_it_is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        if let Some(error) = missing {
            return Err(error.context(wrong()));
        }
        self.cache.remove(&record.network, &record.container, &record.interface)
    }

    /// Whether all that [`Cni::add`] made is still there; the error says what is not.
    pub fn check(&self, attachment: &Attachment) -> Result<()> {
        let loaded = self.ready()?;
        for (list, number) in loaded.networks.iter().zip(0..) {
            if list.disable_check {
                continue;
            }
            if list.version < Version::V0_4_0 {
                let text =
                    format!("network {} is of version {}, which has no CHECK", list.name, list.version);
                return Err(Error::not_implemented(text));
            }
            let device = format!("{}{number}", self.prefix);
            let record = self.cache.read(&list.name, &attachment.container, &device);
            let result = record.as_ref().and_then(|record| record.result.as_ref()).ok_or_else(|| {
                Error::not_found(format!(
                    "container {} is not on network {}",
                    attachment.container, list.name
                ))
            })?;
            let before = Outcome::read(result.to_string().as_bytes(), list.version)?;
            // What was added in process has its backends in the configuration of its record.
            let own = record.as_ref().filter(|record| record.in_process).and_then(Record::config);
            let own = own.map(|text| NetworkList::parse(&text)).transpose()?;
            let list = own.as_ref().unwrap_or(list);
            if let Ok(builtin) = self.builtin(list) {
                builtin.check(attachment, &device, &before)?;
                continue;
            }
            let namespace = attachment.namespace.display().to_string();
            for plugin in &list.plugins {
                let input =
                    plugin.input(list, Some(&attachment.capabilities), Some(before.write(list.version)));
                self.ask(list, plugin, Command::Check, target(attachment, &namespace, &device), &input)?;
            }
        }
        Ok(())
    }

    /// Takes away what belongs to no container in `valid` (each with its device): first what is on disk, then what
    /// the plugins themselves know of. Goes through all of it; the error is the first.
    pub fn gc(&self, valid: &[(String, String)]) -> Result<()> {
        let loaded = self.ready()?;
        let mut failed = None;
        let known: Vec<String> =
            valid.iter().map(|(container, device)| format!("{container}-{device}")).collect();
        self.cache.sweep(&|of| !known.iter().any(|known| known == of));
        for list in loaded.networks.iter().filter(|list| !list.disable_gc) {
            for record in self.cache.of(None) {
                let is_valid = valid
                    .iter()
                    .any(|(container, device)| *container == record.container && *device == record.interface);
                if record.network == list.name && !is_valid {
                    failed = failed.or(self.del_record(&record, Path::new("")).err());
                }
            }
            if list.version < Version::V1_1_0 {
                continue;
            }
            if let Ok(builtin) = self.builtin(list) {
                failed = failed.or(builtin.gc(valid).err());
                continue;
            }
            let valid: Vec<Value> = valid
                .iter()
                .map(|(container, device)| json!({"containerID": container, "ifname": device}))
                .collect();
            for plugin in &list.plugins {
                let mut input = plugin.input(list, None, None);
                // The specification first had another name for it than libcni.
                input.insert("cni.dev/valid-attachments".into(), valid.clone().into());
                input.insert("cni.dev/attachments".into(), valid.clone().into());
                failed = failed.or(self.ask(list, plugin, Command::Gc, Target::default(), &input).err());
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The versions that a plugin speaks.
    pub fn versions(&self, plugin: &str) -> Result<Vec<String>> {
        let input: Map<String, Value> =
            [("cniVersion".to_owned(), Value::from(Version::CURRENT.as_str()))].into_iter().collect();
        let answer = self.programs.ask((plugin, "none"), Command::Version, Target::default(), &input)?;
        let value: Value = serde_json::from_slice(&answer).map_err(|error| {
            Error::unknown(format!("CNI plugin {plugin} answered {:?} to VERSION", excerpt(&answer)))
                .caused_by(error)
        })?;
        let versions = value["supportedVersions"].as_array().into_iter().flatten();
        Ok(versions.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.programs.deadline
    }

    fn ready(&self) -> Result<Arc<Loaded>> {
        let loaded = self.folder.load();
        if let Some(problem) = &loaded.problem {
            return Err(
                Error::new(ErrorKind::Unavailable, "cni plugin not initialized").caused_by(problem.chain())
            );
        }
        Ok(loaded)
    }

    fn ask(
        &self,
        list: &NetworkList,
        plugin: &Plugin,
        command: Command,
        target: Target<'_>,
        input: &Map<String, Value>,
    ) -> Result<Vec<u8>> {
        self.programs.ask((&plugin.kind, &list.name), command, target, input)
    }
}

fn target<'a>(attachment: &'a Attachment, namespace: &'a str, device: &'a str) -> Target<'a> {
    Target {
        container: &attachment.container,
        namespace,
        interface: device,
        arguments: &attachment.arguments,
    }
}

/// Some plugins fail at DEL with what is gone already, which the specification tells them not to. Callers of
/// containerd rely on such a DEL being done.
fn says_it_is_gone(error: &Error) -> bool {
    use std::error::Error as _;
    let own = error.source().and_then(|source| source.downcast_ref::<PluginError>());
    own.is_some_and(|own| own.code == 3 || own.message.contains("not found"))
}

/// `CNI_ARGS` has no way to write these.
fn check_arguments(arguments: &[(String, String)]) -> Result<()> {
    for (name, value) in arguments {
        if name.is_empty() || name.contains(['=', ';', '\0']) || value.contains([';', '\0']) {
            return Err(Error::invalid_argument(format!("{name}={value} cannot be given to CNI plugins")));
        }
    }
    Ok(())
}
