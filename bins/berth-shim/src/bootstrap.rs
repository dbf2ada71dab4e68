//! What the daemon hands a new shim, and the three forms of the answer.
//!
//! | daemon | stdin | answer |
//! |---|---|---|
//! | containerd 1.6 | the runtime's options as `Any`, or nothing | the bare address |
//! | 1.7 to 2.2 (`MAX_SHIM_VERSION` is set) | the same | JSON with version, address, protocol |
//! | 2.3, berthd | `BootstrapParams` | `BootstrapResult` |

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use berth_proto as proto;
use prost::Message as _;
use proto::containerd::runc::v1::Options;
use proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult, LogLevel};

use crate::arguments::{Arguments, Environment};
use crate::options;

/// The newest version of the shim's services that we serve.
const VERSION: i32 = 3;
/// Where containerd keeps its shims' sockets whatever its own folders are: a socket's path is short.
const SOCKETS: &str = "/run/containerd/s";

/// The parameters of a start, whichever way they came.
#[derive(Clone, Debug)]
pub(crate) struct Bootstrap {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) grpc_address: String,
    pub(crate) ttrpc_address: Option<String>,
    pub(crate) publish_binary: String,
    pub(crate) debug: bool,
    pub(crate) sockets: PathBuf,
    pub(crate) options: Option<Options>,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bare,
    Json { version: i32 },
    Message,
}

impl Bootstrap {
    /// Puts together what came on stdin, on the command line and in the environment.
    pub(crate) fn read(input: &[u8], arguments: &Arguments, environment: &Environment) -> Result<Self> {
        if let Some(params) = params(input, arguments) {
            return Self::from_params(params, arguments);
        }
        let options = if input.is_empty() { None } else { options::from_any_bytes(input)? };
        Ok(Self {
            id: arguments.id.clone(),
            namespace: arguments.namespace.clone(),
            grpc_address: arguments.address.clone(),
            ttrpc_address: environment.ttrpc_address.clone(),
            publish_binary: arguments.publish_binary.clone(),
            debug: arguments.debug,
            sockets: SOCKETS.into(),
            options,
            form: match environment.max_version {
                None => Form::Bare,
                Some(newest) => Form::Json { version: newest.clamp(2, VERSION) },
            },
        })
    }

    fn from_params(params: BootstrapParams, arguments: &Arguments) -> Result<Self> {
        let mut options = None;
        for value in params.extensions.into_iter().filter_map(|extension| extension.value) {
            // An extension that we do not know is for another shim; its sender cannot know which one runs.
            if let Some(found) =
                options::from_any(&value).context("an extension of the bootstrap parameters")?
            {
                options = Some(found);
            }
        }
        let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self {
            id: params.instance_id,
            namespace: params.namespace,
            grpc_address: params.containerd_grpc_address,
            ttrpc_address: non_empty(params.containerd_ttrpc_address),
            publish_binary: params.containerd_binary,
            debug: params.log_level <= LogLevel::Debug as i32 || arguments.debug,
            sockets: params.socket_dir.and_then(non_empty).unwrap_or_else(|| SOCKETS.into()).into(),
            options,
            form: Form::Message,
        })
    }

    /// The bytes that tell the daemon where the shim serves.
    pub(crate) fn answer(&self, address: &str) -> Vec<u8> {
        match self.form {
            Form::Bare => address.as_bytes().to_vec(),
            Form::Json { version } => {
                let answer = serde_json::json!({"version": version, "address": address, "protocol": "ttrpc"});
                answer.to_string().into_bytes()
            }
            Form::Message => BootstrapResult {
                version: VERSION,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            }
            .encode_to_vec(),
        }
    }
}

/// The bootstrap parameters, if that is what the bytes are. An `Any` decodes as them too, with its type for the
/// instance, so the instance has to be the one that the command line names.
fn params(input: &[u8], arguments: &Arguments) -> Option<BootstrapParams> {
    if input.is_empty() {
        return None;
    }
    let params = BootstrapParams::decode(input).ok()?;
    let named = if arguments.id.is_empty() {
        !params.namespace.is_empty()
    } else {
        params.instance_id == arguments.id
    };
    named.then_some(params)
}

#[cfg(test)]
mod tests {
    use proto::containerd::runtime::bootstrap::v1::Extension;

    use super::*;

    fn arguments() -> Arguments {
        Arguments { id: "a".into(), namespace: "ns".into(), address: "/c.sock".into(), ..Default::default() }
    }

    fn runc_options() -> prost_types::Any {
        let options = Options { binary_name: "crun".into(), ..Default::default() };
        prost_types::Any { type_url: "containerd.runc.v1.Options".into(), value: options.encode_to_vec() }
    }

    #[test]
    fn an_old_daemon_hears_the_bare_address() {
        let boot = Bootstrap::read(&[], &arguments(), &Environment::default()).unwrap();
        assert_eq!(boot.answer("unix:///s"), b"unix:///s");
    }

    #[test]
    fn a_daemon_that_names_a_version_hears_json_of_no_later_one() {
        let environment = Environment { max_version: Some(2), ..Default::default() };
        let boot = Bootstrap::read(&runc_options().encode_to_vec(), &arguments(), &environment).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&boot.answer("unix:///s")).unwrap();
        assert_eq!(answer, serde_json::json!({"version": 2, "address": "unix:///s", "protocol": "ttrpc"}));
        assert_eq!(boot.options.unwrap().binary_name, "crun");
    }

    #[test]
    fn bootstrap_parameters_are_answered_in_kind() {
        let params = BootstrapParams {
            instance_id: "a".into(),
            namespace: "ns".into(),
            containerd_ttrpc_address: "/t.sock".into(),
            socket_dir: Some("/run/x".into()),
            extensions: vec![Extension { value: Some(runc_options()) }],
            ..Default::default()
        };
        let environment = Environment { max_version: Some(2), ..Default::default() };
        let boot = Bootstrap::read(&params.encode_to_vec(), &arguments(), &environment).unwrap();
        let answer = BootstrapResult::decode(boot.answer("unix:///s").as_slice()).unwrap();
        assert_eq!(
            (answer.version, answer.address.as_str(), answer.protocol.as_str()),
            (3, "unix:///s", "ttrpc")
        );
        assert_eq!(boot.ttrpc_address.as_deref(), Some("/t.sock"));
        assert_eq!(boot.sockets, PathBuf::from("/run/x"));
        assert_eq!(boot.options.unwrap().binary_name, "crun");
    }
}
