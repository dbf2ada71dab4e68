//! Freezing and thawing all processes of a cgroup.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Cgroup, Hierarchies, file};
use crate::error::{Doing as _, Error, Result};

/// How long freezing may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The two ways to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freeze {
    Frozen,
    Thawed,
}

pub(super) fn set(cgroup: &Cgroup, wanted: Freeze) -> Result<()> {
    if let Hierarchies::V2(own) = &cgroup.hierarchies {
        return v2(own, wanted);
    }
    match cgroup.controller("freezer") {
        Some(own) => v1(own, wanted),
        None => Err(Error::Unsupported { what: "cannot pause: this machine has no freezer cgroup".into() }),
    }
}

pub(super) fn is_frozen(cgroup: &Cgroup) -> bool {
    if let Hierarchies::V2(own) = &cgroup.hierarchies {
        return file::read(own, "cgroup.freeze").trim() == "1";
    }
    let state = cgroup.controller("freezer").map(|own| file::read(own, "freezer.state"));
    state.is_some_and(|state| matches!(state.trim(), "FROZEN" | "FREEZING"))
}

/// v2 tells by an event on `cgroup.events`.
fn v2(own: &Path, wanted: Freeze) -> Result<()> {
    let (value, line) = match wanted {
        Freeze::Frozen => ("1", "frozen 1"),
        Freeze::Thawed => ("0", "frozen 0"),
    };
    file::write(own, "cgroup.freeze", value)?;
    let path = own.join("cgroup.events");
    let mut events = File::open(&path).doing(|| format!("cannot open {}", path.display()))?;
    let begun = Instant::now();
    let mut text = String::new();
    loop {
        text.clear();
        let read = events.rewind().and_then(|()| events.read_to_string(&mut text));
        read.doing(|| format!("cannot read {}", path.display()))?;
        if text.lines().any(|l| l == line) {
            return Ok(());
        }
        let Some(left) = PATIENCE.checked_sub(begun.elapsed()) else { return Err(stuck(own, wanted)) };
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        // A signal only makes the loop turn once more.
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left));
    }
}

/// v1 has no event, and a fork at the wrong moment leaves it `FREEZING` until it is asked again.
fn v1(own: &Path, wanted: Freeze) -> Result<()> {
    let word = match wanted {
        Freeze::Frozen => "FROZEN",
        Freeze::Thawed => "THAWED",
    };
    let begun = Instant::now();
    let mut pause = Duration::from_micros(20);
    loop {
        file::write(own, "freezer.state", word)?;
        if file::read(own, "freezer.state").trim() == word {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            if wanted == Freeze::Frozen {
                let _ = file::attempt(own, "freezer.state", "THAWED");
            }
            return Err(stuck(own, wanted));
        }
        rest(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn stuck(own: &Path, wanted: Freeze) -> Error {
    let word = if wanted == Freeze::Frozen { "freeze" } else { "thaw" };
    Error::State { what: format!("unable to {word} cgroup {} within {PATIENCE:?}", own.display()) }
}

/// A pause where the kernel has no event to wait for.
pub(super) fn rest(time: Duration) {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let _ = poll(&mut [], Some(&time));
}
