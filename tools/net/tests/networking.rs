//! Endpoints within a network namespace that the test makes: the machine's own network is never touched.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_net::{Endpoint, Network, Networks, PortMapping, is_held};
use berth_sys::thread::{in_network, in_new_network};
use serde_json::Value;
use testkit::{Scratch, need};

/// A host of its own for `test`, with its loopback device up.
fn on_a_host(test: impl FnOnce(&Networks) + Send) {
    let scratch = Scratch::new();
    let networks = Networks::new(scratch.folder().join("net"), scratch.folder().join("netns"));
    in_new_network(|| {
        let done = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        assert!(done.success());
        test(&networks);
        Ok(())
    })
    .unwrap();
}

fn endpoint(owner: &str, ports: &[&str]) -> Endpoint {
    let ports = ports.iter().flat_map(|text| PortMapping::parse(text).unwrap()).collect();
    Endpoint {
        owner: owner.into(),
        name: owner.into(),
        network: "bridge".into(),
        ports,
        ..Endpoint::default()
    }
}

/// Does something as a process of the container would.
fn inside<T: Send>(endpoint: &Endpoint, work: impl FnOnce() -> io::Result<T> + Send) -> T {
    in_network(File::open(&endpoint.namespace).unwrap().as_fd(), work).unwrap()
}

/// A program of the container that greets every caller, until the test ends.
fn serve(endpoint: &Endpoint, address: &str) {
    let listener = inside(endpoint, || TcpListener::bind(address));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"hello"));
        }
    });
}

fn greeting(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn first(endpoint: &Endpoint) -> IpAddr {
    endpoint.addresses[0].0
}

fn links() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

#[test]
fn containers_reach_each_other_and_published_ports_are_reached_from_everywhere() -> Result<(), need::Missing>
{
    need::root()?;
    on_a_host(|networks| {
        let web = networks.attach(endpoint("web", &["18080:80"])).unwrap();
        let other = networks.attach(endpoint("other", &[])).unwrap();
        serve(&web, "0.0.0.0:80");
        let direct = SocketAddr::new(first(&web), 80);
        let gateway = SocketAddr::new(web.addresses[0].2, 18080);
        assert_eq!(inside(&other, || greeting(direct)), "hello", "from a neighbour");
        assert_eq!(greeting(direct).unwrap(), "hello", "from the host");
        assert_eq!(
            greeting("127.0.0.1:18080".parse().unwrap()).unwrap(),
            "hello",
            "over the host's loopback"
        );
        assert_eq!(greeting(gateway).unwrap(), "hello", "over an address of the host");
        assert_eq!(inside(&other, || greeting(gateway)), "hello", "from a neighbour over the host");
        assert_eq!(inside(&web, || greeting(gateway)), "hello", "from itself over the host");
        networks.check("web").unwrap();
        networks.check("other").unwrap();
        for owner in ["web", "other"] {
            networks.detach(owner).unwrap();
            networks.detach(owner).unwrap();
        }
        assert_eq!(links(), ["lo", "berth0"]);
        assert!(!web.namespace.exists() && networks.endpoints().unwrap().is_empty());
        let leases = std::fs::read_dir(networks.leases("bridge")).unwrap().flatten();
        assert_eq!(leases.filter(|entry| entry.file_name().to_string_lossy().starts_with("10.")).count(), 0);
        assert!(greeting("127.0.0.1:18080".parse().unwrap()).is_err());
    });
    Ok(())
}

#[test]
fn another_network_is_reached_through_published_ports_only() -> Result<(), need::Missing> {
    need::root()?;
    on_a_host(|networks| {
        let six = ("fd00:4::/64".to_owned(), "fd00:4::1".to_owned());
        let four = ("10.77.0.0/24".to_owned(), "10.77.0.1".to_owned());
        let blue = Network { name: "blue".into(), subnets: vec![four, six], ..Network::default() };
        networks.create(blue.clone()).unwrap();
        assert!(networks.create(blue).unwrap_err().to_string().contains("already exists"));
        let web = Endpoint {
            network: "blue".into(),
            wanted: vec!["10.77.0.9".parse().unwrap()],
            ..endpoint("web", &["18080:80"])
        };
        let web = networks.attach(web).unwrap();
        assert_eq!(first(&web).to_string(), "10.77.0.9");
        let other = networks.attach(endpoint("other", &[])).unwrap();
        serve(&web, "[::]:80");
        let quick =
            |address: SocketAddr| TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok();
        let direct = SocketAddr::new(first(&web), 80);
        assert!(!inside(&other, || Ok(quick(direct))), "another bridge");
        assert_eq!(inside(&other, || greeting(SocketAddr::new(other.addresses[0].2, 18080))), "hello");
        let six = web.addresses[1];
        assert_eq!(greeting(SocketAddr::new(six.0, 80)).unwrap(), "hello");
        assert_eq!(greeting(SocketAddr::new(six.2, 18080)).unwrap(), "hello");
        assert!(networks.remove("blue").unwrap_err().to_string().contains("active endpoints"));
        let taken = networks.attach(endpoint("late", &["127.0.0.1:18080:80"])).unwrap_err();
        assert!(taken.to_string().contains("port is already allocated"), "{taken}");
        networks.detach("web").unwrap();
        networks.remove("blue").unwrap();
        networks.detach("other").unwrap();
        assert_eq!(links(), ["lo", "berth0"]);
    });
    Ok(())
}

#[test]
fn what_a_crash_or_a_start_of_the_machine_leaves_is_made_whole_or_taken_away() -> Result<(), need::Missing> {
    need::root()?;
    on_a_host(|networks| {
        let before = networks.attach(endpoint("web", &["18080:80"])).unwrap();
        // All that a start of the machine takes: devices, rules, namespaces.
        rustix::mount::unmount(&before.namespace, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(Command::new("ip").args(["link", "del", "berth0"]).status().unwrap().success());
        assert!(networks.check("web").is_err());
        let record = networks.record("web").unwrap();
        let after = Networks::ensure_at(&record).unwrap().unwrap();
        assert_eq!(after.addresses, before.addresses);
        assert!(is_held(&after.namespace));
        networks.check("web").unwrap();

        // A maker that was killed right after its record, its lease and its namespace.
        let text = std::fs::read_to_string(&record).unwrap();
        let mut dead: Value = serde_json::from_str(&text).unwrap();
        dead["maker"] = 0.into();
        std::fs::write(&record, dead.to_string()).unwrap();
        let network = networks.leases("bridge");
        std::fs::write(network.join("10.4.0.77"), "nobody\r\neth0").unwrap();
        assert!(networks.collect(&|_| true).unwrap().is_empty());
        assert!(!network.join("10.4.0.77").exists());
        assert_eq!(networks.collect(&|_| false).unwrap(), ["web"]);
        assert!(!network.join(first(&after).to_string()).exists() && !after.namespace.exists());
        assert_eq!(links(), ["lo", "berth0"]);
        networks.detach("web").unwrap();
    });
    Ok(())
}

#[test]
fn the_reference_plugins_agree() -> Result<(), need::Missing> {
    need::root()?;
    let plugins = testkit::programs::peers().join("cni-1.1.1/usr/lib/cni");
    need::that(plugins.join("bridge").exists(), "the CNI plugins (cargo xtask peers)")?;
    let plugin = |command: &str, owner: &str, namespace: &Path, input: &Value| {
        let mut child = Command::new(plugins.join("bridge"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", owner)
            .env("CNI_NETNS", namespace)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &plugins)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {text}");
        text
    };
    // One plugin of the list, as a runtime hands it to the plugin. Its masquerading needs iptables.
    let input = |networks: &Networks, network: &Network, previous: Option<Value>| {
        let list = network.conflist(&networks.lease_folder());
        let mut one = list["plugins"][0].clone();
        one["cniVersion"] = list["cniVersion"].clone();
        one["name"] = list["name"].clone();
        one["ipMasq"] = false.into();
        if let Some(previous) = previous {
            one["prevResult"] = previous;
        }
        one
    };
    let (mut ours, mut theirs) = (Value::Null, Value::Null);
    on_a_host(|networks| {
        let endpoint = networks.attach(endpoint("web", &[])).unwrap();
        let network = networks.find("bridge").unwrap();
        ours = endpoint.result(&network);
        plugin("CHECK", "web", &endpoint.namespace, &input(networks, &network, Some(ours.clone())));
        networks.detach("web").unwrap();
    });
    on_a_host(|networks| {
        // An endpoint of ours only to have a namespace; its device makes room for the plugin's.
        let holder = networks.attach(endpoint("web", &[])).unwrap();
        let network = networks.find("bridge").unwrap();
        for words in [["link", "del", &holder.device], ["link", "del", "berth0"]] {
            assert!(Command::new("ip").args(words).status().unwrap().success());
        }
        std::fs::remove_dir_all(networks.leases("bridge")).unwrap();
        let config = input(networks, &network, None);
        theirs = serde_json::from_str(&plugin("ADD", "web", &holder.namespace, &config)).unwrap();
        // The lease that the plugin wrote is one that we read.
        plugin("DEL", "other", &holder.namespace, &config);
        networks.detach("web").unwrap();
        assert!(!networks.leases("bridge").join("10.4.0.2").exists());
    });
    for result in [&mut ours, &mut theirs] {
        for interface in result["interfaces"].as_array_mut().unwrap() {
            assert_eq!(interface["mac"].as_str().map(str::len), Some(17), "{interface}");
            interface["mac"] = Value::Null;
            if let Some(text) = interface["name"].as_str().filter(|name| name.starts_with("veth")) {
                assert_eq!(text.len(), 12);
                interface["name"] = "veth".into();
            }
            if interface["sandbox"].is_string() {
                interface["sandbox"] = "there".into();
            }
        }
    }
    assert_eq!(ours, theirs);
    Ok(())
}

#[test]
fn networks_of_two_folders_share_a_host() -> Result<(), need::Missing> {
    need::root()?;
    on_a_host(|networks| {
        let scratch = Scratch::new();
        let others = Networks::new(scratch.folder().join("net"), scratch.folder().join("netns"));
        // A range of ports, which is a large message.
        let web = networks.attach(endpoint("web", &["18000-18999:1000-1999"])).unwrap();
        let late = others.attach(endpoint("late", &[])).unwrap();
        serve(&web, "0.0.0.0:1080");
        let gateway = SocketAddr::new(late.addresses[0].2, 18080);
        assert_eq!(inside(&late, || greeting(gateway)), "hello");
        others.detach("late").unwrap();
        // A maker that was killed between the name of a lease and its text.
        let nobody = others.leases("bridge").join(first(&late).to_string());
        std::fs::write(&nobody, "").unwrap();
        assert!(others.collect(&|_| false).unwrap().is_empty());
        assert!(!nobody.exists());
        networks.check("web").unwrap();
        networks.detach("web").unwrap();
        assert!(networks.collect(&|_| false).unwrap().is_empty());
        assert_eq!(links(), ["lo", "berth0", "berth1"]);
    });
    Ok(())
}
