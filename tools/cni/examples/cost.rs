//! What ADD and DEL cost in process, beside the reference plugins' programs in the same run:
//! `unshare -n cargo run --release -p berth-cni --example cost FOLDER [TIMES [PLUGINS [PATH]]]`.
//! To be run in a network namespace of its own. PLUGINS is the folder of the programs, PATH where those find nft.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_cni::{Attachment, Cni, InProcess, Settings};
use berth_sys::thread::in_new_network;
use serde_json::{Value, json};

type Done<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Done<()> {
    let mut words = std::env::args().skip(1);
    let folder = words.next().ok_or("name a folder")?;
    let times: usize = words.next().map_or(Ok(50), |text| text.parse())?;
    let plugins = words.next().unwrap_or("/var/cache/berth-peers/cni-1.9.1/bin".into());
    let path =
        words.next().unwrap_or("/var/cache/berth-peers/filters-12/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    for (what, ports) in [("bridge", None), ("bridge, ipMasq and a port", Some(&ports))] {
        let mut medians = Vec::new();
        for (how, in_process) in [("programs  ", InProcess::Never), ("in process", InProcess::WhenPossible)] {
            let place = Path::new(&folder).join(format!("{in_process:?}-{}", ports.is_some()));
            let cni = cni(&place, (&plugins, &path), ports.is_some(), in_process)?;
            let (add, del) = measure(&cni, ports, times)?;
            println!("{what}: {how} ADD {add:?}, DEL {del:?} (medians of {times})");
            medians.push((add, del));
        }
        let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
        let [theirs, ours] = medians[..] else { continue };
        let both = ratio(theirs.0 + theirs.1, ours.0 + ours.1);
        println!(
            "{what}: {both:.1} times faster, ADD {:.1}, DEL {:.1}",
            ratio(theirs.0, ours.0),
            ratio(theirs.1, ours.1)
        );
    }
    Ok(())
}

fn cni(place: &Path, (plugins, path): (&str, &str), all: bool, in_process: InProcess) -> Done<Cni> {
    let mut list = json!({"cniVersion": "1.0.0", "name": "cost", "plugins": [
        {"type": "bridge", "bridge": "cost0", "isGateway": true, "ipMasq": all, "hairpinMode": true,
         "ipam": {"type": "host-local", "dataDir": place.join("leases"), "ranges": [[{"subnet": "10.88.0.0/16"}]],
                  "routes": [{"dst": "0.0.0.0/0"}]}},
    ]});
    if all {
        list["plugins"][0]["ipMasqBackend"] = "nftables".into();
        let more = json!({"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}});
        list["plugins"].as_array_mut().ok_or("a list")?.push(more);
    }
    std::fs::create_dir_all(place.join("conf"))?;
    std::fs::write(place.join("conf/cost.conflist"), list.to_string())?;
    Ok(Cni::new(Settings {
        conf_dir: place.join("conf"),
        bin_dirs: vec![plugins.into()],
        cache_dir: place.join("cache"),
        search_path: path.into(),
        in_process,
        ..Settings::default()
    }))
}

fn measure(cni: &Cni, ports: Option<&Value>, times: usize) -> Done<(Duration, Duration)> {
    let mut pods = Vec::new();
    for number in 0..times {
        let file = in_new_network(|| File::open("/proc/thread-self/ns/net"))?;
        let pod = Attachment {
            container: format!("pod-{number}"),
            namespace: format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into(),
            capabilities: ports.and_then(Value::as_object).cloned().unwrap_or_default(),
            ..Attachment::default()
        };
        // Held to the end: the kernel's own work to remove a namespace would be part of the next one's time.
        pods.push((pod, file));
    }
    let (mut add, mut del) = (Vec::new(), Vec::new());
    for (pod, _) in &pods {
        let began = Instant::now();
        cni.add(pod)?;
        add.push(began.elapsed());
    }
    for (pod, _) in &pods {
        let began = Instant::now();
        cni.del(pod)?;
        del.push(began.elapsed());
    }
    Ok((median(add), median(del)))
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}
