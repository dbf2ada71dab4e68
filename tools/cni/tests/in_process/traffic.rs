//! Packets: between pods, to the world and back, to published ports.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use berth_sys::thread::{in_network, in_new_network};
use serde_json::{Value, json};
use testkit::need;

use crate::lab::{Lab, Pod, filter, ip, on_a_host, reference};

const SOON: Duration = Duration::from_secs(10);
/// How long an answer that must not come is waited for.
const NEVER: Duration = Duration::from_millis(300);

fn list(main: &Value) -> Value {
    let mut main = main.clone();
    main["ipMasq"] = true.into();
    main["ipam"] = json!({"type": "host-local", "dataDir": "LEASES",
        "ranges": [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    json!({"cniVersion": "1.0.0", "name": "net", "plugins": [
        main,
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
    ]})
}

/// A place outside the host, at 192.0.2.2 and 2001:db8::2.
struct World(File);

impl World {
    fn new() -> Self {
        let file = in_new_network(|| File::open("/proc/thread-self/ns/net")).unwrap();
        ip("link add world type veth peer name host");
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
        // As `ip` wants it.
        ip(&format!("link set host netns {path}"));
        for words in [
            "addr add 192.0.2.1/24 dev world",
            "addr add 2001:db8::1/64 dev world nodad",
            "link set world up",
        ] {
            ip(words);
        }
        let world = Self(file);
        world.inside(|| {
            for words in [
                "link set lo up",
                "addr add 192.0.2.2/24 dev host",
                "addr add 2001:db8::2/64 dev host nodad",
                "link set host up",
            ] {
                ip(words);
            }
        });
        world
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network(self.0.as_fd(), || io::Result::Ok(work())).unwrap()
    }
}

/// A program that tells every caller who it is and from where it is called, until the test ends.
fn serve(name: &'static str, address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| {
                let from = stream.peer_addr()?.ip().to_canonical();
                stream.write_all(format!("{name} to {from}").as_bytes())
            });
        }
    });
}

fn call(address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn is_reached(address: &str) -> bool {
    TcpStream::connect_timeout(&address.parse().unwrap(), NEVER).is_ok()
}

fn add(lab: &Lab, pod: &Pod) -> Vec<IpAddr> {
    let attached = lab.ours().add(&pod.attachment).unwrap_or_else(|error| panic!("{}", error.chain()));
    attached.addresses("eth0")
}

#[test]
fn pods_reach_each_other_and_the_world_and_are_reached_by_their_ports() -> Result<(), need::Missing> {
    reference()?;
    for main in [
        json!({"type": "bridge", "bridge": "br0", "isGateway": true, "hairpinMode": true}),
        json!({"type": "ptp"}),
    ] {
        let is_bridge = main["type"] == "bridge";
        on_a_host(|lab| {
            lab.list(&list(&main));
            // Nothing is passed on but what the firewall plugin lets through and what is to published ports.
            filter("iptables -P FORWARD DROP");
            for words in
                ["-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT", "-A FORWARD -i br0 -o br0 -j ACCEPT"]
            {
                filter(&format!("iptables {words}"));
            }
            let world = World::new();
            let ports = json!({"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"},
            ]});
            let (web, other) = (Pod::with("web", &ports), Pod::new("other"));
            let (own, others) = (add(lab, &web), add(lab, &other));
            assert_eq!(own.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.99.0.2", "fd99::2"]);
            web.inside(|| serve("web", "[::]:80"));
            world.inside(|| serve("world", "[::]:70"));

            assert!(filter("iptables -S FORWARD").contains("-P FORWARD DROP"), "the host's own rules stay");
            // To the world with the host's address, and between pods with their own.
            assert_eq!(other.inside(|| call("192.0.2.2:70")).unwrap(), "world to 192.0.2.1");
            assert_eq!(other.inside(|| call("[2001:db8::2]:70")).unwrap(), "world to 2001:db8::1");
            if is_bridge {
                let direct = other.inside(|| call("10.99.0.2:80")).unwrap();
                assert_eq!(direct, format!("web to {}", others[0]));
                let direct = other.inside(|| call("[fd99::2]:80")).unwrap();
                assert_eq!(direct, format!("web to {}", others[1]));
            }
            assert_eq!(call("10.99.0.2:80").unwrap(), "web to 10.99.0.1", "from the host");
            assert!(!world.inside(|| is_reached("10.99.0.2:80")), "the world has no way to a pod");

            // Published ports: from the world, the host, its loopback, the pod itself and another.
            assert_eq!(world.inside(|| call("192.0.2.1:8080")).unwrap(), "web to 192.0.2.2");
            assert_eq!(world.inside(|| call("192.0.2.1:8081")).unwrap(), "web to 192.0.2.2");
            assert_eq!(world.inside(|| call("[2001:db8::1]:8080")).unwrap(), "web to 2001:db8::2");
            assert!(call("192.0.2.1:8080").unwrap().starts_with("web to "), "from the host");
            assert!(call("127.0.0.1:8080").unwrap().starts_with("web to "), "from the host's loopback");
            assert!(!is_reached("127.0.0.1:8081"), "published at another address");
            assert!(web.inside(|| call("192.0.2.1:8080")).unwrap().starts_with("web to "), "from itself");
            assert!(other.inside(|| call("192.0.2.1:8080")).unwrap().starts_with("web to "), "from another");

            lab.ours().del(&web.attachment).unwrap();
            assert!(!world.inside(|| is_reached("192.0.2.1:8080")));
            assert_eq!(
                other.inside(|| call("192.0.2.2:70")).unwrap(),
                "world to 192.0.2.1",
                "the other still"
            );
            lab.ours().del(&other.attachment).unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        });
    }
    Ok(())
}

/// A sender of UDP that goes on would reach for ever what had the port before, or nobody.
#[test]
fn what_goes_on_to_a_port_of_udp_reaches_the_pod_that_has_it_now() -> Result<(), need::Missing> {
    reference()?;
    on_a_host(|lab| {
        lab.list(&list(&json!({"type": "bridge", "bridge": "br0", "isGateway": true})));
        let world = World::new();
        let ports = json!({"portMappings": [{"hostPort": 5353, "containerPort": 53, "protocol": "udp"}]});
        let sender = world.inside(|| UdpSocket::bind("192.0.2.2:4000")).unwrap();
        sender.set_read_timeout(Some(SOON)).unwrap();
        sender.connect("192.0.2.1:5353").unwrap();
        let host = UdpSocket::bind("0.0.0.0:5353").unwrap();
        host.set_read_timeout(Some(SOON)).unwrap();
        sender.send(b"a").unwrap();
        let mut buffer = [0; 9];
        assert_eq!(host.recv(&mut buffer).unwrap(), 1, "the host's own program");
        for name in ["one", "two"] {
            let pod = Pod::with(name, &ports);
            add(lab, &pod);
            let socket = pod.inside(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            sender.send(b"b").unwrap();
            let (_, from) = socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(from.to_string(), "192.0.2.2:4000");
            lab.ours().del(&pod.attachment).unwrap();
        }
    });
    Ok(())
}
