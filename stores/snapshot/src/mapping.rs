//! The labels that give a snapshot to a user namespace.

use berth_sys::beneath::Owner;
use berth_sys::userns::IdMapping;
use berth_types::{Error, Labels, Result};

/// containerd's label for user ids: `inside:outside:length`, several by commas.
pub(crate) const UIDS: &str = "containerd.io/snapshot/uidmapping";
/// The same for group ids.
pub(crate) const GIDS: &str = "containerd.io/snapshot/gidmapping";

/// Who root of the user namespace is outside, if the labels name one.
pub(crate) fn root(labels: &Labels) -> Result<Option<Owner>> {
    if !labels.contains_key(UIDS) && !labels.contains_key(GIDS) {
        return Ok(None);
    }
    Ok(Some(Owner { uid: outside(labels, UIDS)?, gid: outside(labels, GIDS)? }))
}

fn outside(labels: &Labels, key: &str) -> Result<u32> {
    let text = labels.get(key).map(String::as_str).unwrap_or_default();
    let invalid = |why| Error::invalid_argument(format!("label {key}={text:?} {why}"));
    let mappings = IdMapping::parse_list(text)
        .ok_or_else(|| invalid("is not a list of inside:outside:length, and both ids have to be mapped"))?;
    let zero = mappings.iter().find(|mapping| mapping.inside == 0);
    zero.map(|mapping| mapping.outside).ok_or_else(|| invalid("does not map id 0"))
}

/// The mount options that map ids, in containerd's order.
pub(crate) fn options(labels: &Labels) -> Vec<String> {
    let option = |name: &str, key| labels.get(key).map(|list| format!("{name}={list}"));
    option("uidmap", UIDS).into_iter().chain(option("gidmap", GIDS)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_who_zero_maps_to() {
        let labels = |uids: &str, gids: &str| {
            Labels::from([(UIDS.to_owned(), uids.to_owned()), (GIDS.to_owned(), gids.to_owned())])
        };
        assert_eq!(root(&Labels::new()).unwrap(), None);
        let both = labels("5:9:1,0:1000:65536", "0:2000:1");
        assert_eq!(root(&both).unwrap(), Some(Owner { uid: 1000, gid: 2000 }));
        assert_eq!(options(&both), ["uidmap=5:9:1,0:1000:65536", "gidmap=0:2000:1"]);
        for bad in
            [labels("", "0:1:1"), labels("0:1:1", "1:1:1"), labels("0:1", "0:1:1"), labels("x", "0:1:1")]
        {
            assert!(root(&bad).is_err(), "{bad:?}");
        }
    }
}
