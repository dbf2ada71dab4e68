//! Names of containers: unique in a namespace, made up when nobody gives one.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use berth_types::{ContainerId, Error, Result};

use crate::home::{Home, make};

const LEFT: [&str; 48] = [
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever", "cosy", "deft",
    "eager", "early", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "happy",
    "hardy", "honest", "jolly", "keen", "kind", "lively", "lucid", "mellow", "merry", "neat", "nimble",
    "noble", "patient", "plucky", "quick", "quiet", "ready", "serene", "sharp", "silver", "steady", "sunny",
    "swift", "tidy", "warm",
];

const RIGHT: [&str; 48] = [
    "anchor", "barge", "beacon", "bollard", "bosun", "bow", "breeze", "brig", "buoy", "capstan", "channel",
    "clipper", "cog", "compass", "coral", "current", "cutter", "davit", "dock", "dory", "ferry", "fjord",
    "galley", "gannet", "harbour", "hawser", "helm", "hull", "jetty", "keel", "ketch", "lagoon", "lantern",
    "mast", "mooring", "oar", "pier", "pilot", "quay", "rudder", "sail", "schooner", "sextant", "skiff",
    "sloop", "tide", "tiller", "wharf",
];

/// A new id: 64 hexadecimal digits.
pub fn new_id() -> ContainerId {
    use std::fmt::Write;
    let mut bytes = [0_u8; 32];
    random(&mut bytes);
    let mut text = String::with_capacity(64);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    text.parse().expect("hexadecimal digits are an identifier")
}

pub(crate) fn random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => unreachable!("getrandom(2) cannot fail with {error} on a kernel with containers"),
        }
    }
}

/// A made-up name such as `keen_harbour`; from the second try on with a number.
fn made_up(attempt: u32) -> String {
    let mut bytes = [0_u8; 4];
    random(&mut bytes);
    let left = LEFT[bytes[0] as usize % LEFT.len()];
    let right = RIGHT[bytes[1] as usize % RIGHT.len()];
    match attempt {
        0 => format!("{left}_{right}"),
        1..20 => format!("{left}_{right}{}", bytes[2] % 100),
        _ => format!("{left}_{right}_{:04x}", u16::from_le_bytes([bytes[2], bytes[3]])),
    }
}

/// Refuses what Docker does not take as a name.
pub fn check(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.len() > 1
        && name.len() <= 200
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if good {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Takes a name for a container, atomically; without one, makes one up. [`release`] gives it back.
pub fn reserve(home: &Home, name: Option<&str>, id: &ContainerId) -> Result<String> {
    if let Some(name) = name {
        check(name)?;
        return match take(home, name, id)? {
            Taken::Yes => Ok(name.to_owned()),
            Taken::By(owner) => Err(in_use(name, &owner)),
        };
    }
    for attempt in 0..1000 {
        let name = made_up(attempt);
        if let Taken::Yes = take(home, &name, id)? {
            return Ok(name);
        }
    }
    Err(Error::resource_exhausted("no name for the container is free: give one with --name"))
}

/// The answer to somebody who wants a name that another container has.
pub fn in_use(name: &str, owner: &str) -> Error {
    Error::already_exists(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    ))
}

/// Gives a name back, if this container has it.
pub fn release(home: &Home, name: &str, id: &ContainerId) {
    let path = home.names().join(name);
    if check(name).is_ok() && fs::read_to_string(&path).is_ok_and(|owner| owner.trim() == id.as_str()) {
        // A name that cannot be released is taken over by the next who finds its owner gone.
        let _ = fs::remove_file(path);
    }
}

enum Taken {
    Yes,
    By(String),
}

fn take(home: &Home, name: &str, id: &ContainerId) -> Result<Taken> {
    let path = home.names().join(name);
    let failed = |error| Error::io(format!("cannot reserve the name {name}"), error);
    for attempt in 0..3 {
        let mut options = fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                file.write_all(id.as_str().as_bytes()).map_err(failed)?;
                return Ok(Taken::Yes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt == 0 => make(&home.names())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let owner = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                if owner == id.as_str() {
                    return Ok(Taken::Yes);
                }
                let gone = owner.parse::<ContainerId>().is_ok_and(|owner| !home.container(&owner).exists());
                if !gone {
                    return Ok(Taken::By(owner));
                }
                // Its container was removed by somebody who does not know of names, or a crash came between.
                let _ = fs::remove_file(&path);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Taken::By(String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::Scratch;

    fn home(scratch: &Scratch) -> Home {
        Home::new(scratch.path("home"), "test".parse().unwrap())
    }

    #[test]
    fn a_name_has_one_owner_until_it_is_given_back() {
        let scratch = Scratch::new();
        let home = home(&scratch);
        let (one, other) = (new_id(), new_id());
        home.make_container(&one).unwrap();
        assert_eq!(reserve(&home, Some("web"), &one).unwrap(), "web");
        let refused = reserve(&home, Some("web"), &other).unwrap_err();
        assert!(refused.to_string().contains(one.as_str()), "{refused}");
        release(&home, "web", &other);
        assert!(reserve(&home, Some("web"), &other).is_err());
        release(&home, "web", &one);
        assert_eq!(reserve(&home, Some("web"), &other).unwrap(), "web");
    }

    #[test]
    fn a_name_whose_container_is_gone_is_free() {
        let scratch = Scratch::new();
        let home = home(&scratch);
        let (one, other) = (new_id(), new_id());
        home.make_container(&one).unwrap();
        reserve(&home, Some("web"), &one).unwrap();
        home.remove_container(&one).unwrap();
        assert_eq!(reserve(&home, Some("web"), &other).unwrap(), "web");
    }

    #[test]
    fn made_up_names_do_not_run_out_and_are_valid() {
        let scratch = Scratch::new();
        let home = home(&scratch);
        for _ in 0..100 {
            let id = new_id();
            home.make_container(&id).unwrap();
            check(&reserve(&home, None, &id).unwrap()).unwrap();
        }
    }

    #[test]
    fn names_are_dockers() {
        for bad in ["", "a", "-a", "a b", "ä1", "a/b", "../x"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
