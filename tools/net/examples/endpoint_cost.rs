//! What a container's network costs: `unshare -n cargo run --release -p berth-net --example endpoint_cost FOLDER [TIMES]`.
//! To be run in a network namespace of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use berth_net::{Endpoint, Networks, PortMapping};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let times: usize = std::env::args().nth(2).map_or(Ok(100), |text| text.parse())?;
    let networks = Networks::new(Path::new(&folder).join("net"), Path::new(&folder).join("netns"));
    for (what, port) in [("no port", None), ("one port", Some("8080:80"))] {
        let (mut attach, mut detach) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let ports = port.map_or(Ok(Vec::new()), PortMapping::parse)?;
            let (owner, network) = ("cost".to_owned(), "bridge".to_owned());
            let endpoint = Endpoint { owner, network, ports, ..Endpoint::default() };
            let began = Instant::now();
            networks.attach(endpoint)?;
            attach.push(began.elapsed());
            let began = Instant::now();
            networks.detach("cost")?;
            detach.push(began.elapsed());
        }
        println!("{what}: attach {:?}, detach {:?} (medians of {times})", median(attach), median(detach));
    }
    Ok(())
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}
