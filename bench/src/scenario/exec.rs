//! A process more in a running container.

use anyhow::Result;

use super::start::by_turns;
use crate::subject;
use crate::table::{Better, Table};

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let subjects = subject::both()?;
    for subject in &subjects {
        subject.start_container("target", &["sleep", "3600"])?.ok();
        subject.start_with_ctr("ctr-target", &["sleep", "3600"])?.ok();
    }
    let own = by_turns(rounds, &subjects, |subject, _| subject.exec("target", &["true"]))?;
    table.add(("exec", "exec true, own command line", "ms"), Better::Less, own);
    let same = by_turns(rounds, &subjects, |subject, id| {
        Ok(subject.ctr()?.args(["tasks", "exec", "--exec-id", id, "ctr-target", "true"]))
    })?;
    table.add(("exec", "ctr tasks exec true on both", "ms"), Better::Less, same);
    for subject in &subjects {
        subject.remove("target")?;
        subject.remove_with_ctr("ctr-target")?;
    }
    Ok(())
}
