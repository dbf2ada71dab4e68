//! The tuning plugin: parameters of the kernel and properties of the device, within the namespace. What a device was
//! before is kept in a file, as the plugin keeps it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use berth_net::link::{ALL_MULTICAST, Change, Link, Mac, PROMISCUOUS, mac_text, parse_mac};
use berth_net::netlink::Socket;
use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::veth;
use super::{Call, Input, arguments};
use crate::outcome::Outcome;

const DEFAULT_FOLDER: &str = "/run/cni/tuning";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    data_dir: String,
    sysctl: BTreeMap<String, String>,
    mac: String,
    promisc: bool,
    mtu: u32,
    #[serde(rename = "txQLen")]
    queue: Option<u32>,
    allmulti: Option<bool>,
    #[serde(skip)]
    address: Option<Mac>,
}

/// What a device was before.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Backup {
    #[serde(skip_serializing_if = "String::is_empty")]
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    queue: Option<u32>,
}

fn options(call: &Call<'_>, input: &Input) -> Result<Options> {
    let mut options: Options = arguments::options(input)?;
    options.address = arguments::hardware_address(call, input, &options.mac)?;
    Ok(options)
}

impl Options {
    fn changes_the_device(&self) -> bool {
        self.address.is_some()
            || self.promisc
            || self.mtu != 0
            || self.queue.is_some()
            || self.allmulti.is_some()
    }

    fn backup(&self, call: &Call<'_>) -> PathBuf {
        let folder = if self.data_dir.is_empty() { DEFAULT_FOLDER } else { &self.data_dir };
        Path::new(folder).join(format!("{}_{}.json", call.container, call.device))
    }

    /// The file of each parameter, which must be one of the network.
    fn parameters(&self, call: &Call<'_>) -> Result<Vec<(PathBuf, &str)>> {
        let one = |(key, value): (&'_ String, &'_ String)| -> Result<PathBuf> {
            let name = key.replace('.', "/").replacen("IFNAME", call.device, 1);
            let path = Path::new("/proc/sys").join(name.trim_start_matches('/'));
            let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
            if !is_plain || !path.starts_with("/proc/sys/net/") || value.contains('\0') {
                return Err(Error::invalid_argument(format!("invalid net sysctl key: {key:?}")));
            }
            Ok(path)
        };
        self.sysctl.iter().map(|(key, value)| Ok((one((key, value))?, value.as_str()))).collect()
    }
}

/// ADD.
pub(super) fn add(call: &Call<'_>, input: &Input, mut before: Outcome) -> Result<Outcome> {
    let options = options(call, input)?;
    let parameters = options.parameters(call)?;
    let mut inside = in_namespace(call, || write_all(&parameters))?;
    if !options.changes_the_device() {
        return Ok(before);
    }
    let link = find(call, &mut inside)?;
    keep(&options.backup(call), &options, &link)?;
    let wrong = |error| Error::io(format!("cannot change the device {}", call.device), error);
    let mut flags = Vec::new();
    flags.extend(options.promisc.then_some((PROMISCUOUS, true)));
    flags.extend(options.allmulti.map(|on| (ALL_MULTICAST, on)));
    for one in flags {
        inside.change(link.index, Change { flags: Some(one), ..Change::default() }).map_err(wrong)?;
    }
    let mtu = Some(options.mtu).filter(|mtu| *mtu != 0);
    let change = Change { flags: None, mac: options.address, mtu, queue: options.queue };
    inside.change(link.index, change).map_err(wrong)?;
    if let Some(mac) = options.address {
        for device in before.interfaces.iter_mut().filter(|device| device.name == call.device) {
            device.mac = mac_text(mac);
        }
    }
    Ok(before)
}

/// DEL: the device is made what it was, if it is there, and the file goes in any case.
pub(super) fn del(call: &Call<'_>, input: &Input) -> Result<()> {
    // From what cannot be understood nothing was changed.
    let Ok(options) = options(call, input) else { return Ok(()) };
    let path = options.backup(call);
    let Ok(text) = std::fs::read(&path) else { return Ok(()) };
    if call.has_namespace()
        && let Ok(backup) = serde_json::from_slice::<Backup>(&text)
    {
        let mut inside = in_namespace(call, || Ok(()))?;
        // A device that does not take it back is removed by the plugin that made it.
        let _ = restore(call, &mut inside, &backup);
    }
    std::fs::remove_file(&path).map_err(|error| Error::io(format!("cannot remove {}", path.display()), error))
}

fn restore(call: &Call<'_>, inside: &mut Socket, backup: &Backup) -> std::io::Result<()> {
    let Some(link) = inside.link(call.device)? else { return Ok(()) };
    for (flag, on) in [(PROMISCUOUS, backup.promisc), (ALL_MULTICAST, backup.allmulti)] {
        if let Some(on) = on {
            inside.change(link.index, Change { flags: Some((flag, on)), ..Change::default() })?;
        }
    }
    let change = Change { flags: None, mac: parse_mac(&backup.mac), mtu: backup.mtu, queue: backup.queue };
    inside.change(link.index, change)
}

/// CHECK.
pub(super) fn check(call: &Call<'_>, input: &Input) -> Result<()> {
    let options = options(call, input)?;
    let parameters = options.parameters(call)?;
    let other = |what: &str, wanted: String, is: String| {
        let text = format!("{what} of {} is to be {wanted}, and is {is}", call.device);
        Err(Error::failed_precondition(text))
    };
    let mut values = Vec::new();
    let mut inside = in_namespace(call, || {
        for (path, _) in &parameters {
            values.push(std::fs::read_to_string(path)?);
        }
        Ok(())
    })?;
    for ((path, wanted), is) in parameters.iter().zip(&values) {
        let is = is.strip_suffix('\n').unwrap_or(is);
        if is != *wanted {
            return other(&path.display().to_string(), (*wanted).into(), is.into());
        }
    }
    let link = find(call, &mut inside)?;
    if let Some(mac) = options.address.filter(|mac| *mac != link.mac) {
        return other("the hardware address", mac_text(mac), mac_text(link.mac));
    }
    if options.promisc != (link.promiscuity != 0) {
        return other("promisc", options.promisc.to_string(), link.promiscuity.to_string());
    }
    if options.mtu != 0 && options.mtu != link.mtu {
        return other("mtu", options.mtu.to_string(), link.mtu.to_string());
    }
    if options.allmulti.is_some_and(|on| on != (link.flags & ALL_MULTICAST != 0)) {
        return other("allmulti", format!("{:?}", options.allmulti), format!("{:#x}", link.flags));
    }
    if options.queue.is_some_and(|queue| queue != link.queue) {
        return other("txQLen", format!("{:?}", options.queue), link.queue.to_string());
    }
    Ok(())
}

fn keep(path: &Path, options: &Options, link: &Link) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let backup = Backup {
        mac: options.address.map(|_| mac_text(link.mac)).unwrap_or_default(),
        promisc: options.promisc.then_some(link.promiscuity != 0),
        mtu: (options.mtu != 0).then_some(link.mtu),
        allmulti: options.allmulti.map(|_| link.flags & ALL_MULTICAST != 0),
        queue: options.queue.map(|_| link.queue),
    };
    let put = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec_pretty(&backup)?)
    };
    put().map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

fn find(call: &Call<'_>, inside: &mut Socket) -> Result<Link> {
    let link = inside.link(call.device);
    let link = link.map_err(|error| Error::io(format!("cannot look at {}", call.device), error))?;
    link.ok_or_else(|| Error::failed_precondition(format!("Cannot find container link {}", call.device)))
}

fn write_all(parameters: &[(PathBuf, &str)]) -> std::io::Result<()> {
    for (path, value) in parameters {
        std::fs::write(path, value)
            .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

fn in_namespace(call: &Call<'_>, work: impl FnOnce() -> std::io::Result<()> + Send) -> Result<Socket> {
    veth::enter(call, work)
        .map_err(|error| Error::io(format!("cannot work in {}", call.namespace.display()), error))
}
