//! Ids, names and the words that containerd has for things of Kubernetes.

use std::fmt::Write as _;
use std::io::Read as _;

use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Labels, Result};

/// A label of what the interface makes, as in containerd.
pub(crate) const KIND: &str = "io.cri-containerd.kind";
/// Its value for a pod's record.
pub(crate) const SANDBOX: &str = "sandbox";
/// Its value for a container's record.
pub(crate) const CONTAINER: &str = "container";

/// The longest label, key and value together, in bytes.
const LONGEST_LABEL: usize = 4096;

/// A new id: 64 hexadecimal digits of chance.
pub(crate) fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::io("cannot read /dev/urandom for a new id", error))?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// What makes a pod this one: the words of its metadata.
pub(crate) fn of_pod(config: &proto::PodSandboxConfig) -> Result<String> {
    let metadata = pod_metadata(config)?;
    let proto::PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
    Ok(format!("{name}_{namespace}_{uid}_{attempt}"))
}

/// The metadata of a pod, which a request must have.
pub(crate) fn pod_metadata(config: &proto::PodSandboxConfig) -> Result<&proto::PodSandboxMetadata> {
    config
        .metadata
        .as_ref()
        .ok_or_else(|| Error::invalid_argument("the sandbox config must include metadata"))
}

/// What makes a container this one: its own words and those of its pod.
pub(crate) fn of_container(config: &proto::ContainerConfig, pod: &str) -> Result<String> {
    let metadata = config
        .metadata
        .as_ref()
        .ok_or_else(|| Error::invalid_argument("the container config must include metadata"))?;
    if metadata.name.is_empty() {
        return Err(Error::invalid_argument("the container config must include a name"));
    }
    Ok(format!("{}_{pod}_{}", metadata.name, metadata.attempt))
}

/// The labels of a record: those of the kubelet that a record can have, and what kind of thing it is.
pub(crate) fn labels<'a>(kind: &str, given: impl IntoIterator<Item = (&'a String, &'a String)>) -> Labels {
    let fits =
        |(key, value): &(&String, &String)| key.len() + value.len() <= LONGEST_LABEL && !key.is_empty();
    let mut labels: Labels =
        given.into_iter().filter(fits).map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.insert(KIND.to_owned(), kind.to_owned());
    labels
}

/// Whether an image may not set a label: it means something to a daemon or to this interface.
pub(crate) fn is_reserved(label: &str) -> bool {
    ["containerd.io/", "io.cri-containerd", "io.berth", "berth/"]
        .iter()
        .any(|prefix| label.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_long_and_never_twice_the_same() {
        let (one, two) = (new_id().unwrap(), new_id().unwrap());
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()) && one != two);
    }

    #[test]
    fn a_label_that_no_record_can_have_is_left_out() {
        let long = "x".repeat(LONGEST_LABEL);
        let given = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), long)];
        let labels = labels(CONTAINER, given.iter().map(|(key, value)| (key, value)));
        assert_eq!(
            labels.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), "1".to_owned()), (KIND.to_owned(), CONTAINER.to_owned())]
        );
    }
}
