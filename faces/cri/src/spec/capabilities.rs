//! Capabilities by the names that Kubernetes has for them: without `CAP_`.

use berth_oci::runtime::{Capabilities, default};
use berth_proto::runtime::v1 as proto;
use berth_sys::capabilities::bounding_set;
use berth_types::{Error, Result};

/// Everything that this daemon can give.
pub(super) fn all() -> Capabilities {
    sets(Capabilities::names_of(bounding_set()), Vec::new())
}

/// What is left of the defaults after what was added and dropped.
pub(super) fn of(wanted: &proto::Capability) -> Result<Capabilities> {
    let (add, drop) = (names(&wanted.add_capabilities)?, names(&wanted.drop_capabilities)?);
    let ambient = names(&wanted.add_ambient_capabilities)?;
    let has_all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut granted: Vec<String> = if has_all(&add) {
        Capabilities::names_of(bounding_set())
    } else if has_all(&drop) {
        Vec::new()
    } else {
        default::CAPABILITIES.map(str::to_owned).into()
    };
    for name in add.into_iter().chain(ambient.iter().cloned()).filter(|name| name != "ALL") {
        if !granted.contains(&name) {
            granted.push(name);
        }
    }
    granted.retain(|name| !drop.contains(name));
    let ambient = ambient.into_iter().filter(|name| granted.contains(name)).collect();
    Ok(sets(granted, ambient))
}

/// The inheritable set stays as small as the ambient one, which needs it: what is in it passes to programs that should
/// not have it.
fn sets(granted: Vec<String>, ambient: Vec<String>) -> Capabilities {
    Capabilities {
        bounding: granted.clone(),
        effective: granted.clone(),
        permitted: granted,
        inheritable: ambient.clone(),
        ambient,
    }
}

fn names(list: &[String]) -> Result<Vec<String>> {
    let one = |text: &String| {
        let upper = text.to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(upper);
        }
        let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if Capabilities::NAMES.contains(&name.as_str()) {
            return Ok(name);
        }
        Err(Error::invalid_argument(format!("{text:?} is no capability that Linux has")))
    };
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let wanted = proto::Capability {
            add_capabilities: owned(add),
            drop_capabilities: owned(drop),
            ..Default::default()
        };
        of(&wanted).unwrap().effective
    }

    #[test]
    fn what_is_added_and_dropped_starts_from_the_defaults() {
        let defaults: Vec<String> = default::CAPABILITIES.map(str::to_owned).into();
        assert_eq!(granted(&[], &[]), defaults);
        assert!(granted(&["NET_ADMIN"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!granted(&[], &["chown"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(granted(&["SYS_TIME"], &["ALL"]), ["CAP_SYS_TIME"]);
        assert!(granted(&[], &["ALL"]).is_empty());
        assert!(granted(&["ALL"], &["SYS_ADMIN"]).iter().all(|name| name != "CAP_SYS_ADMIN"));
        assert!(
            of(&proto::Capability { add_capabilities: vec!["NOPE".into()], ..Default::default() }).is_err()
        );
    }

    #[test]
    fn nothing_is_inherited_unless_it_is_ambient() {
        let wanted =
            proto::Capability { add_ambient_capabilities: vec!["NET_RAW".into()], ..Default::default() };
        let sets = of(&wanted).unwrap();
        assert_eq!(sets.inheritable, ["CAP_NET_RAW"]);
        assert_eq!(sets.ambient, ["CAP_NET_RAW"]);
        assert!(of(&proto::Capability::default()).unwrap().inheritable.is_empty());
    }
}
