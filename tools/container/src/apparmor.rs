//! AppArmor: whether the machine has it, which profiles it knows, and a profile of our own for containers.
//!
//! Profiles live in the kernel and are gone after a reboot, so ours is loaded by whoever is about to need it, not once
//! at an installation. AppArmor's own `apparmor_parser` compiles it; a machine that lacks the program is treated as
//! one without AppArmor unless somebody asks for a profile by name.

use std::fs;
use std::path::Path;

use berth_oci::runtime::Hook;

use crate::container::hooks;
use crate::error::{Error, Result};

/// The name of the profile that containers have unless they ask for another.
pub const DEFAULT: &str = "berth-default";

/// What [`DEFAULT`] allows and denies.
const PROFILE: &str = include_str!("apparmor/berth-default");
/// The profiles that the kernel knows, a line each: `NAME (MODE)`.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Where distributions have the program that compiles profiles.
const PARSERS: [&str; 3] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];
/// Seconds that it may take. It takes a fraction of one.
const PATIENCE: i64 = 60;

/// Whether the kernel confines by AppArmor.
pub fn is_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether containers get [`DEFAULT`] without asking: AppArmor is there, and so is what loads a profile.
pub fn has_default() -> bool {
    is_enabled() && (parser().is_some() || is_loaded(DEFAULT) == Some(true))
}

/// Makes sure that a profile can be applied: loads ours where it is not yet, and fails for another that nobody has
/// loaded. Idempotent; blocks while the program runs.
pub fn provide(name: &str) -> Result<()> {
    let unsupported = |what: String| Err(Error::Unsupported { what });
    if !is_enabled() {
        return unsupported(format!(
            "AppArmor profile {name:?} is asked for, but AppArmor is not enabled on this machine: ask for none \
             (apparmor=unconfined, or no process.apparmorProfile), or boot with AppArmor"
        ));
    }
    match is_loaded(name) {
        Some(false) if name == DEFAULT => load(),
        Some(false) => unsupported(format!(
            "AppArmor profile {name:?} is not loaded on this machine: load it with apparmor_parser -r FILE, or ask for \
             another"
        )),
        // Where the list cannot be read, the kernel answers for itself.
        Some(true) | None => Ok(()),
    }
}

/// Whether the kernel has a profile of this name; `None` where it does not say, or for a name that is an expression.
fn is_loaded(name: &str) -> Option<bool> {
    if name.contains("//&") || name.starts_with(':') || name == "unconfined" {
        return None;
    }
    let profiles = fs::read_to_string(LOADED).ok()?;
    Some(profiles.lines().filter_map(|line| line.rsplit_once(" (")).any(|(loaded, _)| loaded == name))
}

fn parser() -> Option<&'static str> {
    PARSERS.into_iter().find(|path| Path::new(path).exists())
}

/// Compiles our profile into the kernel. Two at once do the same, and the last one counts.
fn load() -> Result<()> {
    let Some(path) = parser() else {
        let what = format!(
            "AppArmor profile {DEFAULT:?} cannot be loaded, for there is no apparmor_parser: install the package \
             apparmor, or run with apparmor=unconfined"
        );
        return Err(Error::Unsupported { what });
    };
    let words = ["apparmor_parser", "--replace", "--skip-cache", "--quiet"];
    let command = Hook {
        path: path.into(),
        args: words.map(str::to_owned).to_vec(),
        timeout: Some(PATIENCE),
        ..Hook::default()
    };
    let ran = hooks::feed(&command, PROFILE.as_bytes());
    // Its status can be lost to a caller that reaps every child; what the kernel knows now is what counts.
    match (ran, is_loaded(DEFAULT)) {
        (Ok(()), Some(true) | None) => Ok(()),
        (Ok(()), Some(false)) => Err(failed("it said nothing, and the profile is not there")),
        (Err(what), _) => Err(failed(&what)),
    }
}

fn failed(what: &str) -> Error {
    Error::Unsupported {
        what: format!("AppArmor profile {DEFAULT:?} cannot be loaded: {what}; run with apparmor=unconfined"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_has_the_name_that_containers_ask_for() {
        assert!(PROFILE.contains(&format!("profile {DEFAULT} flags=")));
        assert!(PROFILE.len() < 4096, "a pipe takes it at once");
    }

    #[test]
    fn a_profile_without_apparmor_is_an_error_with_a_way_out() {
        if is_enabled() {
            return;
        }
        assert!(!has_default());
        for name in [DEFAULT, "another"] {
            let text = provide(name).err().map(|error| error.chain()).unwrap_or_default();
            assert!(text.contains(name) && text.contains("unconfined"), "{text}");
        }
    }
}
