//! What the metadata store costs: commits a second, a container's start, opening, memory.
//!
//! `cargo run --release -p berth-metadata --example figures [FOLDER]`. The folder should be on a
//! disk; its file system decides what a sync costs, which is measured first.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use berth_core::{EventStream, Events, NewSnapshot, Scope};
use berth_metadata::{GcConfig, Metadata, Parts, Sharing};
use berth_types::filter::Filters;
use berth_types::{Any, Container, Envelope, Event, Labels, Namespace, Result, RuntimeInfo};

struct Nobody;

#[async_trait]
impl Events for Nobody {
    async fn publish(&self, _: &Namespace, _: Event) -> Result<()> {
        Ok(())
    }

    async fn forward(&self, _: Envelope) -> Result<()> {
        Ok(())
    }

    async fn subscribe(&self, _: Filters) -> Result<EventStream> {
        Ok(Box::pin(futures::stream::empty()))
    }
}

fn open(root: &Path) -> Result<Arc<Metadata>> {
    let native = berth_snapshot::native::open(&root.join("native"), Default::default())
        .unwrap_or_else(|_| panic!("the native snapshotter opens everywhere"));
    let parts = Parts {
        content: Arc::new(berth_content::Store::open(&root.join("content"))?),
        snapshotters: BTreeMap::from([("native".parse()?, native)]),
        mounts: None,
        events: Arc::new(Nobody),
        gc: GcConfig { startup_delay: Duration::from_hours(1), ..GcConfig::default() },
        sharing: Sharing::Shared,
    };
    Metadata::open(&root.join("meta.redb"), parts)
}

fn container(id: &str) -> Result<Container> {
    let mut container =
        Container::new(id.parse()?, RuntimeInfo { name: "io.containerd.runc.v2".into(), options: None });
    container.spec = Some(Any::new("spec", vec![b'x'; 6000]));
    container.snapshotter = "native".into();
    container.snapshot_key = id.into();
    Ok(container)
}

async fn start(metadata: &Metadata, scope: &Scope, id: &str) -> Result<(Duration, Duration)> {
    let begun = Instant::now();
    let snapshots = metadata.snapshotter(&"native".parse()?, scope)?;
    snapshots.prepare(NewSnapshot { key: id.parse()?, parent: None, labels: Labels::new() }).await?;
    let prepared = begun.elapsed();
    metadata.containers(scope).create(container(id)?).await?;
    Ok((prepared, begun.elapsed().saturating_sub(prepared)))
}

fn memory() -> String {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = |name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or("?")
            .split_whitespace()
            .nth(1)
            .unwrap_or("?")
            .to_owned()
    };
    format!("{} KiB resident, {} KiB private dirty", line("Rss:"), line("Private_Dirty:"))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let root = folder.join(format!("berth-figures-{}", std::process::id()));
    std::fs::create_dir_all(&root)?;
    let outcome = measure(&root).await;
    std::fs::remove_dir_all(&root)?;
    outcome
}

async fn measure(root: &Path) -> std::result::Result<(), Box<dyn Error>> {
    let mut file = std::fs::File::create(root.join("probe"))?;
    let begun = Instant::now();
    for _ in 0..200 {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
    }
    println!("fdatasync of a page:           {:?}", begun.elapsed() / 200);
    println!("before opening:                {}", memory());

    let begun = Instant::now();
    let metadata = open(root)?;
    println!("open, new:                     {:?}", begun.elapsed());
    let scope = Scope::new("default".parse()?);
    start(&metadata, &scope, "warm").await?;
    println!("with one container:            {}", memory());

    let (mut prepares, mut creates) = (Vec::new(), Vec::new());
    for number in 0..500 {
        let (prepare, create) = start(&metadata, &scope, &format!("one-{number}")).await?;
        prepares.push(prepare);
        creates.push(create);
    }
    prepares.sort();
    creates.sort();
    println!("snapshot record, one by one:   {:?} median, {:?} p99", prepares[250], prepares[495]);
    println!("container record, one by one:  {:?} median, {:?} p99", creates[250], creates[495]);

    let begun = Instant::now();
    let many = (0..32).map(|worker| {
        let (metadata, scope) = (Arc::clone(&metadata), scope.clone());
        tokio::spawn(async move {
            for number in 0..150 {
                metadata.containers(&scope).create(container(&format!("many-{worker}-{number}"))?).await?;
            }
            Ok::<(), berth_types::Error>(())
        })
    });
    for worker in futures::future::join_all(many).await {
        worker??;
    }
    let took = begun.elapsed();
    println!("container records, 32 writers: {:.0} a second", 4800.0 / took.as_secs_f64());

    let begun = Instant::now();
    for number in 0..2000 {
        metadata
            .containers(&scope)
            .container(&format!("many-{}-{}", number % 32, number % 150).parse()?)
            .await?;
    }
    println!("read of a container:           {:?}", begun.elapsed() / 2000);
    let begun = Instant::now();
    let all = metadata.containers(&scope).list(&Filters::default()).await?.len();
    println!("list of {all} containers:        {:?}", begun.elapsed());
    let begun = Instant::now();
    let done = metadata.collect().await?;
    println!("collection over {all} + 501:     {:?} ({:?} of it on records)", begun.elapsed(), done.elapsed);
    println!("after that:                    {}", memory());

    metadata.close().await?;
    drop(metadata);
    let size = std::fs::metadata(root.join("meta.redb"))?.len();
    let begun = Instant::now();
    let metadata = open(root)?;
    println!("open, {:.1} MB, clean:          {:?}", size as f64 / 1e6, begun.elapsed());
    metadata.containers(&scope).create(container("last")?).await?;
    std::fs::copy(root.join("meta.redb"), root.join("killed.redb"))?;
    metadata.close().await?;
    drop(metadata);
    std::fs::rename(root.join("killed.redb"), root.join("meta.redb"))?;
    let begun = Instant::now();
    let metadata = open(root)?;
    println!("open, after a kill:            {:?}", begun.elapsed());
    metadata.close().await?;
    Ok(())
}
