//! The user namespace of a pod, whose root is nobody on the host.

use std::path::PathBuf;

use berth_proto::runtime::v1 as proto;
use berth_sys::userns::IdMapping;
use berth_types::{Error, Labels, Result};
use proto::NamespaceMode;

use super::Pod;
use crate::ability::Abilities;

/// Labels of snapshots that belong to a user namespace, as in containerd.
const SNAPSHOT_UIDS: &str = "containerd.io/snapshot/uidmapping";
const SNAPSHOT_GIDS: &str = "containerd.io/snapshot/gidmapping";

/// How the ids of a pod's user namespace appear on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Users {
    /// Users.
    pub(crate) uids: Vec<IdMapping>,
    /// Groups.
    pub(crate) gids: Vec<IdMapping>,
}

impl Users {
    /// Who root of the namespace is outside.
    pub(crate) fn root(&self) -> (u32, u32) {
        let outside =
            |maps: &[IdMapping]| maps.iter().find(|map| map.inside == 0).map_or(0, |map| map.outside);
        (outside(&self.uids), outside(&self.gids))
    }

    /// The labels by which a snapshotter gives a tree to the namespace.
    pub(crate) fn labels(&self) -> Labels {
        let text = |maps: &[IdMapping]| {
            let one = |map: &IdMapping| format!("{}:{}:{}", map.inside, map.outside, map.length);
            maps.iter().map(one).collect::<Vec<_>>().join(",")
        };
        Labels::from([
            (SNAPSHOT_UIDS.to_owned(), text(&self.uids)),
            (SNAPSHOT_GIDS.to_owned(), text(&self.gids)),
        ])
    }
}

impl Pod {
    /// The user namespace that was asked for, if one was.
    pub(crate) fn users(&self) -> Option<Users> {
        let options = self.namespace_options().userns_options?;
        if options.mode() != NamespaceMode::Pod {
            return None;
        }
        Some(Users { uids: maps(&options.uids), gids: maps(&options.gids) })
    }

    /// The file that holds it.
    pub(crate) fn user_namespace(&self) -> Option<PathBuf> {
        self.users().map(|_| self.state.join("ns/user"))
    }

    /// Refuses what cannot be had of a runtime that can do this much.
    pub(super) fn check_users(&self, abilities: Abilities) -> Result<()> {
        let wrong = |why: &str| Err(Error::invalid_argument(format!("the pod's user namespace: {why}")));
        let Some(options) = self.namespace_options().userns_options else { return Ok(()) };
        match options.mode() {
            NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => return Ok(()),
            NamespaceMode::Node => return wrong("the host's has no mappings of its own"),
            NamespaceMode::Pod => {}
            other => return wrong(&format!("mode {} is not supported", other.as_str_name())),
        }
        let (uids, gids) = (maps(&options.uids), maps(&options.gids));
        if uids.len() != 1 || gids.len() != 1 {
            return wrong("exactly one mapping of users and one of groups is supported");
        }
        if uids != gids {
            return wrong("users and groups must be mapped alike");
        }
        if uids[0].inside != 0 || uids[0].length == 0 {
            return wrong("the mapping must begin with id 0 and have a length");
        }
        if self.is_on_host_network() {
            return wrong("it cannot be had on the host's network");
        }
        if let Some(name) = self.controller() {
            return wrong(&format!("its controller {name} cannot be told of it"));
        }
        if !abilities.user_namespaces {
            return wrong(&format!("the runtime of handler {:?} does not know it", self.handler.name));
        }
        Ok(())
    }
}

/// Mappings of the wire.
pub(crate) fn maps(wire: &[proto::IdMapping]) -> Vec<IdMapping> {
    let one = |map: &proto::IdMapping| IdMapping {
        inside: map.container_id,
        outside: map.host_id,
        length: map.length,
    };
    wire.iter().map(one).collect()
}
