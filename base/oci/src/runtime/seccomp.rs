//! Which system calls a container may make.

use serde::{Deserialize, Serialize};

use super::{is_default, nullable};

/// A filter: an action by system call and arguments, and one for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Seccomp {
    /// `SCMP_ACT_…` for calls that no rule names.
    #[serde(deserialize_with = "nullable")]
    pub default_action: String,
    /// Errno of the default action; EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…` beside the machine's own.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
    /// Socket of the agent that answers `SCMP_ACT_NOTIFY`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub listener_path: String,
    /// Handed to that agent.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub syscalls: Vec<SyscallRule>,
}

/// An action for some system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SyscallRule {
    /// Of the system calls; unknown ones are passed over.
    #[serde(deserialize_with = "nullable")]
    pub names: Vec<String>,
    /// `SCMP_ACT_…`.
    #[serde(deserialize_with = "nullable")]
    pub action: String,
    /// Errno (or value for the tracer); EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions; all must hold, except that several on one argument are alternatives.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub args: Vec<SyscallArg>,
}

/// A condition on one argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SyscallArg {
    /// 0 to 5.
    #[serde(deserialize_with = "nullable")]
    pub index: u32,
    /// Compared with; the mask for `SCMP_CMP_MASKED_EQ`.
    #[serde(deserialize_with = "nullable")]
    pub value: u64,
    /// The masked value for `SCMP_CMP_MASKED_EQ`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub value_two: u64,
    /// `SCMP_CMP_…`.
    #[serde(deserialize_with = "nullable")]
    pub op: String,
}
