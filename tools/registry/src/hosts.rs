//! Which hosts answer for a registry: `hosts.toml` in containerd's form, certificates in Docker's, and what holds
//! without either.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_types::{Error, Result};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use toml::{Table, Value};

use crate::config::Config;

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Content by digest.
    Pull,
    /// A tag's digest.
    Resolve,
    /// Taking content in.
    Push,
    /// Lists of what refers to content.
    Referrers,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
            Self::Push => "push",
            Self::Referrers => "referrers",
        })
    }
}

const ALL: [Capability; 4] = [Capability::Pull, Capability::Resolve, Capability::Push, Capability::Referrers];

/// One host of a registry.
#[derive(Clone, Debug)]
pub struct Host {
    /// Scheme, host and port.
    pub base: Url,
    /// What comes before the repository, usually `/v2`.
    pub path: String,
    /// What it may be asked for.
    pub capabilities: BTreeSet<Capability>,
    /// Additional trusted certificates, PEM.
    pub ca: Vec<PathBuf>,
    /// Client certificates: certificate and key, or one file with both.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether its certificate is not looked at.
    pub skip_verify: bool,
    /// Sent to it and to nobody else.
    pub headers: HeaderMap,
    /// How long a connection may take, over the configuration's.
    pub dial_timeout: Option<Duration>,
    /// Whether it is another host than the reference says, and has to be told which registry is meant.
    pub mirror: bool,
    /// The credential helper to ask for it, over Docker's configuration.
    pub helper: Option<String>,
    /// The file or folder that says so; none for what holds without any.
    pub from: Option<PathBuf>,
    /// Whether it is the host before it, spoken to in another way: it is asked only if that one was not understood.
    pub alternate: bool,
}

/// Bytes of a hosts.toml.
const LIMIT: u64 = 1 << 20;

const KEYS: [&str; 11] = [
    "server",
    "host",
    "capabilities",
    "ca",
    "client",
    "skip_verify",
    "header",
    "override_path",
    "dial_timeout",
    "credential_helper",
    "host_settings",
];

/// The hosts to ask for `registry`, a host with an optional port, in order.
pub(crate) fn find(config: &Config, registry: &str) -> Result<Vec<Host>> {
    let own: Vec<Option<PathBuf>> = config.hosts.iter().map(|root| own_folder(root, registry)).collect();
    // A folder for this registry counts before those for all; it hides the one for all beside it.
    let general = config.hosts.iter().zip(&own).filter(|(_, own)| own.is_none());
    let general = general.map(|(root, _)| root.join("_default"));
    for folder in own.iter().flatten().cloned().chain(general) {
        let file = folder.join("hosts.toml");
        let (from, mut hosts) = if let Some(text) = read(&file)?.filter(|text| !text.is_empty()) {
            let hosts = parse(&text, &folder, registry, config)
                .map_err(|error| error.context(format!("{} is not valid", file.display())))?;
            (file, hosts)
        } else if let Some(host) = certificates(&folder, registry, config)? {
            (folder, vec![host])
        } else {
            continue;
        };
        for host in &mut hosts {
            host.from = Some(from.clone());
        }
        return Ok(hosts);
    }
    defaults(registry, config)
}

/// The folder of a registry's settings, whose port can be spelled two ways.
fn own_folder(root: &Path, registry: &str) -> Option<PathBuf> {
    let with_port = registry.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let with_port = with_port.map(|(host, port)| format!("{host}_{port}_"));
    let names = with_port.into_iter().chain([registry.to_owned()]);
    names.map(|name| root.join(name)).find(|folder| folder.is_dir())
}

fn read(file: &Path) -> Result<Option<String>> {
    use std::io::Read;
    let failed = |source| Error::io(format!("cannot read {}", file.display()), source);
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    opened.take(LIMIT).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// What holds without any file.
fn defaults(registry: &str, config: &Config) -> Result<Vec<Host>> {
    let address = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    if config.plain_http.iter().any(|plain| plain == registry) {
        return Ok(vec![host("http", address)?]);
    }
    if !is_loopback(registry) {
        return Ok(vec![host("https", address)?]);
    }
    // On this machine a registry usually has no TLS, or a certificate that nobody signed.
    let tls = Host { skip_verify: true, ..host("https", address)? };
    match registry.rsplit_once(':') {
        Some((_, port)) if port != "443" => Ok(vec![host("http", address)?, Host { alternate: true, ..tls }]),
        _ => Ok(vec![tls]),
    }
}

fn host(scheme: &str, address: &str) -> Result<Host> {
    let base = Url::parse(&format!("{scheme}://{address}"))
        .map_err(|source| Error::invalid_argument(format!("{address} is not a host")).caused_by(source))?;
    Ok(Host {
        base,
        path: "/v2".to_owned(),
        capabilities: BTreeSet::from(ALL),
        ca: Vec::new(),
        client: Vec::new(),
        skip_verify: false,
        headers: HeaderMap::new(),
        dial_timeout: None,
        mirror: false,
        helper: None,
        from: None,
        alternate: false,
    })
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(registry: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{registry}")) else { return false };
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_matches(['[', ']']);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn invalid(text: impl Into<String>) -> Error {
    Error::invalid_argument(text)
}

/// The hosts that the text of a hosts.toml in `folder` means for a registry. Reads no file.
pub fn hosts_of(text: &str, folder: &Path, registry: &str, config: &Config) -> Result<Vec<Host>> {
    parse(text, folder, registry, config)
}

fn parse(text: &str, folder: &Path, registry: &str, config: &Config) -> Result<Vec<Host>> {
    let table: Table =
        text.parse().map_err(|source: toml::de::Error| invalid("it is no TOML").caused_by(source))?;
    let mut hosts = Vec::new();
    if let Some(value) = table.get("host") {
        let listed = value.as_table().ok_or_else(|| invalid("`host` is no table"))?;
        for (name, settings) in listed {
            let settings =
                settings.as_table().ok_or_else(|| invalid(format!("host {name:?} is no table")))?;
            let mut found = address(name, is_true(settings, "override_path")?)?;
            apply(&mut found, settings, folder)?;
            hosts.extend(ways(found, settings, name));
        }
    }
    let server = table.get("server").map(|value| string(value, "server")).transpose()?;
    match server.filter(|server| !server.is_empty()) {
        Some(server) => {
            let mut found = address(&server, is_true(&table, "override_path")?)?;
            apply(&mut found, &table, folder)?;
            hosts.extend(ways(found, &table, &server));
        }
        None => {
            for mut found in defaults(registry, config)? {
                apply(&mut found, &table, folder)?;
                hosts.push(found);
            }
        }
    }
    let own = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    for found in &mut hosts {
        found.mirror = authority(&found.base) != own;
    }
    Ok(hosts)
}

/// A host without TLS for which TLS is configured nevertheless is spoken to with it first, as containerd does, unless
/// its port says which is meant. `named` is how the file has it.
fn ways(host: Host, settings: &Table, named: &str) -> Vec<Host> {
    let configured = ["ca", "client", "skip_verify"].into_iter().any(|key| settings.contains_key(key));
    let authority = named.split_once("://").map_or(named, |(_, behind)| behind);
    let plain = authority.split('/').next().is_some_and(|authority| authority.ends_with(":80"));
    let mut secure = host.clone();
    if host.base.scheme() != "http" || !configured || plain || secure.base.set_scheme("https").is_err() {
        return vec![host];
    }
    vec![secure, Host { alternate: true, ..host }]
}

/// Host and port of an address, without the port that its scheme has anyway.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An address of a file, with or without its scheme and path.
fn address(text: &str, override_path: bool) -> Result<Host> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let bad = || invalid(format!("{text:?} is no address of a host"));
    let url = Url::parse(&full).map_err(|source| bad().caused_by(source))?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(bad());
    }
    let name = url.host_str().ok_or_else(bad)?;
    // containerd's documentation writes Docker's registry as references do, where it does not answer.
    let name = if matches!(name, "docker.io" | "index.docker.io") { "registry-1.docker.io" } else { name };
    let authority = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    let mut found = host(url.scheme(), &authority)?;
    let path = url.path().trim_end_matches('/');
    found.path = if override_path || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    Ok(found)
}

fn apply(host: &mut Host, settings: &Table, folder: &Path) -> Result<()> {
    if let Some(unknown) = settings.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(invalid(format!("unknown key {unknown:?}; known are {}", KEYS[..10].join(", "))));
    }
    if let Some(value) = settings.get("capabilities") {
        let named: BTreeSet<_> =
            strings(value, "capabilities")?.iter().map(|name| capability(name)).collect::<Result<_>>()?;
        // As in containerd, none named is all of them.
        host.capabilities = if named.is_empty() { BTreeSet::from(ALL) } else { named };
    }
    if let Some(value) = settings.get("ca") {
        host.ca = strings(value, "ca")?.iter().map(|path| folder.join(path)).collect();
    }
    if let Some(value) = settings.get("client") {
        host.client = clients(value, folder)?;
    }
    if settings.contains_key("skip_verify") {
        host.skip_verify = is_true(settings, "skip_verify")?;
    }
    if let Some(value) = settings.get("dial_timeout") {
        host.dial_timeout = Some(duration(&string(value, "dial_timeout")?)?);
    }
    if let Some(value) = settings.get("credential_helper") {
        host.helper = Some(string(value, "credential_helper")?);
    }
    if let Some(value) = settings.get("header") {
        let table = value.as_table().ok_or_else(|| invalid("`header` is no table"))?;
        for (name, values) in table {
            let bad = || invalid(format!("header {name:?} cannot be sent"));
            let key: HeaderName = name.parse().map_err(|_| bad())?;
            for text in strings(values, name)? {
                let mut value = HeaderValue::from_str(&text).map_err(|_| bad())?;
                value.set_sensitive(true);
                host.headers.append(key.clone(), value);
            }
        }
    }
    Ok(())
}

fn capability(name: &str) -> Result<Capability> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "pull" => Capability::Pull,
        "resolve" => Capability::Resolve,
        "push" => Capability::Push,
        "referrers" => Capability::Referrers,
        _ => {
            return Err(invalid(format!(
                "unknown capability {name:?}; known are pull, resolve, push, referrers"
            )));
        }
    })
}

fn is_true(settings: &Table, key: &str) -> Result<bool> {
    match settings.get(key) {
        None => Ok(false),
        Some(Value::Boolean(value)) => Ok(*value),
        Some(_) => Err(invalid(format!("`{key}` is neither true nor false"))),
    }
}

fn string(value: &Value, key: &str) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| invalid(format!("`{key}` is no string")))
}

fn strings(value: &Value, key: &str) -> Result<Vec<String>> {
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(values) => values.iter().map(|value| string(value, key)).collect(),
        _ => Err(invalid(format!("`{key}` is neither a string nor a list of strings"))),
    }
}

/// A file, a list of files, or a list of pairs of certificate and key.
fn clients(value: &Value, folder: &Path) -> Result<Vec<(PathBuf, Option<PathBuf>)>> {
    let one = |value: &Value| -> Result<(PathBuf, Option<PathBuf>)> {
        match value {
            Value::Array(pair) if pair.len() == 2 => {
                let key = string(&pair[1], "client")?;
                let key = (!key.is_empty()).then(|| folder.join(key));
                Ok((folder.join(string(&pair[0], "client")?), key))
            }
            other => Ok((folder.join(string(other, "client")?), None)),
        }
    };
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        other => Ok(vec![one(other)?]),
    }
}

/// Go's durations: `30s`, `1.5h`, `1m30s`.
fn duration(text: &str) -> Result<Duration> {
    let bad = || invalid(format!("{text:?} is no duration such as 30s"));
    let units =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, behind) = rest.split_at(number);
        let length = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(length);
        let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        seconds += number.parse::<f64>().map_err(|_| bad())? * factor;
        rest = behind;
    }
    if text.is_empty() { Err(bad()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| bad()) }
}

/// Docker's layout: `*.crt` to trust, `*.cert` with `*.key` to show.
fn certificates(folder: &Path, registry: &str, config: &Config) -> Result<Option<Host>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(None) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let with = |extension: &'static str| {
        paths.iter().filter(move |path| path.extension().is_some_and(|found| found == extension)).cloned()
    };
    let ca: Vec<PathBuf> = with("crt").collect();
    let client: Vec<(PathBuf, Option<PathBuf>)> = with("cert")
        .map(|cert| {
            let key = cert.with_extension("key");
            (cert, Some(key))
        })
        .collect();
    if ca.is_empty() && client.is_empty() {
        return Ok(None);
    }
    let Some(found) = defaults(registry, config)?.pop() else { return Ok(None) };
    Ok(Some(Host { ca, client, skip_verify: false, alternate: false, ..found }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Host>> {
        parse(text, Path::new("/etc/x"), "docker.io", &Config::default())
    }

    #[test]
    fn mirrors_come_in_the_files_order_and_the_server_last() {
        let hosts = parsed(
            r#"
            server = "https://registry-1.docker.io"
            [host."https://z.test:5000"]
              capabilities = ["pull", "resolve"]
              ca = "z.crt"
              skip_verify = true
              [host."https://z.test:5000".header]
                x-a = ["1", "2"]
            [host."a.test/proxy"]
              client = [["c.cert", "c.key"], ["both.pem", ""]]
            [host."http://b.test/api"]
              override_path = true
              dial_timeout = "500ms"
            "#,
        )
        .unwrap();
        let shown: Vec<String> =
            hosts.iter().map(|host| format!("{}{}", authority(&host.base), host.path)).collect();
        assert_eq!(shown, ["z.test:5000/v2", "a.test/proxy/v2", "b.test/api", "registry-1.docker.io/v2"]);
        assert!(hosts[0].skip_verify && hosts[0].mirror && !hosts[3].mirror && !hosts[3].skip_verify);
        assert!(!hosts[0].capabilities.contains(&Capability::Push));
        assert_eq!(hosts[0].ca, [PathBuf::from("/etc/x/z.crt")]);
        assert_eq!(hosts[0].headers.get_all("x-a").iter().count(), 2);
        assert_eq!(hosts[1].client.len(), 2);
        assert_eq!(hosts[2].dial_timeout, Some(Duration::from_millis(500)));
    }

    #[test]
    fn dockers_registry_is_found_under_the_name_that_references_have() {
        let hosts = parsed("server = 'https://docker.io'").unwrap();
        assert_eq!(hosts[0].base.as_str(), "https://registry-1.docker.io/");
        assert!(!hosts[0].mirror);
    }

    #[test]
    fn what_containerd_takes_is_taken() {
        let hosts = parsed(
            r#"
            capabilities = []
            dial_timeout = "1m30.5s"
            [host."http://10.0.0.1:5000"]
              skip_verify = true
            [host."http://10.0.0.2:80"]
              skip_verify = true
            [header]
              x-a = "1"
            "#,
        )
        .unwrap();
        let shown: Vec<(String, bool)> =
            hosts.iter().map(|host| (host.base.to_string(), host.alternate)).collect();
        let expected = [
            ("https://10.0.0.1:5000/", false),
            ("http://10.0.0.1:5000/", true),
            ("http://10.0.0.2/", false),
            ("https://registry-1.docker.io/", false),
        ];
        assert_eq!(shown, expected.map(|(url, alternate)| (url.to_owned(), alternate)));
        assert_eq!(hosts[3].capabilities.len(), 4, "none named is all");
        assert_eq!(hosts[3].dial_timeout, Some(Duration::from_millis(90_500)));
        assert_eq!(hosts[3].headers.len(), 1);
    }

    #[test]
    fn a_registrys_own_folder_counts_before_the_one_for_all() {
        let scratch = testkit::Scratch::new();
        let write = |path: &str, text: &str| {
            let path = scratch.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("one/_default/hosts.toml", "server = 'https://general.test'");
        write("two/r.test_5000_/hosts.toml", "server = 'https://port.test'");
        write("two/r.test:5000/hosts.toml", "server = 'https://other.test'");
        write("one/empty.test/note", "");
        let config = Config { hosts: vec![scratch.path("one"), scratch.path("two")], ..Config::default() };
        for (registry, expected) in
            [("r.test:5000", "port.test"), ("r.test", "general.test"), ("empty.test", "empty.test")]
        {
            let hosts = find(&config, registry).unwrap();
            assert_eq!(hosts[0].base.host_str(), Some(expected), "{registry}");
            assert_eq!(hosts[0].from.is_some(), registry != "empty.test");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("sever = 'x'", "sever"),
            ("capabilities = ['fly']", "fly"),
            ("[host.'ftp://x']", "ftp"),
            ("[host.'https://user:secret@x']", "no address"),
            ("dial_timeout = 'soon'", "soon"),
            ("skip_verify = 'yes'", "skip_verify"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.chain().contains(named), "{text}: {}", error.chain());
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        let schemes = |registry: &str| -> Vec<String> {
            let hosts = find(&Config::default(), registry).unwrap();
            hosts.iter().map(|host| host.base.scheme().to_owned()).collect()
        };
        assert_eq!(schemes("127.0.0.1:5000"), ["http", "https"]);
        assert_eq!(schemes("[::1]:5000"), ["http", "https"]);
        assert_eq!(schemes("localhost"), ["https"]);
        for far in ["docker.io", "10.0.0.1:5000", "localhost.evil.test:5000", "127.0.0.1.evil.test:80"] {
            assert_eq!(schemes(far), ["https"], "{far}");
        }
        let plain = Config { plain_http: vec!["10.0.0.1:5000".into()], ..Config::default() };
        assert_eq!(find(&plain, "10.0.0.1:5000").unwrap()[0].base.scheme(), "http");
    }
}
