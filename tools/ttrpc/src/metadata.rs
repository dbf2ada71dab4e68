//! The headers of a call.

use crate::wire::KeyValue;

/// The key under which containerd's ttrpc clients send the namespace of a call.
pub const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";

/// The headers of a call: keys in lower case, in the order in which they came, a key may repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata(Vec<(String, String)>);

impl Metadata {
    /// Headers that only say the namespace.
    pub fn for_namespace(namespace: &str) -> Self {
        Self::default().with(NAMESPACE_KEY, namespace)
    }

    /// Adds one header.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.push((key.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The first value of `key`, which is compared without regard to case.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    /// The namespace of the call, when its sender named one.
    pub fn namespace(&self) -> Option<&str> {
        self.first(NAMESPACE_KEY)
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl From<Vec<KeyValue>> for Metadata {
    fn from(pairs: Vec<KeyValue>) -> Self {
        Self(pairs.into_iter().map(|pair| (pair.key.to_ascii_lowercase(), pair.value)).collect())
    }
}

impl From<&Metadata> for Vec<KeyValue> {
    fn from(metadata: &Metadata) -> Self {
        metadata.0.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_whatever_its_case() {
        let metadata = Metadata::default().with("Containerd-Namespace-TTRPC", "moby");
        assert_eq!(metadata.namespace(), Some("moby"));
        assert_eq!(metadata.first("absent"), None);
    }
}
