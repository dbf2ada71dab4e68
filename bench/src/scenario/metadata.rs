//! Records a second over the API, with one client of ours on both.

use std::time::Instant;

use anyhow::Result;
use berth_client::Client;
use berth_core::{Catalog, Scope};
use berth_types::{Any, Container, ContainerId, RuntimeInfo};
use futures::stream::{self, StreamExt, TryStreamExt};
use testkit::Kind;

use crate::measure::Samples;
use crate::subject::Subject;
use crate::table::{Better, Table};

/// How many records a round makes, reads and deletes.
const RECORDS: usize = 500;
/// How many requests are under way at once.
const ABREAST: usize = 16;

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let subjects = [Subject::empty(Kind::Berth)?, Subject::empty(Kind::Containerd)?];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut figures = [const { [const { None }; 3] }; 2];
    for _ in 0..rounds.div_ceil(2) {
        for (subject, figures) in subjects.iter().zip(&mut figures) {
            for (figure, rate) in figures.iter_mut().zip(runtime.block_on(round(subject))?) {
                figure.get_or_insert_with(Samples::default).push(rate);
            }
        }
    }
    let [berth, containerd] = figures.map(|figures| figures.map(Option::unwrap_or_default));
    for ((what, berth), containerd) in
        ["create a container record", "read one", "delete one"].into_iter().zip(berth).zip(containerd)
    {
        table.add(("metadata", what, "1/s"), Better::More, [berth, containerd]);
    }
    Ok(())
}

/// Creates, reads and deletes; the rates of each.
async fn round(subject: &Subject) -> Result<[f64; 3]> {
    let client = Client::connect(subject.daemon.address());
    let containers = client.containers(&Scope::new(subject.daemon.tag().parse()?));
    let containers = &containers;
    let ids = (0..RECORDS)
        .map(|number| format!("record-{number}").parse())
        .collect::<Result<Vec<ContainerId>, _>>()?;
    let created = rate(&ids, |id| async move {
        let runtime = RuntimeInfo { name: "io.containerd.runc.v2".to_owned(), options: None };
        let mut container = Container::new(id, runtime);
        container.spec = Some(Any::new("types.containerd.io/opencontainers/runtime-spec/1/Spec", "{}"));
        containers.create(container).await.map(drop)
    });
    let created = created.await?;
    let read = rate(&ids, |id| async move { containers.container(&id).await.map(drop) }).await?;
    let deleted = rate(&ids, |id| async move { containers.delete(&id).await }).await?;
    Ok([created, read, deleted])
}

async fn rate<F>(ids: &[ContainerId], step: impl Fn(ContainerId) -> F) -> Result<f64>
where
    F: Future<Output = berth_types::Result<()>>,
{
    let began = Instant::now();
    stream::iter(ids.iter().cloned()).map(step).buffer_unordered(ABREAST).try_collect::<Vec<()>>().await?;
    Ok(ids.len() as f64 / began.elapsed().as_secs_f64())
}
