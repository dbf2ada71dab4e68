//! A hundred containers, ten at a time, and their removal.

use anyhow::Result;

use crate::measure::{Samples, time};
use crate::subject::{self, Subject};
use crate::table::{Better, Table};

/// How many containers.
pub(super) const SIZE: usize = 100;
/// How many commands at a time.
const ABREAST: usize = 10;

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let subjects = subject::both()?;
    let (mut starts, mut removals) =
        ([Samples::default(), Samples::default()], [Samples::default(), Samples::default()]);
    for _ in 0..rounds.div_ceil(5) {
        for (at, subject) in subjects.iter().enumerate() {
            let (took, done) = time(|| start(subject));
            done?;
            starts[at].push_time(took);
            let (took, done) = time(|| remove(subject));
            done?;
            removals[at].push_time(took);
        }
    }
    table.add(("fleet", "start 100 containers, 10 at a time", "ms"), Better::Less, starts);
    table.add(("fleet", "remove 100 running containers, 10 at a time", "ms"), Better::Less, removals);
    Ok(())
}

/// Starts all of them.
pub(super) fn start(subject: &Subject) -> Result<()> {
    abreast(|id| {
        subject.start_container(id, &["sleep", "3600"])?.ok();
        Ok(())
    })
}

/// Removes all of them.
pub(super) fn remove(subject: &Subject) -> Result<()> {
    abreast(|id| subject.remove(id))
}

fn abreast(step: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..ABREAST)
            .map(|lane| {
                let step = &step;
                scope.spawn(move || {
                    (lane..SIZE).step_by(ABREAST).try_for_each(|number| step(&format!("fleet-{number}")))
                })
            })
            .collect();
        lanes.into_iter().try_for_each(|lane| match lane.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
