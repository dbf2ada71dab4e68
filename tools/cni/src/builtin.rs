//! What the reference plugins (github.com/containernetworking/plugins) do, in process: over netlink and nftables,
//! without starting a program.
//!
//! ```text
//!   main   bridge, ptp, loopback      with addresses by host-local
//!   meta   portmap, firewall, tuning
//! ```
//!
//! The results, the leases, the names and the rules are the plugins' own, so that either can check and remove what
//! the other has made. Two things are decided here. Masquerading and port mappings, for which the plugins have two
//! backends, are always made in nftables, and the record of an addition says so; what iptables-nft has made for a
//! plugin is found and removed all the same. And the firewall plugin's rules, for which it has only iptables, are
//! written in the form of iptables-nft, which needs not be there.
//!
//! Every step can be done again, and whatever a step makes is found again by name, comment or lease, so an addition
//! that was cut off anywhere is taken back by a removal.

mod addresses;
mod arguments;
mod bridge;
mod firewall;
mod host;
mod host_local;
mod masquerade;
mod options;
mod portmap;
mod ptp;
mod tuning;
mod veth;

use std::path::Path;
use std::time::Duration;

use berth_net::netlink::Socket;
use berth_types::{Error, Result};
use serde_json::{Map, Value};

use crate::attachment::Attachment;
use crate::config::{NetworkList, Plugin};
use crate::invoke::Command;
use crate::outcome::{Device, Ip, Outcome};
use crate::version::Version;

use host_local::Pool;
use options::Kind;

/// A network of which every plugin is done in process.
#[derive(Debug)]
pub(crate) struct Builtin<'a> {
    list: &'a NetworkList,
    kinds: Vec<Kind>,
    patience: Duration,
}

/// For whom a plugin works: what its variables would say.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    list: &'a NetworkList,
    container: &'a str,
    device: &'a str,
    /// Empty when it is gone.
    namespace: &'a Path,
    arguments: &'a [(String, String)],
    /// Only a lease tells of it: what the runtime had for the plugins is not known.
    is_unknown: bool,
    /// How long another may hold what is needed.
    patience: Duration,
    /// The links, addresses and routes of the host.
    here: Socket,
}

impl Call<'_> {
    fn owner(&self) -> (&str, &str) {
        (self.container, self.device)
    }

    fn has_namespace(&self) -> bool {
        berth_net::is_held(self.namespace)
    }
}

/// What one plugin reads: its configuration with what the runtime has for it.
type Input = Map<String, Value>;

impl<'a> Builtin<'a> {
    /// The network as one that is done in process; the error says in words why it cannot be. Others are waited for as
    /// long as a program would be.
    pub(crate) fn of(list: &'a NetworkList, patience: Duration) -> Result<Self, String> {
        let kinds = list.plugins.iter().map(|plugin| options::kind(plugin, list.version));
        let kinds: Vec<Kind> = kinds.collect::<Result<_, _>>()?;
        if kinds.is_empty() {
            return Err(format!("network {} has no plugins", list.name));
        }
        Ok(Self { list, kinds, patience })
    }

    /// Whether this host lets it be done in process; the error says in words why not.
    pub(crate) fn host_allows(&self) -> Result<(), String> {
        host::allows(&self.plugins().collect::<Vec<_>>())
    }

    /// The text of the list with the backends that are used, as it is kept with a result.
    pub(crate) fn source(&self) -> String {
        let mut whole: Value = serde_json::from_str(&self.list.source).unwrap_or_default();
        let plugins = whole.get_mut("plugins").and_then(Value::as_array_mut).into_iter().flatten();
        for (plugin, kind) in plugins.zip(&self.kinds) {
            let key = match kind {
                Kind::Bridge | Kind::Ptp if plugin["ipMasq"] == true => "ipMasqBackend",
                Kind::Portmap => "backend",
                _ => continue,
            };
            if plugin.get(key).is_none_or(Value::is_null) {
                plugin[key] = "nftables".into();
            }
        }
        whole.to_string()
    }

    fn plugins(&self) -> impl DoubleEndedIterator<Item = (&'a Plugin, Kind)> {
        self.list.plugins.iter().zip(self.kinds.clone())
    }

    fn call<'c>(&self, attachment: &'c Attachment, namespace: &'c Path, device: &'c str) -> Result<Call<'c>>
    where
        'a: 'c,
    {
        let here = Socket::route().map_err(|error| Error::io("cannot open a netlink socket", error))?;
        let Attachment { container, arguments, .. } = attachment;
        let is_unknown = attachment.capabilities.is_empty() && namespace.as_os_str().is_empty();
        let patience = self.patience;
        Ok(Call { list: self.list, container, device, namespace, arguments, is_unknown, patience, here })
    }

    fn input(&self, plugin: &Plugin, attachment: &Attachment) -> Input {
        plugin.input(self.list, Some(&attachment.capabilities), None)
    }

    fn wrong(&self, plugin: &Plugin, command: Command) -> impl Fn(Error) -> Error {
        let text = format!(
            "CNI plugin {} of network {} failed ({}, in process)",
            plugin.kind,
            self.list.name,
            command.as_str()
        );
        move |error| error.context(text.clone())
    }

    /// Does ADD of every plugin, one after the other.
    pub(crate) fn add(&self, attachment: &Attachment, device: &str) -> Result<Outcome> {
        let mut call = self.call(attachment, &attachment.namespace, device)?;
        let mut outcome: Option<Outcome> = None;
        for (plugin, kind) in self.plugins() {
            let input = self.input(plugin, attachment);
            let done = match (kind, outcome.take()) {
                (Kind::Bridge, _) => bridge::add(&mut call, &input),
                (Kind::Ptp, _) => ptp::add(&mut call, &input),
                (Kind::Loopback, before) => add_loopback(&call, before),
                (Kind::Portmap, before) => portmap::add(&mut call, &input, chained(before)?),
                (Kind::Firewall, before) => firewall::add(&input, chained(before)?),
                (Kind::Tuning, before) => tuning::add(&call, &input, chained(before)?),
            };
            outcome = Some(done.map_err(self.wrong(plugin, Command::Add))?);
        }
        Ok(outcome.unwrap_or_default())
    }

    /// Does DEL of every plugin, backwards. Whatever of it is missing is fine. Without a result, as after a crash,
    /// the addresses are those that are leased.
    pub(crate) fn del(
        &self,
        attachment: &Attachment,
        namespace: &Path,
        device: &str,
        before: Option<Outcome>,
    ) -> Result<()> {
        let mut call = self.call(attachment, namespace, device)?;
        let before = match before {
            Some(before) => before,
            None => self.leased(&call, attachment)?,
        };
        for (plugin, kind) in self.plugins().rev() {
            let input = self.input(plugin, attachment);
            let done = match kind {
                Kind::Bridge | Kind::Ptp => veth::del(&mut call, &input, &before),
                Kind::Loopback => del_loopback(&call),
                Kind::Portmap => portmap::del(&call, &input),
                Kind::Firewall => firewall::del(&before),
                Kind::Tuning => tuning::del(&call, &input),
            };
            done.map_err(self.wrong(plugin, Command::Del))?;
        }
        Ok(())
    }

    /// What the leases of an attachment say of its result.
    fn leased(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for (plugin, _) in self.plugins() {
            let input = self.input(plugin, attachment);
            // From what cannot be understood nothing was taken.
            if let Ok(Some(pool)) = Pool::read(call, &input) {
                outcome.ips.extend(pool.held(call).map_err(self.wrong(plugin, Command::Del))?);
            }
        }
        Ok(outcome)
    }

    /// Does CHECK of every plugin.
    pub(crate) fn check(&self, attachment: &Attachment, device: &str, before: &Outcome) -> Result<()> {
        let mut call = self.call(attachment, &attachment.namespace, device)?;
        for (plugin, kind) in self.plugins() {
            let input = self.input(plugin, attachment);
            let done = match kind {
                Kind::Bridge => bridge::check(&mut call, &input, before),
                Kind::Ptp => ptp::check(&mut call, &input, before),
                Kind::Loopback => check_loopback(&call),
                Kind::Portmap => portmap::check(&call, &input, before),
                Kind::Firewall => firewall::check(&input, before),
                Kind::Tuning => tuning::check(&call, &input),
            };
            done.map_err(self.wrong(plugin, Command::Check))?;
        }
        Ok(())
    }

    /// Does GC: what is leased to somebody who is not valid is removed as by a DEL, and so are rules that are left of
    /// the network. (The plugins themselves collect nothing yet.)
    pub(crate) fn gc(&self, valid: &[(String, String)]) -> Result<()> {
        let nobody = Attachment::default();
        let mut failed = None;
        for (plugin, kind) in self.plugins() {
            let call = self.call(&nobody, Path::new(""), "")?;
            let input = self.input(plugin, &nobody);
            let Some(pool) = Pool::read(&call, &input).map_err(self.wrong(plugin, Command::Gc))? else {
                continue;
            };
            for (container, device, ips) in pool.stale(valid)? {
                let attachment = Attachment { container, ..Attachment::default() };
                let before = Outcome { ips, ..Outcome::default() };
                failed = failed.or(self.del(&attachment, Path::new(""), &device, Some(before)).err());
            }
            if matches!(kind, Kind::Bridge | Kind::Ptp) {
                failed = failed.or(masquerade::collect(&self.list.name, valid).err());
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Does STATUS: whether an ADD could be done.
    pub(crate) fn status(&self) -> Result<()> {
        let nobody = Attachment::default();
        for (plugin, _) in self.plugins() {
            let call = self.call(&nobody, Path::new(""), "")?;
            let pool = Pool::read(&call, &self.input(plugin, &nobody));
            let ready = pool.and_then(|pool| pool.map_or(Ok(()), |pool| pool.status()));
            ready.map_err(self.wrong(plugin, Command::Status))?;
        }
        Ok(())
    }
}

fn chained(before: Option<Outcome>) -> Result<Outcome> {
    before.ok_or_else(|| Error::invalid_argument("a plugin that comes after others must not be the first"))
}

fn add_loopback(call: &Call<'_>, before: Option<Outcome>) -> Result<Outcome> {
    let own = crate::loopback::set_up(call.namespace)?;
    Ok(before.unwrap_or(own))
}

fn del_loopback(call: &Call<'_>) -> Result<()> {
    if !call.has_namespace() {
        return Ok(());
    }
    let down = berth_net::link::Change {
        flags: Some((berth_net::link::UP, false)),
        ..berth_net::link::Change::default()
    };
    veth::look(call)
        .and_then(|mut inside| inside.change(1, down))
        .map_err(|error| Error::io("cannot set down lo", error))
}

fn check_loopback(call: &Call<'_>) -> Result<()> {
    let link = veth::look(call).and_then(|mut inside| inside.link("lo"));
    let link = link.map_err(|error| Error::io("cannot look at lo", error))?;
    if !link.is_some_and(|link| link.is_up()) {
        return Err(Error::failed_precondition("the loopback device is down"));
    }
    Ok(())
}

/// The version in which an answer of old has no list of devices.
fn has_devices(version: Version) -> bool {
    version >= Version::V0_3_0
}

/// A device of the host in a result.
fn device_here(name: &str, mac: berth_net::link::Mac) -> Device {
    Device { name: name.into(), mac: berth_net::link::mac_text(mac), ..Device::default() }
}

/// A device in the namespace in a result.
fn device_there(call: &Call<'_>, mac: berth_net::link::Mac) -> Device {
    Device { sandbox: call.namespace.display().to_string(), ..device_here(call.device, mac) }
}

/// The addresses of a result, each with the bits of its subnet and its gateway.
fn parsed(ips: &[Ip]) -> Vec<(std::net::IpAddr, u8, Option<std::net::IpAddr>)> {
    let one = |ip: &Ip| {
        let (address, prefix) = crate::outcome::split(&ip.address)?;
        Some((address, prefix, ip.gateway.as_deref().and_then(|gateway| gateway.parse().ok())))
    };
    ips.iter().filter_map(one).collect()
}
