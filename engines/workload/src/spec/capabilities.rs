//! Capabilities by name.

use berth_oci::runtime::{Capabilities, default};
use berth_sys::capabilities::bounding_set;
use berth_types::{Error, Result};

/// The capabilities that there are to give: the kernel's, less those that this process and what it starts cannot have
/// (capabilities(7), the bounding set), as in a container or beneath a hardened service manager.
pub fn known() -> Vec<String> {
    Capabilities::names_of(bounding_set())
}

/// What is left of the defaults after `--cap-add`, `--cap-drop` and `--privileged`.
pub(super) fn sets(privileged: bool, add: &[String], drop: &[String]) -> Result<Capabilities> {
    let (add, drop) = (names(add)?, names(drop)?);
    let mut granted: Vec<String> = if privileged || add.iter().any(|name| name == "ALL") {
        known()
    } else if drop.iter().any(|name| name == "ALL") {
        Vec::new()
    } else {
        default::CAPABILITIES.map(str::to_owned).to_vec()
    };
    for name in add.into_iter().filter(|name| name != "ALL") {
        if !granted.contains(&name) {
            granted.push(name);
        }
    }
    granted.retain(|name| privileged || !drop.contains(name));
    // The inheritable and ambient sets stay empty: what they hold passes to programs that should not have it.
    Ok(Capabilities {
        bounding: granted.clone(),
        effective: granted.clone(),
        permitted: granted,
        ..Capabilities::default()
    })
}

fn names(list: &[String]) -> Result<Vec<String>> {
    let one = |text: &String| {
        let upper = text.trim().to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(upper);
        }
        let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if Capabilities::NAMES.contains(&name.as_str()) {
            Ok(name)
        } else {
            Err(Error::invalid_argument(format!("Unknown capability: \"{text}\"")))
        }
    };
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(privileged: bool, add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        sets(privileged, &owned(add), &owned(drop)).unwrap().bounding
    }

    #[test]
    fn adding_and_dropping_is_dockers() {
        assert_eq!(granted(false, &[], &[]).len(), 14);
        assert_eq!(granted(false, &["net_admin"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert!(!granted(false, &["ALL"], &["CAP_SYS_ADMIN"]).contains(&"CAP_SYS_ADMIN".to_owned()));
        assert!(!granted(false, &[], &["chown"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(granted(true, &[], &["ALL"]), known());
        assert!(sets(false, &["FLY".to_owned()], &[]).is_err());
    }

    #[test]
    fn nothing_is_inherited() {
        let sets = sets(true, &[], &[]).unwrap();
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    }
}
