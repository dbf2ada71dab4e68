//! From exec of the daemon to its first answer, on empty folders, and with a hundred containers running.

use anyhow::Result;
use testkit::Kind;

use super::fleet;
use crate::measure::{Samples, time};
use crate::subject::{self, Subject};
use crate::table::{Better, Table};

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let mut subjects = [Subject::empty(Kind::Berth)?, Subject::empty(Kind::Containerd)?];
    let idle = restarts(rounds, &mut subjects);
    table.add(("restart", "daemon start to first answer", "ms"), Better::Less, idle);
    drop(subjects);

    let mut subjects = subject::both()?;
    subjects.iter().try_for_each(fleet::start)?;
    let loaded = restarts(rounds.div_ceil(2), &mut subjects);
    table.add(("restart", "the same with 100 containers running", "ms"), Better::Less, loaded);
    subjects.iter().try_for_each(fleet::remove)
}

fn restarts(rounds: usize, subjects: &mut [Subject; 2]) -> [Samples; 2] {
    let mut samples = [Samples::default(), Samples::default()];
    for _ in 0..rounds {
        for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
            subject.daemon.kill();
            samples.push_time(time(|| subject.daemon.restart()).0);
        }
    }
    samples
}
