//! What the daemon is made of.

use async_trait::async_trait;
use berth_core::Introspection;
use berth_proto::containerd::services::{introspection::v1 as proto, version::v1 as version};
use berth_proto::convert::{any, from_any, required};
use berth_types::{Any, PluginInfo, Result, ServerInfo};

use crate::bound::{Bound, RECORDS, call};

type Service = proto::introspection_client::IntrospectionClient<tonic::transport::Channel>;
type VersionService = version::version_client::VersionClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

#[async_trait]
impl Introspection for Remote {
    async fn server(&self) -> Result<ServerInfo> {
        Ok(call!(self.0, Service, server, (), RECORDS)?.into())
    }

    async fn plugins(&self, filters: &[String]) -> Result<Vec<PluginInfo>> {
        let message = proto::PluginsRequest { filters: filters.to_vec() };
        let answer = call!(self.0, Service, plugins, message, RECORDS)?;
        Ok(answer.plugins.into_iter().map(Into::into).collect())
    }

    async fn plugin(&self, kind: &str, id: &str, options: Option<Any>) -> Result<(PluginInfo, Option<Any>)> {
        let message = proto::PluginInfoRequest {
            r#type: kind.to_owned(),
            id: id.to_owned(),
            options: options.map(any),
        };
        let answer = call!(self.0, Service, plugin_info, message, RECORDS)?;
        let plugin = required("the plugin in the daemon's answer", answer.plugin)?;
        Ok((plugin.into(), answer.extra.map(from_any)))
    }

    async fn version(&self) -> Result<(String, String)> {
        let answer = call!(self.0, VersionService, version, (), RECORDS)?;
        Ok((answer.version, answer.revision))
    }
}
