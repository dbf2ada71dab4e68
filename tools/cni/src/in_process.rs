//! Which networks are done in process, and which by plugins' programs.

use serde_json::Value;

use crate::builtin::Builtin;
use crate::config::NetworkList;
use crate::runtime::Cni;

/// The key of a list of plugins that asks for it, for [`InProcess::Marked`]. Other runtimes pass it over.
const MARK: &str = "berthInProcess";

/// Which networks are done in process, if that is possible: all their plugins must be of the reference ones (bridge,
/// ptp, loopback with host-local; portmap, firewall, tuning), with options that are known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InProcess {
    /// None. What was added in process before is still removed so.
    Never,
    /// Those whose list of plugins says `"berthInProcess": true`.
    #[default]
    Marked,
    /// All.
    WhenPossible,
}

impl Cni {
    /// Whether a network is done in process; the error says in words why it is not.
    pub fn in_process(&self, list: &NetworkList) -> Result<(), String> {
        self.builtin(list).map(drop)
    }

    pub(crate) fn builtin<'a>(&self, list: &'a NetworkList) -> Result<Builtin<'a>, String> {
        match self.in_process {
            InProcess::Never => return Err("networks are not to be done in process".into()),
            InProcess::Marked if !is_marked(list) => {
                return Err(format!("network {} does not ask for it with {MARK}", list.name));
            }
            InProcess::Marked | InProcess::WhenPossible => {}
        }
        let builtin = Builtin::of(list, self.deadline())?;
        builtin.host_allows()?;
        Ok(builtin)
    }
}

fn is_marked(list: &NetworkList) -> bool {
    let whole: Value = serde_json::from_str(&list.source).unwrap_or_default();
    whole.get(MARK) == Some(&Value::Bool(true))
}
