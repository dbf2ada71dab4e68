//! What a test cannot do without. Missing things are named on stderr and the test returns; with
//! `CI=true`, where everything has to be there, they fail it.
//!
//! ```no_run
//! # fn test() {
//! let Ok(ctr) = testkit::need::program("ctr") else { return };
//! # let _ = ctr;
//! # }
//! ```

use std::path::PathBuf;

use crate::programs;

/// A thing that is not there. Its message has been printed already.
#[derive(Debug, Clone, thiserror::Error)]
#[error("skipped: {0} is missing")]
pub struct Missing(String);

/// Root's rights.
pub fn root() -> Result<(), Missing> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(missing("root's rights")) }
}

/// A program of that name: one of the peers' or one in `PATH`. See [`programs::find`].
pub fn program(name: &str) -> Result<PathBuf, Missing> {
    programs::find(name).ok_or_else(|| missing(&format!("the program {name}")))
}

/// A file or folder of the machine, such as `/dev/loop-control`.
pub fn path(path: &str) -> Result<PathBuf, Missing> {
    let wanted = PathBuf::from(path);
    if wanted.exists() { Ok(wanted) } else { Err(missing(path)) }
}

/// A condition that the test looked at itself.
pub fn that(holds: bool, what: &str) -> Result<(), Missing> {
    if holds { Ok(()) } else { Err(missing(what)) }
}

fn missing(what: &str) -> Missing {
    let missing = Missing(what.to_owned());
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{missing}, and CI=true");
    eprintln!("{missing}");
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_every_machine_has_is_found() {
        assert!(program("sh").expect("every machine has a shell").is_absolute());
    }
}
