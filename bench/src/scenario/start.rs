//! From the return key to the first byte, and to the prompt again.

use std::time::Duration;

use anyhow::Result;
use testkit::Invocation;

use crate::measure::{Samples, time};
use crate::subject::{self, Subject};
use crate::table::{Better, Table};

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let subjects = subject::both()?;
    let own = by_turns(rounds, &subjects, |subject, id| subject.run(id, &["true"]))?;
    table.add(("start", "run --rm true, own command line", "ms"), Better::Less, own);
    let first =
        samples(rounds, &subjects, |subject, id| Ok(subject.run(id, &["echo", "here"])?.first_byte()))?;
    table.add(("start", "run --rm, to the first byte out", "ms"), Better::Less, first);
    let same = by_turns(rounds, &subjects, |subject, id| {
        Ok(subject.ctr()?.args(["run", "--rm", subject::IMAGE, id, "true"]))
    })?;
    table.add(("start", "ctr run --rm true on both", "ms"), Better::Less, same);
    Ok(())
}

/// Times one command on each subject in turn.
pub(super) fn by_turns(
    rounds: usize,
    subjects: &[Subject; 2],
    command: impl Fn(&Subject, &str) -> Result<Invocation>,
) -> Result<[Samples; 2]> {
    samples(rounds, subjects, |subject, id| {
        let command = command(subject, id)?;
        Ok(time(|| command.ok()).0)
    })
}

/// Takes a time on each subject in turn; the first round warms up and does not count.
fn samples(
    rounds: usize,
    subjects: &[Subject; 2],
    step: impl Fn(&Subject, &str) -> Result<Duration>,
) -> Result<[Samples; 2]> {
    let mut samples = [Samples::default(), Samples::default()];
    for round in 0..=rounds {
        for (subject, samples) in subjects.iter().zip(&mut samples) {
            let took = step(subject, &format!("bench-{round}"))?;
            if round > 0 {
                samples.push_time(took);
            }
        }
    }
    Ok(samples)
}
