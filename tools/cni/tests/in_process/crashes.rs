//! Additions that are cut off, and what nobody has any more.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_cni::{Cni, InProcess};
use serde_json::{Value, json};
use testkit::need;

use crate::lab::{Lab, Pod, filter, ip, links, on_a_host, reference};

/// Every plugin, so that there is something to leave at every step.
fn list() -> Value {
    json!({"cniVersion": "1.1.0", "name": "net", "plugins": [
        {"type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
         "ipam": {"type": "host-local", "dataDir": "LEASES", "routes": [{"dst": "0.0.0.0/0"}],
                  "ranges": [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
        {"type": "tuning", "dataDir": "TUNING", "mtu": 1300},
    ]})
}

fn ports() -> Value {
    json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
}

#[test]
fn an_addition_that_ended_before_its_result_was_written_is_taken_back() -> Result<(), need::Missing> {
    reference()?;
    on_a_host(|lab| {
        lab.list(&list());
        let cni = lab.ours();
        // With the namespace, without it, and by a collection that knows of nobody.
        type Removal<'a> = &'a dyn Fn(&Cni, &Pod);
        let removals: [Removal<'_>; 4] = [
            &|cni, pod| cni.del(&pod.attachment).unwrap(),
            &|cni, pod| {
                pod.inside(|| ip("link del eth0"));
                cni.del(&pod.gone()).unwrap();
            },
            &|cni, _| cni.gc(&[]).unwrap(),
            // A retry is as good as a removal.
            &|cni, pod| {
                cni.add(&pod.attachment).unwrap();
                cni.del(&pod.attachment).unwrap();
            },
        ];
        for removal in removals {
            let pod = Pod::with("pod", &ports());
            cni.add(&pod.attachment).unwrap();
            lab.forget_results();
            removal(&cni, &pod);
            assert_eq!(pod.inside(links), ["lo"]);
            assert_eq!(lab.leftovers(), [""; 0]);
        }
    });
    Ok(())
}

#[test]
fn a_collection_takes_what_is_of_nobody_and_leaves_what_is_of_others() -> Result<(), need::Missing> {
    reference()?;
    on_a_host(|lab| {
        lab.list(&list());
        let cni = lab.ours();
        let (kept, lost) = (Pod::with("kept", &ports()), Pod::with("lost", &json!({})));
        cni.add(&kept.attachment).unwrap();
        // Another network's port mapping in the same table, which is none of this one's.
        filter(
            "nft add rule ip cni_hostport hostports tcp dport 9999 dnat to 192.0.2.9:80 comment \"other\"",
        );
        let before = filter("nft -s list ruleset");
        cni.add(&lost.attachment).unwrap();
        filter("nft add rule ip cni_hostport hostports tcp dport 9998 dnat to 10.99.0.3:80 comment \"lost\"");
        // Nobody knows of it but its lease.
        fs::remove_dir_all(lab.path("cache/results")).unwrap();
        lost.inside(|| ip("link del eth0"));
        // And one who was killed before there was a name in his lease.
        fs::write(lab.path("leases/net/10.99.0.7"), "").unwrap();
        cni.gc(&[("kept".into(), "eth0".into())]).unwrap();
        let leases: Vec<String> = lab.leases().into_iter().map(|(name, _)| name).collect();
        assert_eq!(leases, ["10.99.0.2", "fd99::2", "lock"]);
        assert_eq!(filter("nft -s list ruleset"), before);
        cni.gc(&[]).unwrap();
        kept.inside(|| ip("link del eth0"));
        fs::remove_dir_all(lab.path("tuning")).unwrap();
        assert_eq!(lab.leftovers(), [""; 0]);
        assert!(filter("nft -s list ruleset").contains("192.0.2.9"));
    });
    Ok(())
}

/// Adds and removes until it is killed: what [`whoever_is_killed_at_whatever_step_leaves_nothing`] kills.
#[test]
#[ignore = "the part of another test that is killed"]
fn adds_and_removes_until_it_is_killed() {
    let folder = std::env::var("BERTH_CNI_FOLDER").expect("the other test sets it");
    let namespace = std::env::var("BERTH_CNI_NAMESPACE").expect("the other test sets it");
    let cni = Lab::in_folder(folder.as_ref(), InProcess::WhenPossible);
    let mut pod = Pod::with("pod", &ports()).attachment;
    pod.namespace = namespace.into();
    loop {
        cni.add(&pod).unwrap();
        cni.del(&pod).unwrap();
    }
}

#[test]
fn whoever_is_killed_at_whatever_step_leaves_nothing() -> Result<(), need::Missing> {
    reference()?;
    on_a_host(|lab| {
        lab.list(&list());
        let cni = lab.ours();
        let pod = Pod::with("pod", &ports());
        let mut states = std::collections::BTreeSet::new();
        for round in 0..40 {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "crashes::adds_and_removes_until_it_is_killed", "--ignored"]);
            child.env("BERTH_CNI_FOLDER", lab.path("")).env("BERTH_CNI_NAMESPACE", &pod.attachment.namespace);
            let mut child =
                child.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
            testkit::wait::soon("the child works", || !lab.records().is_empty());
            // At another moment each time, of an addition or of a removal.
            let until = Instant::now() + Duration::from_micros(round * 311 % 17_000);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let is_intent = lab.records().iter().any(|(_, text)| !text.contains("\"result\""));
            let has_device = pod.inside(links).len() > 1;
            states.insert((lab.records().len(), is_intent, has_device, lab.leases().len()));
            if round % 2 == 0 {
                cni.del(&pod.attachment).unwrap();
            } else {
                cni.gc(&[]).unwrap();
            }
            // A removal that was under way in the kernel ends by itself.
            testkit::wait::soon("the devices are gone", || pod.inside(links) == ["lo"]);
            assert_eq!(lab.leftovers(), [""; 0], "{states:?}");
        }
        assert!(states.len() > 3, "it was killed at different steps: {states:?}");
    });
    Ok(())
}
