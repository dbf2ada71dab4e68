//! Plugins of the Node Resource Interface: what they are told of pods and containers, and what they want of them.
//!
//! Where there is no plugin, a hook is one look at a number. A request that changes something keeps plugins from joining
//! while it goes on, so that whoever joins knows a pod or container wholly or not at all. It does so before it takes any
//! other lock: while a plugin waits to join, whoever else wants to keep plugins out waits too, and must hold nothing
//! that the first ones need. The end of a container is told outside of that; it takes as long as the container does.
//!
//! Plugins see containers of this interface only, as with containerd: what `ctr -n k8s.io run` makes goes past them.

mod container;
mod host;
mod pod;
mod resources;

use std::sync::Arc;

use berth_nri::{Nri, Pause};
use berth_types::Result;

use crate::Cri;

impl Cri {
    /// Starts plugins and lets others connect, once pods and containers are known.
    pub(crate) async fn open_plugins(self: &Arc<Self>) -> Result<()> {
        let Some(config) = self.config.nri.clone() else { return Ok(()) };
        let nri = Nri::open(config, Arc::new(host::Node(Arc::downgrade(self)))).await?;
        // Nobody else sets it.
        let _ = self.nri.set(nri);
        Ok(())
    }

    /// Ends the plugins that were started, and the connections of others.
    pub(crate) async fn close_plugins(&self) {
        if let Some(nri) = self.nri.get() {
            nri.close().await;
        }
    }

    /// Keeps plugins from joining until the answer is dropped. Once in a request, and before its locks.
    pub(crate) async fn pause_joins(&self) -> Option<Pause> {
        match self.nri.get() {
            Some(nri) => Some(nri.pause_joins().await),
            None => None,
        }
    }

    /// Who is to be asked and told; none when there is nobody.
    fn plugins(&self) -> Option<&Nri> {
        self.nri.get().filter(|nri| !nri.is_idle())
    }
}
