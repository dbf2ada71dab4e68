//! The files that a container has instead of its image's: `hostname`, `hosts`, `resolv.conf`.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::Path;

use berth_types::{Error, Result};

use crate::network::Given;
use crate::{Config, HostConfig, Network};

/// The size of a file that is no longer read: containers write into theirs.
const LARGEST: u64 = 1 << 20;

/// What nobody's resolver says when there is no other.
const PUBLIC: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

/// Writes the files into the container's folder.
pub(crate) fn write(folder: &Path, config: &Config, host: &HostConfig, given: &Given) -> Result<()> {
    let network = host.network()?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
    };
    write("hostname", &format!("{}\n", config.hostname))?;
    if let Some(peer) = &given.shared {
        for name in ["hosts", "resolv.conf"] {
            write(name, &read_containers(&peer.join(name)).unwrap_or_default())?;
        }
        return Ok(());
    }
    write("hosts", &hosts(config, host, network, given)?)?;
    write("resolv.conf", &resolv(host, &fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), network))
}

/// One of these files, which its container may have written into; none if it is no such text any more.
pub(crate) fn read_containers(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(LARGEST + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= LARGEST).then_some(text)
}

fn hosts(config: &Config, host: &HostConfig, network: Network, given: &Given) -> Result<String> {
    let first = given.endpoint.as_ref().and_then(|endpoint| endpoint.addresses.first());
    let mut text = match network {
        Network::Host => fs::read_to_string("/etc/hosts").unwrap_or_default(),
        Network::None | Network::Named | Network::Container => {
            let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
                .to_owned();
            if !config.hostname.is_empty() {
                let own = first.map_or_else(|| "127.0.1.1".to_owned(), |(address, ..)| address.to_string());
                let _ = writeln!(text, "{own}\t{}", names(config));
            }
            text
        }
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in &host.extra_hosts {
        let (name, address) = entry
            .split_once('=')
            .or_else(|| entry.split_once(':'))
            .filter(|(name, address)| !name.is_empty() && !address.is_empty())
            .ok_or_else(|| Error::invalid_argument(format!("bad format for add-host: \"{entry}\"")))?;
        let address = address.trim_matches(['[', ']']);
        let gateway = first.map_or_else(|| "127.0.0.1".to_owned(), |(.., gateway)| gateway.to_string());
        let address = match address {
            "host-gateway" => &gateway,
            address if address.parse::<std::net::IpAddr>().is_ok() => address,
            _ => {
                return Err(Error::invalid_argument(format!(
                    "invalid IP address in add-host: \"{address}\""
                )));
            }
        };
        let _ = writeln!(text, "{address}\t{name}");
    }
    Ok(text)
}

fn names(config: &Config) -> String {
    if config.domainname.is_empty() {
        config.hostname.clone()
    } else {
        format!("{0}.{1} {0}", config.hostname, config.domainname)
    }
}

/// The host's resolver with what the user said over it. A resolver on a loopback address of the host cannot
/// be reached from another network namespace.
fn resolv(host: &HostConfig, own: &str, network: Network) -> String {
    let mut lines: Vec<String> = Vec::new();
    let kept = |line: &str| {
        let mut words = line.split_whitespace();
        let local = |text: &str| text.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        match words.next() {
            Some("nameserver") => {
                host.dns.is_empty() && (network == Network::Host || !words.next().is_some_and(local))
            }
            Some("search" | "domain") => host.dns_search.is_empty(),
            Some("options") => host.dns_options.is_empty(),
            _ => false,
        }
    };
    lines.extend(own.lines().filter(|line| kept(line)).map(str::to_owned));
    lines.extend(host.dns.iter().map(|server| format!("nameserver {server}")));
    if !host.dns_search.is_empty() && host.dns_search != ["."] {
        lines.push(format!("search {}", host.dns_search.join(" ")));
    }
    if !host.dns_options.is_empty() {
        lines.push(format!("options {}", host.dns_options.join(" ")));
    }
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    if network != Network::Host && !lines.iter().any(|line| line.starts_with("nameserver")) {
        text.insert_str(0, PUBLIC);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_resolver_is_taken_unless_it_cannot_be_reached() {
        let own = "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch example\noptions edns0\n# c\n";
        let host = HostConfig::default();
        assert_eq!(resolv(&host, own, Network::None), "nameserver 10.0.0.2\nsearch example\noptions edns0\n");
        assert!(resolv(&host, own, Network::Host).starts_with("nameserver 127.0.0.53\n"));
        assert_eq!(resolv(&host, "", Network::None), PUBLIC);
        let told = HostConfig { dns: vec!["1.1.1.1".into()], dns_search: vec![".".into()], ..host };
        assert_eq!(resolv(&told, own, Network::None), "options edns0\nnameserver 1.1.1.1\n");
    }

    #[test]
    fn hosts_have_the_containers_name_and_what_was_added() {
        let config = Config { hostname: "box".into(), domainname: "example".into(), ..Config::default() };
        let host = HostConfig {
            extra_hosts: vec!["db:10.0.0.1".into(), "v6=[::2]".into()],
            ..HostConfig::default()
        };
        let text = hosts(&config, &host, Network::None, &Given::default()).unwrap();
        assert!(text.contains("127.0.1.1\tbox.example box\n10.0.0.1\tdb\n::2\tv6\n"), "{text}");
        for bad in ["db", "db:", "db:nowhere"] {
            let host = HostConfig { extra_hosts: vec![bad.into()], ..HostConfig::default() };
            assert!(hosts(&config, &host, Network::None, &Given::default()).is_err(), "{bad}");
        }
    }
}
