//! Typed messages which are passed on unread.

use berth_types::{Any, Error, Result};
use prost::Name;

/// Puts a typed message on the wire.
pub fn any(any: Any) -> prost_types::Any {
    let Any { type_url, value } = any;
    prost_types::Any { type_url, value }
}

/// Takes a typed message from the wire.
pub fn from_any(any: prost_types::Any) -> Any {
    let prost_types::Any { type_url, value } = any;
    Any { type_url, value }
}

/// Encodes a message under its full name, without a domain, as containerd writes it.
pub fn pack<M: Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Decodes a message of a known type. Like containerd, a domain before the name is accepted.
pub fn unpack<M: Name + Default>(any: &Any) -> Result<M> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != M::full_name() {
        return Err(Error::invalid_argument(format!(
            "expected a {}, got a {:?}",
            M::full_name(),
            any.type_url
        )));
    }
    M::decode(any.value.as_slice())
        .map_err(|source| Error::invalid_argument(format!("malformed {}", M::full_name())).caused_by(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::events::TaskStart;

    #[test]
    fn names_have_no_domain_and_a_foreign_domain_is_accepted() {
        let start = TaskStart { container_id: "a".into(), pid: 7 };
        let mut packed = pack(&start);
        assert_eq!(packed.type_url, "containerd.events.TaskStart");
        assert_eq!(unpack::<TaskStart>(&packed).unwrap(), start);
        packed.type_url.insert_str(0, "type.googleapis.com/");
        assert_eq!(unpack::<TaskStart>(&packed).unwrap(), start);
    }

    #[test]
    fn another_type_and_broken_bytes_are_refused() {
        assert!(unpack::<TaskStart>(&Any::new("containerd.events.TaskExit", [])).is_err());
        assert!(unpack::<TaskStart>(&Any::new("containerd.events.TaskStart", [0x0a, 0xff])).is_err());
    }
}
