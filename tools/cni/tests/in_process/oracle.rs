//! The same additions by the reference plugins: what is there afterwards is the same, and each checks and removes the
//! other's.

use std::fs;

use berth_cni::Cni;
use serde_json::{Value, json};
use testkit::need;

use crate::lab::{Lab, Pod, filter, ip, links, on_a_host, reference};

/// Lists of plugins with what the runtime has for a pod.
fn lists() -> Vec<(&'static str, Value, Value)> {
    let four = json!({"type": "host-local", "dataDir": "LEASES", "ranges": [[{"subnet": "10.99.0.0/24"}]],
                      "routes": [{"dst": "0.0.0.0/0"}]});
    let both = json!({"type": "host-local", "dataDir": "LEASES",
        "ranges": [[{"subnet": "10.99.0.0/24", "rangeStart": "10.99.0.20", "gateway": "10.99.0.254"}], [{"subnet": "fd99::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.0.2.0/24", "gw": "10.99.0.9"}]});
    // The default routes are those of isDefaultGateway.
    let mut without = both.clone();
    without["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "10.99.0.9"}]);
    let ports = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
        {"hostPort": 8081, "containerPort": 81, "protocol": "tcp", "hostIP": "::"},
    ]});
    let list =
        |version: &str, plugins: Value| json!({"cniVersion": version, "name": "net", "plugins": plugins});
    let mut lists = Vec::new();
    for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let plain = json!([{"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": four}]);
        lists.push(("plain", list(version, plain), Value::Null));
    }
    let rich = json!([
        {"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "hairpinMode": true, "mtu": 1400,
         "portIsolation": true, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": without,
         "capabilities": {"mac": true}, "dns": {"nameservers": ["10.99.0.254"], "search": ["a", "b"]}},
        {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
        {"type": "tuning", "dataDir": "TUNING", "mtu": 1300, "promisc": true, "allmulti": true, "txQLen": 77,
         "sysctl": {"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_filter": "1"}},
    ]);
    let mut known = ports.clone();
    known["mac"] = "02:11:22:33:44:55".into();
    lists.push(("rich", list("1.0.0", rich), known));
    let promiscuous = json!([
        {"type": "bridge", "bridge": "br0", "promiscMode": true, "ipam": four},
        {"type": "tuning", "dataDir": "TUNING", "mac": "02:11:22:33:44:66"},
    ]);
    lists.push(("promiscuous", list("1.0.0", promiscuous), Value::Null));
    let routed = json!([
        {"type": "ptp", "mtu": 1450, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": both},
        {"type": "portmap", "backend": "nftables", "snat": false, "capabilities": {"portMappings": true}},
        {"type": "firewall", "iptablesAdminChainName": "MINE"},
    ]);
    lists.push(("ptp", list("1.0.0", routed), ports));
    lists.push(("no addresses", list("1.0.0", json!([{"type": "bridge", "bridge": "br0"}])), Value::Null));
    lists
}

/// Devices, addresses, routes, parameters, leases and rules, without what is drawn at random.
fn state(lab: &Lab, pod: &Pod) -> Vec<String> {
    let mut lines = Vec::new();
    let parameters = [
        ("ipv4", "arp_notify"),
        ("ipv6", "accept_dad"),
        ("ipv6", "keep_addr_on_down"),
        ("ipv6", "disable_ipv6"),
        ("ipv6", "accept_ra"),
        ("ipv4", "route_localnet"),
        ("ipv4", "arp_filter"),
    ];
    let mut look = |place: &str| {
        for words in ["-d -o link", "-o addr", "-4 route show table all", "-6 route show table all"] {
            lines.extend(ip(words).lines().map(|line| format!("{place} {words}: {line}")));
        }
        for name in links() {
            for (family, parameter) in parameters {
                let path = format!("/proc/sys/net/{family}/conf/{name}/{parameter}");
                let value = fs::read_to_string(path).unwrap_or_default();
                lines.push(format!("{place} {family} {name} {parameter} {}", value.trim()));
            }
        }
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "core/somaxconn"] {
            let value = fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap();
            lines.push(format!("{place} {path} {}", value.trim()));
        }
    };
    pod.inside(|| look("pod"));
    look("host");
    lines.extend(filter("nft list ruleset").lines().map(|line| format!("nft {line}")));
    lines.extend(filter("iptables -S").lines().map(|line| format!("iptables {line}")));
    lines.extend(filter("ip6tables -S").lines().map(|line| format!("ip6tables {line}")));
    lines.extend(lab.leases().into_iter().map(|(name, text)| format!("lease {name} {text}")));
    let mut lines: Vec<String> = lines.iter().map(|line| masked(line)).collect();
    lines.sort();
    lines
}

/// A line without random names and hardware addresses, and without numbers that count or tell the time.
fn masked(line: &str) -> String {
    // Theirs is 0 on the host's side, by which a queue that somebody adds later would drop everything.
    let line = line.replace(" qlen 1000", " ");
    // Ours are used at once: that nobody else has a leased address need not be asked on the bridge either.
    let line = line.replace(" nodad", "");
    let words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let mut all: Vec<String> = Vec::new();
    for word in words {
        let bare = word.trim_end_matches([':', '\\']);
        let is_mac = bare.len() == 17 && bare.split(':').count() == 6;
        let before = all.last().map(String::as_str).unwrap_or_default().to_owned();
        let counts = [
            "ageing_timer",
            "gc_timer",
            "hello_timer",
            "tcn_timer",
            "topology_change_timer",
            "packets",
            "bytes",
            "bridge_id",
            "designated_root",
            "designated_bridge",
            "tso_max_size",
            "expires",
            "forward_delay_timer",
            "message_age_timer",
            "link-netns",
            "link-netnsid",
        ];
        if is_mac || bare.starts_with("8000.") {
            all.push("MAC".into());
        } else if bare.starts_with("veth") && bare.len() >= 12 {
            all.push("VETH".into());
        } else if bare.starts_with("fe80::") && !bare.starts_with("fe80::/") {
            all.push("LINKLOCAL".into());
        } else if counts.contains(&before.as_str()) {
            all.push("N".into());
        } else if word.ends_with(':') && word.trim_end_matches(':').parse::<u32>().is_ok() {
            all.push("INDEX".into());
        } else if word.starts_with("eth0@if") || word.contains("@if") {
            all.push("PAIR".into());
        } else {
            all.push(word.into());
        }
    }
    all.join(" ")
}

/// A result without what is drawn at random.
fn outcome(cni: &Cni, pod: &Pod, lab: &Lab) -> Vec<String> {
    cni.add(&pod.attachment).unwrap_or_else(|error| panic!("{}", error.chain()));
    let (_, text) = lab.records().pop().unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    let mut result = record["result"].clone();
    for device in result["interfaces"].as_array_mut().into_iter().flatten() {
        let asked = device["mac"].as_str().is_some_and(|mac| mac.starts_with("02:11:22:33:44:"));
        if !asked {
            assert_eq!(device["mac"].as_str().map(str::len), Some(17), "{device}");
            device["mac"] = "MAC".into();
        }
        if device["name"].as_str().unwrap().starts_with("veth") {
            device["name"] = "VETH".into();
        }
        if device["sandbox"].is_string() {
            assert_eq!(device["sandbox"], pod.attachment.namespace.to_str().unwrap());
            device["sandbox"] = "NAMESPACE".into();
        }
    }
    vec![serde_json::to_string_pretty(&result).unwrap()]
}

#[test]
fn what_is_there_after_an_addition_is_what_the_reference_plugins_make() -> Result<(), need::Missing> {
    reference()?;
    for (name, list, capabilities) in lists() {
        let seen = |ours: bool| {
            on_a_host(|lab| {
                lab.list(&list);
                let cni = if ours { lab.ours() } else { lab.theirs() };
                let used = cni.in_process(&cni.networks().networks[0]);
                assert_eq!(used.is_ok(), ours, "{name}: {used:?}");
                let pod = Pod::with("pod-1", &capabilities);
                let mut all = outcome(&cni, &pod, lab);
                settle(&pod);
                all.extend(state(lab, &pod));
                cni.del(&pod.attachment).unwrap();
                assert_eq!(lab.leftovers(), [""; 0], "{name}");
                all
            })
        };
        let (ours, theirs) = (seen(true), seen(false));
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|line| !other.contains(line)).cloned().collect()
        };
        let (more, less) = (only(&ours, &theirs), only(&theirs, &ours));
        assert!(
            more.is_empty() && less.is_empty(),
            "{name} {}:\nonly ours:\n{}\nonly theirs:\n{}",
            list["cniVersion"],
            more.join("\n"),
            less.join("\n")
        );
    }
    Ok(())
}

/// Waits until the kernel has looked for duplicates of the addresses that it made by itself.
fn settle(pod: &Pod) {
    let is_settled = || !ip("-6 addr").contains("tentative");
    testkit::wait::soon("the host's addresses are settled", is_settled);
    pod.inside(|| testkit::wait::soon("the pod's addresses are settled", is_settled));
}

#[test]
fn each_checks_and_removes_what_the_other_has_added() -> Result<(), need::Missing> {
    reference()?;
    for (name, list, capabilities) in lists() {
        on_a_host(|lab| {
            lab.list(&list);
            let has_check = list["cniVersion"].as_str().unwrap() >= "0.4.0";
            for (adds, other, is_ours) in
                [(lab.ours(), lab.theirs(), true), (lab.theirs(), lab.ours(), false)]
            {
                let pod = Pod::with("pod-1", &capabilities);
                adds.add(&pod.attachment).unwrap();
                // The reference bridge asks for an ipam that is none when it checks.
                if has_check && name != "no addresses" {
                    adds.check(&pod.attachment)
                        .unwrap_or_else(|error| panic!("{name} own: {}", error.chain()));
                    other
                        .check(&pod.attachment)
                        .unwrap_or_else(|error| panic!("{name} {is_ours}: {}", error.chain()));
                }
                if is_ours {
                    lab.forget_who();
                }
                other
                    .del(&pod.attachment)
                    .unwrap_or_else(|error| panic!("{name} {is_ours}: {}", error.chain()));
                assert_eq!(pod.inside(links), ["lo"], "{name} {is_ours}");
                assert_eq!(lab.leftovers(), [""; 0], "{name} {is_ours}");
                // The bridge's own check of a promiscuous one fails once nobody is on it, and the next starts anew.
            }
        });
    }
    Ok(())
}

/// Backends that the configuration leaves open: the plugins take iptables where it is installed.
#[test]
fn what_the_plugins_made_with_iptables_is_checked_and_removed_too() -> Result<(), need::Missing> {
    reference()?;
    let capabilities = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    let list = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [
        {"type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
         "ipam": {"type": "host-local", "dataDir": "LEASES", "subnet": "10.99.0.0/24"}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
    ]});
    on_a_host(|lab| {
        lab.list(&list);
        let (ours, theirs) = (lab.ours(), lab.theirs());
        let (one, two) = (Pod::with("pod-1", &capabilities), Pod::new("pod-2"));
        theirs.add(&two.attachment).unwrap();
        let before = filter("iptables-save");
        theirs.add(&one.attachment).unwrap();
        assert!(filter("iptables -t nat -S").contains("CNI-DN-"));
        ours.check(&one.attachment).unwrap();
        ours.del(&one.attachment).unwrap();
        let chains = |text: &str| -> Vec<String> {
            let rules = text.lines().filter(|line| line.starts_with('-') && !line.contains("HOSTPORT"));
            rules.map(str::to_owned).collect()
        };
        assert_eq!(chains(&filter("iptables-save")), chains(&before), "the other pod's are untouched");
        theirs.check(&two.attachment).unwrap();
        ours.del(&two.attachment).unwrap();
        assert_eq!(lab.leftovers(), [""; 0]);

        // What is ours is made in nftables, and the record says so to whoever removes it.
        ours.add(&one.attachment).unwrap();
        assert!(!filter("iptables -t nat -S").contains("CNI-DN-"));
        theirs.check(&one.attachment).unwrap();
        lab.forget_who();
        theirs.del(&one.attachment).unwrap();
        assert_eq!(lab.leftovers(), [""; 0]);
    });
    Ok(())
}
