//! Parts of a daemon.

use berth_types::{PluginInfo, PluginState, ServerInfo};

use super::{time, timestamp};
use crate::{containerd::services::introspection::v1 as wire, google::rpc};

/// The code under which containerd reports a plugin that does not apply on this machine.
const SKIPPED: i32 = 12;
const FAILED: i32 = 2;
/// How such a report ends; `ctr plugins ls` looks for it.
const SKIP: &str = ": skip plugin";

impl From<PluginInfo> for wire::Plugin {
    fn from(plugin: PluginInfo) -> Self {
        let PluginInfo { kind, id, requires, platforms, exports, capabilities, state } = plugin;
        let error = |code, message| Some(rpc::Status { code, message, details: Vec::new() });
        Self {
            r#type: kind,
            id,
            requires,
            platforms: platforms.into_iter().map(Into::into).collect(),
            exports: exports.into_iter().collect(),
            capabilities,
            init_err: match state {
                PluginState::Ready => None,
                PluginState::Skipped(why) => error(SKIPPED, why + SKIP),
                PluginState::Failed(why) => error(FAILED, why),
            },
        }
    }
}

impl From<wire::Plugin> for PluginInfo {
    fn from(plugin: wire::Plugin) -> Self {
        let wire::Plugin { r#type, id, requires, platforms, exports, capabilities, init_err } = plugin;
        Self {
            kind: r#type,
            id,
            requires,
            platforms: platforms.into_iter().map(Into::into).collect(),
            exports: exports.into_iter().collect(),
            capabilities,
            state: match init_err {
                None => PluginState::Ready,
                Some(error) if error.code == SKIPPED => {
                    PluginState::Skipped(error.message.trim_end_matches(SKIP).to_owned())
                }
                Some(error) => PluginState::Failed(error.message),
            },
        }
    }
}

impl From<ServerInfo> for wire::ServerResponse {
    fn from(server: ServerInfo) -> Self {
        let warning =
            |(id, message, seen)| wire::DeprecationWarning { id, message, last_occurrence: timestamp(seen) };
        Self {
            uuid: server.uuid,
            pid: server.pid,
            pidns: server.pidns,
            deprecations: server.deprecations.into_iter().map(warning).collect(),
        }
    }
}

impl From<wire::ServerResponse> for ServerInfo {
    fn from(server: wire::ServerResponse) -> Self {
        let warning =
            |warning: wire::DeprecationWarning| (warning.id, warning.message, time(warning.last_occurrence));
        Self {
            uuid: server.uuid,
            pid: server.pid,
            pidns: server.pidns,
            deprecations: server.deprecations.into_iter().map(warning).collect(),
        }
    }
}
