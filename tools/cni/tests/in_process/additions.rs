//! What networks in process answer, and when they are left to programs.

use std::fs;
use std::net::IpAddr;

use berth_cni::{Attached, InProcess, Settings};
use berth_types::{Error, ErrorKind};
use serde_json::{Value, json};
use testkit::need;

use crate::lab::{Lab, Pod, filter, links, on_a_host, reference};

fn bridge(ipam: &Value) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "plugins": [
        {"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": ipam,
         "capabilities": {"ips": true, "ipRanges": true}},
    ]})
}

fn small() -> Value {
    json!({"type": "host-local", "dataDir": "LEASES", "subnet": "10.99.0.0/29"})
}

fn addresses(attached: &Attached) -> Vec<String> {
    attached.addresses("eth0").iter().map(IpAddr::to_string).collect()
}

/// What is wrong with the last plugin's own words.
fn why(error: &Error) -> String {
    error.chain().rsplit(": ").next().unwrap_or_default().trim_end_matches(" (code 999)").to_owned()
}

#[test]
fn addresses_that_are_asked_for_are_given_and_ranges_are_those_of_the_plugin() -> Result<(), need::Missing> {
    reference()?;
    let several = json!({"type": "host-local", "dataDir": "LEASES", "resolvConf": "TUNING/resolv.conf",
        "ranges": [[{"subnet": "10.99.0.0/24", "rangeStart": "10.99.0.9", "rangeEnd": "10.99.0.10"},
                    {"subnet": "10.99.7.0/30"}], [{"subnet": "fd99::/120"}]]});
    let seen = |ours: bool| {
        on_a_host(|lab| {
            let mut list = bridge(&several);
            // A bridge has one address of IPv4, and the ranges of a set have a gateway each.
            list["plugins"][0]["forceAddress"] = true.into();
            lab.list(&list);
            fs::create_dir_all(lab.path("tuning")).unwrap();
            let text = "# a\nnameserver 192.0.2.53\nnameserver\nsearch a b\noptions ndots:5\ndomain c\n";
            fs::write(lab.path("tuning/resolv.conf"), text).unwrap();
            let cni = if ours { lab.ours() } else { lab.theirs() };
            let mut told = Vec::new();
            let mut pods = Vec::new();
            for (name, capabilities, arguments) in [
                ("a", json!({}), None),
                ("b", json!({}), None),
                ("c", json!({}), None),
                ("d", json!({}), None),
                ("e", json!({"ips": ["10.99.0.99"]}), None),
                ("f", json!({"ips": ["10.99.0.1"]}), None),
                ("g", json!({"ipRanges": [[{"subnet": "10.99.9.0/24"}]], "ips": ["fd99::77/120"]}), None),
                ("h", json!({"ipRanges": [[{"subnet": "10.99.9.0/24"}]]}), Some(("IP", "10.99.9.200"))),
                ("i", json!({"ipRanges": [[{"subnet": "10.99.0.0/25"}]]}), None),
                ("j", json!({"ipRanges": [[{"subnet": "10.99.9.1/24"}]]}), None),
            ] {
                let mut pod = Pod::with(name, &capabilities);
                pod.attachment
                    .arguments
                    .extend(arguments.map(|(key, value)| (key.to_owned(), value.to_owned())));
                told.push(match cni.add(&pod.attachment) {
                    Ok(attached) => format!("{name} {:?} {:?}", addresses(&attached), attached.dns()[1]),
                    Err(_) => format!("{name} refused"),
                });
                pods.push(pod);
            }
            told.extend(lab.leases().into_iter().map(|(name, text)| format!("{name} {text:?}")));
            let last =
                |number: u32| fs::read_to_string(lab.path(&format!("leases/net/last_reserved_ip.{number}")));
            told.extend((0..3).map(|number| format!("last {:?}", last(number).ok())));
            for pod in &pods {
                // The programs refuse to remove with what they cannot read.
                let removed = cni.del(&pod.attachment);
                assert!(removed.is_ok() || !ours, "{removed:?}");
            }
            told
        })
    };
    let (ours, theirs) = (seen(true), seen(false));
    assert_eq!(ours, theirs);
    assert!(
        ours[0].starts_with("a [\"10.99.0.9\", \"fd99::2\"]") && ours[0].contains("192.0.2.53"),
        "{ours:?}"
    );
    assert!(ours[2].starts_with("c [\"10.99.7.2\"") && ours[3] == "d refused", "{ours:?}");
    Ok(())
}

#[test]
fn a_network_without_a_free_address_says_so_and_has_one_again_after_a_removal() -> Result<(), need::Missing> {
    reference()?;
    on_a_host(|lab| {
        lab.list(&bridge(&small()));
        let cni = lab.ours();
        let pods: Vec<Pod> = (0..5).map(|number| Pod::new(&format!("pod-{number}"))).collect();
        for pod in &pods {
            cni.add(&pod.attachment).unwrap();
        }
        let late = Pod::new("late");
        let error = cni.add(&late.attachment).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{}", error.chain());
        assert!(
            error.chain().contains("no IP addresses available in range set: 10.99.0.1-10.99.0.6"),
            "{}",
            error.chain()
        );
        assert_eq!(lab.records().len(), 5, "what failed is taken back");
        assert_eq!(late.inside(links), ["lo"]);
        cni.del(&pods[3].attachment).unwrap();
        let attached = cni.add(&late.attachment).unwrap();
        assert_eq!(addresses(&attached), ["10.99.0.5"]);
        // The first is added again, as after a crash that forgot the answer.
        cni.del(&late.attachment).unwrap();
        assert_eq!(addresses(&cni.add(&pods[0].attachment).unwrap()), ["10.99.0.2"]);
        for pod in &pods {
            cni.del(&pod.attachment).unwrap();
        }
        assert_eq!(lab.leftovers(), [""; 0]);
    });
    Ok(())
}

/// As by a plugin that hangs while it has the lock.
#[test]
fn who_holds_the_addresses_is_waited_for_as_long_as_a_program_would_be() -> Result<(), need::Missing> {
    reference()?;
    on_a_host(|lab| {
        lab.list(&bridge(&small()));
        fs::create_dir_all(lab.path("leases/net")).unwrap();
        let held = fs::File::create(lab.path("leases/net/lock")).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let cni = berth_cni::Cni::new(Settings {
            deadline: std::time::Duration::from_millis(50),
            conf_dir: lab.path("conf"),
            cache_dir: lab.path("cache"),
            in_process: InProcess::WhenPossible,
            ..Settings::default()
        });
        let pod = Pod::new("pod");
        let error = cni.add(&pod.attachment).unwrap_err();
        assert!(error.chain().contains("another process holds the lock"), "{}", error.chain());
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        // It could not be taken back either, and that is known.
        assert_eq!(lab.records().len(), 1);
        drop(held);
        cni.del(&pod.attachment).unwrap();
        assert_eq!(lab.leftovers(), [""; 0]);
    });
    Ok(())
}

#[test]
fn fifty_pods_at_once_beside_the_plugins_get_an_address_each() -> Result<(), need::Missing> {
    reference()?;
    on_a_host(|lab| {
        let wide = json!({"type": "host-local", "dataDir": "LEASES", "subnet": "10.99.0.0/16",
                          "routes": [{"dst": "0.0.0.0/0"}]});
        let mut list = bridge(&wide);
        list["plugins"][0]["ipMasq"] = true.into();
        list["plugins"][0]["ipMasqBackend"] = "nftables".into();
        list["plugins"].as_array_mut().unwrap().push(json!({"type": "firewall"}));
        lab.list(&list);
        let (ours, theirs) = (lab.ours(), lab.theirs());
        let pods: Vec<Pod> = (0..54).map(|number| Pod::new(&format!("pod-{number}"))).collect();
        let here = fs::File::open("/proc/thread-self/ns/net").unwrap();
        // Every thread works on this host; each tenth or so by the plugins' programs.
        let every = |work: &(dyn Fn(usize, &Pod) -> Vec<String> + Sync)| -> Vec<String> {
            std::thread::scope(|scope| {
                let one = |number: usize, pod| {
                    let here = &here;
                    scope.spawn(move || {
                        use std::os::fd::AsFd;
                        berth_sys::thread::in_network(here.as_fd(), || Ok(work(number, pod))).unwrap()
                    })
                };
                let workers: Vec<_> = pods.iter().enumerate().map(|(number, pod)| one(number, pod)).collect();
                workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
            })
        };
        let cni = |number: usize| if number >= 50 { &theirs } else { &ours };
        let mut given = every(&|number, pod| {
            let attached =
                cni(number).add(&pod.attachment).unwrap_or_else(|error| panic!("{}", error.chain()));
            addresses(&attached)
        });
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 54);
        let rules = filter("iptables -S FORWARD");
        assert!(rules.contains("-j CNI-FORWARD"), "{rules}");
        every(&|number, pod| {
            cni(number).check(&pod.attachment).unwrap_or_else(|error| panic!("{}", error.chain()));
            Vec::new()
        });
        every(&|number, pod| {
            cni(number).del(&pod.attachment).unwrap_or_else(|error| panic!("{}", error.chain()));
            Vec::new()
        });
        assert_eq!(lab.leftovers(), [""; 0]);
    });
    Ok(())
}

#[test]
fn a_check_says_what_is_missing() -> Result<(), need::Missing> {
    reference()?;
    let list = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [
        {"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipam": small()},
        {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
        {"type": "tuning", "dataDir": "TUNING", "mtu": 1300, "sysctl": {"net.ipv4.ip_default_ttl": "70"}},
    ]});
    let capabilities = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    let inside = |pod: &Pod, words: &str| drop(pod.inside(|| crate::lab::ip(words)));
    type Damage<'a> = &'a (dyn Fn(&Lab, &Pod) + Sync);
    let damages: [(&str, Damage<'_>); 10] = [
        ("is not in", &|_, _| {}),
        ("Failed to match addr 10.99.0.2/29", &|_, pod| inside(pod, "addr add 10.99.0.3/29 dev eth0")),
        ("Failed to match addr 10.99.0.2/29", &|_, pod| inside(pod, "addr del 10.99.0.2/29 dev eth0")),
        ("Expected Route to 0.0.0.0/0", &|_, pod| inside(pod, "route del default")),
        ("the device eth0 is gone", &|_, pod| inside(pod, "link del eth0")),
        ("the bridge br0 is gone", &|_, _| drop(crate::lab::ip("link del br0"))),
        ("mtu of eth0 is to be 1300, and is 1200", &|_, pod| inside(pod, "link set eth0 mtu 1200")),
        ("Failed to find address", &|lab, _| fs::remove_file(lab.path("leases/net/10.99.0.2")).unwrap()),
        ("missing hostport rules", &|_, _| drop(filter("nft delete table ip cni_hostport"))),
        ("rule of 10.99.0.2", &|_, _| drop(filter("iptables -D CNI-FORWARD -s 10.99.0.2 -j ACCEPT"))),
    ];
    on_a_host(|lab| {
        lab.list(&list);
        for (number, (text, damage)) in damages.iter().enumerate() {
            for cni in [lab.ours(), lab.theirs()] {
                let pod = Pod::with("pod", &capabilities);
                let _ = fs::remove_dir_all(lab.path("leases"));
                lab.ours().add(&pod.attachment).unwrap();
                cni.check(&pod.attachment).unwrap();
                damage(lab, &pod);
                let told = cni.check(&pod.attachment).err().map(|error| error.chain());
                // The first two do no harm: more than what was asked for is no damage.
                assert_eq!(told.is_some(), number > 1, "{text}: {told:?}");
                if cni.in_process(&cni.networks().networks[0]).is_ok() && number > 1 {
                    assert!(told.as_ref().unwrap().contains(text), "{text}: {told:?}");
                }
                lab.ours().del(&pod.attachment).unwrap();
                assert_eq!(lab.leftovers(), [""; 0], "{text}");
            }
        }
    });
    Ok(())
}

#[test]
fn what_is_not_done_in_process_is_left_to_programs_and_the_reason_is_told() -> Result<(), need::Missing> {
    need::root()?;
    on_a_host(|lab| {
        let mut list = bridge(&small());
        let reason =
            |cni: &berth_cni::Cni| cni.in_process(&cni.networks().networks[0]).err().unwrap_or_default();
        lab.list(&list);
        assert_eq!(reason(&lab.ours()), "");
        assert_eq!(reason(&lab.theirs()), "networks are not to be done in process");
        let marked = lab.cni(InProcess::Marked);
        assert_eq!(reason(&marked), "network net does not ask for it with berthInProcess");
        assert_eq!(Settings::default().in_process, InProcess::Marked);
        list["berthInProcess"] = true.into();
        lab.list(&list);
        assert_eq!(reason(&marked), "");
        list["plugins"][0]["vlan"] = 5.into();
        lab.list(&list);
        assert_eq!(reason(&marked), "option vlan of plugin bridge is not done in process");

        // Then the program is asked, and here it is none.
        let none = berth_cni::Cni::new(Settings {
            conf_dir: lab.path("conf"),
            bin_dirs: vec![lab.path("bin")],
            cache_dir: lab.path("cache"),
            in_process: InProcess::WhenPossible,
            ..Settings::default()
        });
        let pod = Pod::new("pod");
        assert!(none.add(&pod.attachment).unwrap_err().to_string().contains("there is no CNI plugin bridge"));
        // That one is removed by the configuration of its time; another is none of its business.
        let pod = Pod::new("pod-2");
        list["plugins"][0]["vlan"] = 0.into();
        lab.list(&list);
        none.add(&pod.attachment).unwrap();
        none.status().unwrap();
        // What was made in process is removed so, whatever is set.
        berth_cni::Cni::new(Settings {
            conf_dir: lab.path("conf"),
            bin_dirs: vec![lab.path("bin")],
            cache_dir: lab.path("cache"),
            in_process: InProcess::Never,
            ..Settings::default()
        })
        .del(&pod.attachment)
        .unwrap();
        assert!(lab.leases().iter().all(|(name, _)| name == "lock"));
    });
    Ok(())
}

#[test]
fn configurations_that_the_plugins_refuse_are_refused() -> Result<(), need::Missing> {
    reference()?;
    let with = |change: Value| {
        let mut list = bridge(&small());
        for (key, value) in change.as_object().unwrap() {
            list["plugins"][0][key] = value.clone();
        }
        list
    };
    let ipam =
        |ranges: Value| with(json!({"ipam": {"type": "host-local", "dataDir": "LEASES", "ranges": ranges}}));
    for (list, reason) in [
        (
            with(json!({"hairpinMode": true, "promiscMode": true})),
            "cannot set hairpin mode and promiscuous mode at the same time",
        ),
        (with(json!({"bridge": "lo"})), "already exists but is not a bridge"),
        (ipam(json!([])), "no IP ranges specified"),
        (ipam(json!([[]])), "empty range set"),
        (ipam(json!([[{"subnet": "10.99.0.1/24"}]])), "host bits set"),
        (ipam(json!([[{"subnet": "10.99.0.0/31"}]])), "too small to allocate from"),
        (ipam(json!([[{"subnet": "10.99.0.0/24", "rangeStart": "10.98.0.1"}]])), "not in"),
        (ipam(json!([[{"subnet": "10.99.0.0/24"}, {"subnet": "fd99::/64"}]])), "mixe"),
        (ipam(json!([[{"subnet": "10.99.0.0/24"}], [{"subnet": "10.99.0.0/25"}]])), "overlaps with"),
    ] {
        on_a_host(|lab| {
            lab.list(&list);
            for cni in [lab.ours(), lab.theirs()] {
                let pod = Pod::new("pod");
                let error = cni.add(&pod.attachment).unwrap_err();
                assert!(error.chain().contains(reason), "{list}: {}", why(&error));
                assert_eq!(pod.inside(links), ["lo"]);
                // The programs refuse to remove with what they cannot read, and so their record stays.
                if cni.in_process(&cni.networks().networks[0]).is_ok() {
                    assert_eq!(lab.leftovers(), [""; 0], "{list}");
                }
            }
        });
    }
    Ok(())
}
