//! The host-local plugin: addresses by files, beside others that go by the same files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_net::lease::{Leases, Range, address, number};
use berth_types::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::Value;

use super::{Call, Input, arguments};
use crate::outcome::{Dns, Ip, Outcome, Route, split};
use crate::version::Version;

/// Where leases are unless the configuration says otherwise.
const DEFAULT_FOLDER: &str = "/var/lib/cni/networks";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    routes: Vec<Route>,
    data_dir: String,
    resolv_conf: String,
    ranges: Vec<Vec<RangeOptions>>,
    #[serde(flatten)]
    own: RangeOptions,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RangeOptions {
    subnet: String,
    range_start: Option<String>,
    range_end: Option<String>,
    gateway: Option<String>,
}

/// The addresses of a network: of each set an attachment gets one.
#[derive(Debug)]
pub(super) struct Pool {
    folder: PathBuf,
    sets: Vec<Vec<Range>>,
    routes: Vec<Route>,
    resolv_conf: PathBuf,
    /// How long another may hold the lock.
    patience: Duration,
}

impl Pool {
    /// What a main plugin's configuration says of addresses; none if it gives none.
    pub(super) fn read(call: &Call<'_>, input: &Input) -> Result<Option<Self>> {
        let Some(ipam) = input.get("ipam").and_then(Value::as_object) else { return Ok(None) };
        if ipam.get("type").and_then(Value::as_str).unwrap_or_default().is_empty() {
            return Ok(None);
        }
        let mut options: Options = arguments::options(ipam)?;
        if !options.own.subnet.is_empty() {
            options.ranges.insert(0, vec![options.own.clone()]);
        }
        if let Some(first) = arguments::runtime(input, "ipRanges") {
            let first: Vec<Vec<RangeOptions>> = serde_json::from_value(first.clone()).map_err(|error| {
                Error::invalid_argument("ipRanges of the runtime cannot be understood").caused_by(error)
            })?;
            options.ranges.splice(0..0, first);
        }
        let sets: Vec<Vec<Range>> = options.ranges.iter().map(|set| range_set(set)).collect::<Result<_>>()?;
        check(&sets, call.list.version)?;
        let folder = if options.data_dir.is_empty() { DEFAULT_FOLDER.into() } else { options.data_dir };
        Ok(Some(Self {
            folder: Path::new(&folder).join(&call.list.name),
            sets,
            routes: options.routes,
            resolv_conf: options.resolv_conf.into(),
            patience: call.patience,
        }))
    }

    fn lock(&self) -> Result<Leases> {
        Leases::lock_within(&self.folder, self.patience)
    }

    /// Takes an address of each set, and gives them with the routes and the name service.
    pub(super) fn take(&self, call: &Call<'_>, input: &Input) -> Result<Outcome> {
        let wanted = wanted(call, input)?;
        let dns = if self.resolv_conf.as_os_str().is_empty() { Dns::default() } else { self.dns()? };
        let routes: Vec<Route> = self.routes.iter().map(canonical).collect::<Result<_>>()?;
        let leases = self.lock()?;
        let mut ips = Vec::new();
        match self.take_all(call, &leases, wanted, &mut ips) {
            Ok(()) => Ok(Outcome { ips, routes, dns, ..Outcome::default() }),
            Err(error) => {
                for (address, ..) in super::parsed(&ips) {
                    leases.free(address)?;
                }
                Err(error)
            }
        }
    }

    fn take_all(
        &self,
        call: &Call<'_>,
        leases: &Leases,
        mut wanted: Vec<IpAddr>,
        ips: &mut Vec<Ip>,
    ) -> Result<()> {
        let held = leases.of(call.container, call.device)?;
        for (index, set) in self.sets.iter().enumerate() {
            let find = |address: &IpAddr| set.iter().position(|range| range.contains(*address));
            let asked = wanted.iter().position(|address| find(address).is_some());
            let (address, range) = if let Some(place) = asked {
                let address = wanted.remove(place);
                (address, take_wanted(call, leases, (index, set), address)?)
            } else if let Some(own) = held.iter().find(|address| find(address).is_some()) {
                return Err(Error::failed_precondition(format!(
                    "{own} has been allocated to {}, duplicate allocation is not allowed",
                    call.container
                )));
            } else {
                leases.take_next((index, set), call.owner())?.ok_or_else(|| {
                    let text = format!("no IP addresses available in range set: {}", shown(set));
                    Error::new(ErrorKind::ResourceExhausted, text)
                })?
            };
            let Range { gateway, prefix, .. } = set[range];
            let address = format!("{address}/{prefix}");
            ips.push(Ip { interface: None, address, gateway: Some(gateway.to_string()) });
        }
        if !wanted.is_empty() {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            return Err(Error::invalid_argument(format!(
                "failed to allocate all requested IPs: {}",
                wanted.join(" ")
            )));
        }
        Ok(())
    }

    /// Gives back what an attachment has. Where its result names the address of every set, no other file is read.
    pub(super) fn give_back(&self, call: &Call<'_>, before: &Outcome) -> Result<()> {
        let leases = self.lock()?;
        let mut found = 0;
        for (address, ..) in super::parsed(&before.ips) {
            if leases.is_of(address, call.container, call.device) {
                leases.free(address)?;
                found += 1;
            }
        }
        if found < self.sets.len() { leases.give_back(call.container, call.device) } else { Ok(()) }
    }

    /// Whether an attachment has any address.
    pub(super) fn check(&self, call: &Call<'_>, before: &Outcome) -> Result<()> {
        let leases = self.lock()?;
        let mut known = super::parsed(&before.ips).into_iter();
        if known.any(|(address, ..)| leases.is_of(address, call.container, call.device))
            || !leases.of(call.container, call.device)?.is_empty()
        {
            return Ok(());
        }
        let text = format!("host-local: Failed to find address added by container {}", call.container);
        Err(Error::failed_precondition(text))
    }

    /// The addresses that an attachment has.
    pub(super) fn held(&self, call: &Call<'_>) -> Result<Vec<Ip>> {
        let held = self.lock()?.of(call.container, call.device)?;
        Ok(held.into_iter().map(|address| self.ip(address)).collect())
    }

    /// Whose leases are of nobody valid: containers, devices and their addresses.
    pub(super) fn stale(&self, valid: &[(String, String)]) -> Result<Vec<(String, String, Vec<Ip>)>> {
        let mut stale: Vec<(String, String, Vec<Ip>)> = Vec::new();
        let leases = self.lock()?;
        leases.free_nameless()?;
        for (address, text) in leases.all()? {
            let (container, device) = Leases::owner(&text);
            let is_same = |(own, interface): &(String, String)| {
                own == container && (device.is_empty() || interface == device)
            };
            if valid.iter().any(is_same) {
                continue;
            }
            match stale.iter_mut().find(|(own, interface, _)| own == container && interface == device) {
                Some((.., ips)) => ips.push(self.ip(address)),
                None => stale.push((container.into(), device.into(), vec![self.ip(address)])),
            }
        }
        Ok(stale)
    }

    /// Whether addresses can be taken.
    pub(super) fn status(&self) -> Result<()> {
        if !self.resolv_conf.as_os_str().is_empty() {
            self.dns()?;
        }
        Ok(())
    }

    fn ip(&self, address: IpAddr) -> Ip {
        let range = self.sets.iter().flatten().find(|range| range.contains(address));
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = range.map_or(whole, |range| range.prefix);
        let gateway = range.map(|range| range.gateway.to_string());
        Ip { interface: None, address: format!("{address}/{prefix}"), gateway }
    }

    /// The name service that a file in the form of resolv.conf(5) names.
    fn dns(&self) -> Result<Dns> {
        let text = std::fs::read_to_string(&self.resolv_conf)
            .map_err(|error| Error::io(format!("cannot read {}", self.resolv_conf.display()), error))?;
        let mut dns = Dns::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace().map(str::to_owned);
            let (key, mut values) = (words.next().unwrap_or_default(), words.peekable());
            if values.peek().is_none() {
                continue;
            }
            match key.as_str() {
                "nameserver" => dns.nameservers.extend(values.next()),
                "domain" => dns.domain = values.next().unwrap_or_default(),
                "search" => dns.search.extend(values),
                "options" => dns.options.extend(values),
                _ => {}
            }
        }
        Ok(dns)
    }
}

/// Takes an address that was asked for, and answers which range it is of.
fn take_wanted(
    call: &Call<'_>,
    leases: &Leases,
    (index, set): (usize, &[Range]),
    address: IpAddr,
) -> Result<usize> {
    let range = set.iter().position(|range| range.contains(address)).unwrap_or_default();
    if address == set[range].gateway {
        return Err(Error::invalid_argument(format!("requested ip {address} is subnet's gateway")));
    }
    if !leases.take(index, call.owner(), address)? {
        return Err(Error::failed_precondition(format!(
            "requested IP address {address} is not available in range set {}",
            shown(set)
        )));
    }
    Ok(range)
}

/// The addresses that are asked for: by the variable, by `args` and by the runtime.
fn wanted(call: &Call<'_>, input: &Input) -> Result<Vec<IpAddr>> {
    let mut texts: Vec<String> = arguments::argument(call, "IP")?.map(str::to_owned).into_iter().collect();
    for list in
        [arguments::conventional(input, "ips"), arguments::runtime(input, "ips")].into_iter().flatten()
    {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        texts.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    let mut wanted: Vec<IpAddr> = Vec::new();
    for text in texts {
        let address = text.split('/').next().unwrap_or_default().parse();
        let address = address.map_err(|_| Error::invalid_argument(format!("invalid IP address {text}")))?;
        if !wanted.contains(&address) {
            wanted.push(address);
        }
    }
    Ok(wanted)
}

fn range_set(options: &[RangeOptions]) -> Result<Vec<Range>> {
    if options.is_empty() {
        return Err(Error::invalid_argument("empty range set"));
    }
    options.iter().map(range).collect()
}

fn range(options: &RangeOptions) -> Result<Range> {
    let wrong = |why: String| Error::invalid_argument(format!("subnet {:?}: {why}", options.subnet));
    let (base, prefix) = split(&options.subnet).ok_or_else(|| wrong("expected ADDRESS/BITS".into()))?;
    let width = if base.is_ipv4() { 32 } else { 128 };
    if prefix > width - 2 {
        return Err(wrong("it is too small to allocate from".into()));
    }
    let hosts = u128::MAX.checked_shr(128 - u32::from(width - prefix)).unwrap_or(0);
    if number(base) & hosts != 0 {
        let whole = address(number(base) & !hosts, base);
        return Err(wrong(format!("it has host bits set, its network address is {whole}")));
    }
    let end = number(base) + hosts - u128::from(base.is_ipv4());
    let one = |text: &Option<String>, default: u128| match text.as_deref().filter(|text| !text.is_empty()) {
        None => Ok(address(default, base)),
        Some(text) => text.parse::<IpAddr>().map_err(|_| wrong(format!("{text} is no address"))),
    };
    let gateway = one(&options.gateway, number(base) + 1)?;
    let (first, last) = (one(&options.range_start, number(base) + 1)?, one(&options.range_end, end)?);
    let whole = Range { first: base, last: address(number(base) + hosts, base), gateway, prefix };
    for address in [first, last] {
        if !whole.contains(address) {
            return Err(wrong(format!("{address} is not in it")));
        }
    }
    if number(first) > number(last) {
        return Err(wrong(format!("{first} is after {last}")));
    }
    Ok(Range { first, last, gateway, prefix })
}

fn check(sets: &[Vec<Range>], version: Version) -> Result<()> {
    if sets.is_empty() {
        return Err(Error::invalid_argument("no IP ranges specified"));
    }
    let all: Vec<(usize, &Range)> = sets
        .iter()
        .enumerate()
        .flat_map(|(index, set)| set.iter().map(move |range| (index, range)))
        .collect();
    for (number, (index, range)) in all.iter().enumerate() {
        if sets[*index][0].first.is_ipv4() != range.first.is_ipv4() {
            return Err(Error::invalid_argument(format!("range set {index} mixes address families")));
        }
        if let Some((other, _)) = all[..number].iter().find(|(_, other)| other.overlaps(range)) {
            return Err(Error::invalid_argument(format!("range set {other} overlaps with {index}")));
        }
    }
    let four = sets.iter().filter(|set| set[0].first.is_ipv4()).count();
    if !super::has_devices(version) && (four > 1 || sets.len() - four > 1) {
        return Err(Error::invalid_argument(format!(
            "CNI version {version} does not support more than 1 address per family"
        )));
    }
    Ok(())
}

/// A route as results have it.
fn canonical(route: &Route) -> Result<Route> {
    let (to, bits) = split(&route.dst)
        .ok_or_else(|| Error::invalid_argument(format!("the route's destination {:?} is none", route.dst)))?;
    let gateway = route.gw.as_deref().filter(|gateway| !gateway.is_empty());
    let gateway = gateway.map(|gateway| {
        gateway
            .parse::<IpAddr>()
            .map(|gateway| gateway.to_string())
            .map_err(|_| Error::invalid_argument(format!("the route's gateway {gateway:?} is none")))
    });
    Ok(Route { dst: format!("{to}/{bits}"), gw: gateway.transpose()?, ..route.clone() })
}

fn shown(set: &[Range]) -> String {
    let ranges: Vec<String> = set.iter().map(|range| format!("{}-{}", range.first, range.last)).collect();
    ranges.join(",")
}
