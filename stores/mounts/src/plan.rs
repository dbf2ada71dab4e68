//! How far a list has to be performed.

use berth_core::Extent;
use berth_types::Mount;

use crate::perform::Handler;
use crate::steps::Step;

/// One mount of a list, its type taken apart.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) mount: Mount,
    /// What is done before it is mounted.
    pub(crate) steps: Vec<Step>,
}

/// A list, and how much of it is for the daemon.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    /// So many of the first are performed.
    pub(crate) performed: usize,
}

impl Plan {
    /// Takes a list apart; none if the client can do all of it. `by_client` are types that it performs itself.
    pub(crate) fn of(mounts: Vec<Mount>, extent: Extent, by_client: &[String]) -> Option<Self> {
        let is_by_client = |kind: &str| by_client.iter().any(|known| known == kind);
        let mut performed = None;
        let mut parts = Vec::new();
        for (index, mut mount) in mounts.into_iter().enumerate() {
            let (steps, kind) = Step::of(&mount.kind);
            let is_needed =
                |step: &Step| !is_by_client(&format!("{}/*", step.word())) && !is_by_client(&mount.kind);
            if steps.iter().any(is_needed) {
                // What it stands on has to be there; it may be left itself.
                performed = Some(index);
            }
            let handled = Handler::of(kind).is_some() && !is_by_client(kind);
            if handled || extent == Extent::Everything {
                performed = Some(index + 1);
            }
            let kind = kind.to_owned();
            mount.kind = kind;
            parts.push(Part { mount, steps });
        }
        Some(Self { parts, performed: performed? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn performed(kinds: &[&str], extent: Extent, by_client: &[&str]) -> Option<usize> {
        let mount = |kind: &&str| Mount { kind: (*kind).to_owned(), ..Mount::default() };
        let by_client: Vec<String> = by_client.iter().map(|&kind| kind.to_owned()).collect();
        Plan::of(kinds.iter().map(mount).collect(), extent, &by_client).map(|plan| plan.performed)
    }

    #[test]
    fn what_clients_can_mount_is_left_to_them() {
        assert_eq!(performed(&["overlay"], Extent::Needed, &[]), None);
        assert_eq!(performed(&["bind"], Extent::Needed, &[]), None);
        assert_eq!(performed(&["unknown/overlay"], Extent::Needed, &[]), None);
        assert_eq!(performed(&[], Extent::Everything, &[]), None);
        assert_eq!(performed(&["overlay"], Extent::Everything, &[]), Some(1));
    }

    #[test]
    fn a_prepared_mount_needs_all_before_it_and_may_be_left_itself() {
        assert_eq!(performed(&["bind", "format/overlay"], Extent::Needed, &[]), Some(1));
        assert_eq!(performed(&["mkfs/ext4"], Extent::Needed, &[]), Some(0));
        assert_eq!(performed(&["erofs", "erofs", "format/mkdir/overlay"], Extent::Needed, &[]), Some(2));
        assert_eq!(performed(&["erofs", "format/overlay"], Extent::Everything, &[]), Some(2));
        assert_eq!(performed(&["format/erofs"], Extent::Needed, &[]), Some(1));
    }

    #[test]
    fn a_client_may_do_more() {
        assert_eq!(performed(&["erofs"], Extent::Needed, &["erofs"]), None);
        assert_eq!(performed(&["erofs", "format/overlay"], Extent::Needed, &["erofs"]), Some(1));
        assert_eq!(performed(&["erofs", "format/overlay"], Extent::Needed, &["erofs", "format/*"]), None);
        let both = ["erofs", "format/mkdir/overlay"];
        assert_eq!(performed(&both, Extent::Needed, &["erofs", "format/mkdir/overlay"]), None);
        assert_eq!(performed(&both, Extent::Needed, &["erofs", "format/*"]), Some(1));
    }
}
