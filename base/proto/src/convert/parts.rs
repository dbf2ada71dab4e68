//! The parts which many records share.

use std::collections::HashMap;

use berth_types::{Descriptor, Error, FieldMask, Labels, Mount, Platform};

use super::{signed, unsigned};
use crate::containerd::types as wire;

/// Labels for the wire.
pub fn labels(labels: Labels) -> HashMap<String, String> {
    labels.into_iter().collect()
}

/// Labels from the wire.
pub fn from_labels(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}

/// A field mask for the wire; one that means everything is left out.
pub fn field_mask(mask: &FieldMask) -> Option<prost_types::FieldMask> {
    (!mask.is_all()).then(|| prost_types::FieldMask { paths: mask.paths().to_vec() })
}

/// A field mask from the wire; a missing one means everything.
pub fn from_field_mask(mask: Option<prost_types::FieldMask>) -> FieldMask {
    FieldMask::new(mask.unwrap_or_default().paths)
}

/// A list of mounts for the wire.
pub fn mounts(mounts: impl IntoIterator<Item = Mount>) -> Vec<wire::Mount> {
    mounts.into_iter().map(Into::into).collect()
}

/// A list of mounts from the wire.
pub fn mounts_from(mounts: impl IntoIterator<Item = wire::Mount>) -> Vec<Mount> {
    mounts.into_iter().map(Into::into).collect()
}

impl From<Mount> for wire::Mount {
    fn from(mount: Mount) -> Self {
        let Mount { kind, source, target, options } = mount;
        Self { r#type: kind, source, target, options }
    }
}

impl From<wire::Mount> for Mount {
    fn from(mount: wire::Mount) -> Self {
        let wire::Mount { r#type, source, target, options } = mount;
        Self { kind: r#type, source, target, options }
    }
}

impl From<Platform> for wire::Platform {
    fn from(platform: Platform) -> Self {
        let Platform { architecture, os, os_version, os_features, variant } = platform;
        Self { os, architecture, variant, os_version, os_features }
    }
}

impl From<wire::Platform> for Platform {
    fn from(platform: wire::Platform) -> Self {
        let wire::Platform { os, architecture, variant, os_version, os_features } = platform;
        Self { architecture, os, os_version, os_features, variant }
    }
}

/// The wire has no room for urls, data, platform and artifact type.
impl From<Descriptor> for wire::Descriptor {
    fn from(descriptor: Descriptor) -> Self {
        let Descriptor { media_type, digest, size, annotations, .. } = descriptor;
        Self { media_type, digest: digest.into(), size: signed(size), annotations: labels(annotations) }
    }
}

impl TryFrom<wire::Descriptor> for Descriptor {
    type Error = Error;

    fn try_from(descriptor: wire::Descriptor) -> Result<Self, Error> {
        let wire::Descriptor { media_type, digest, size, annotations } = descriptor;
        let mut made = Self::new(media_type, digest.parse()?, unsigned("size of a descriptor", size)?);
        made.annotations = from_labels(annotations);
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_with_a_broken_digest_or_size_is_refused() {
        let good =
            wire::Descriptor { digest: format!("sha256:{}", "a".repeat(64)), size: 3, ..Default::default() };
        assert_eq!(Descriptor::try_from(good.clone()).unwrap().size, 3);
        for digest in ["", "sha256:", "sha256:ab", "sha256:ä"] {
            assert!(
                Descriptor::try_from(wire::Descriptor { digest: digest.into(), ..good.clone() }).is_err()
            );
        }
        assert!(Descriptor::try_from(wire::Descriptor { size: -1, ..good }).is_err());
    }
}
