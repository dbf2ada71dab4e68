//! Times what a container's start asks of a snapshotter:
//! `cargo run --release -p berth-snapshot --example rounds -- FOLDER [ROUNDS]`.

use std::time::{Duration, Instant};

use berth_core::{NewSnapshot, Snapshotter};
use berth_snapshot::overlayfs;
use berth_types::{Labels, SnapshotKey};

fn key(name: &str) -> SnapshotKey {
    name.parse().expect("a key that is not empty")
}

fn new(name: &str, parent: Option<&str>) -> NewSnapshot {
    NewSnapshot { key: key(name), parent: parent.map(key), labels: Labels::new() }
}

async fn rounds(snapshots: &dyn Snapshotter, count: usize) -> [Duration; 3] {
    let mut spent = [Duration::ZERO; 3];
    for number in 0..count {
        let name = format!("container-{number}");
        let start = Instant::now();
        snapshots.prepare(new(&name, Some("base"))).await.expect("prepare");
        spent[0] += start.elapsed();
        let start = Instant::now();
        snapshots.mounts(&key(&name)).await.expect("mounts");
        spent[1] += start.elapsed();
        if number % 2 == 0 {
            let start = Instant::now();
            snapshots.remove(&key(&name)).await.expect("remove");
            spent[2] += start.elapsed();
        }
    }
    spent
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("a folder for the snapshots");
    let count: usize = arguments.next().map_or(1000, |text| text.parse().expect("a number of rounds"));
    let open = || overlayfs::open(folder.as_ref(), overlayfs::Config::default()).expect("overlayfs");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let start = Instant::now();
    let snapshots = open();
    println!("open empty    {:?}", start.elapsed());
    let spent = runtime.block_on(async {
        snapshots.prepare(new("first", None)).await.expect("prepare");
        let start = Instant::now();
        snapshots.commit(&key("base"), &key("first"), Labels::new()).await.expect("commit");
        println!("commit        {:?}", start.elapsed());
        rounds(&*snapshots, count).await
    });
    let each = |what: &str, spent: Duration, count: usize| {
        println!("{what:<13} {:?} each", spent / u32::try_from(count.max(1)).unwrap_or(1));
    };
    each("prepare", spent[0], count);
    each("mounts", spent[1], count);
    each("remove", spent[2], count / 2);
    drop(snapshots);
    let start = Instant::now();
    let snapshots = open();
    println!("open again    {:?} with {} snapshots", start.elapsed(), count / 2 + 1);
    let start = Instant::now();
    runtime.block_on(snapshots.cleanup()).expect("cleanup");
    println!("cleanup       {:?}", start.elapsed());
}
