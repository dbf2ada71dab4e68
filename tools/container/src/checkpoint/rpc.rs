//! What CRIU is told and what it answers: its `rpc.proto`, as far as it is used here (criu.org/RPC).

use prost::Message;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
}

/// `criu_req`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, boxed, tag = "2")]
    pub options: Option<Box<Options>>,
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
}

/// `criu_resp`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    #[prost(message, optional, tag = "4")]
    pub restored: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    pub notice: Option<Notice>,
    #[prost(int32, optional, tag = "7")]
    pub errno: Option<i32>,
    #[prost(string, optional, tag = "9")]
    pub message: Option<String>,
}

/// `criu_restore_resp`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Restored {
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

/// `criu_notify`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Notice {
    #[prost(string, optional, tag = "1")]
    pub point: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

/// `criu_opts`. Descriptors of folders are numbers of this process, those to inherit are numbers of CRIU's.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Options {
    #[prost(int32, required, tag = "1")]
    pub images: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub external_unix_sockets: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub open_tcp: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub page_server: Option<PageServer>,
    #[prost(bool, optional, tag = "12")]
    pub notify: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub parent: Option<String>,
    #[prost(bool, optional, tag = "15")]
    pub track_memory: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub work: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    #[prost(message, repeated, tag = "23")]
    pub external_mounts: Vec<ExternalMount>,
    #[prost(message, repeated, tag = "25")]
    pub cgroup_roots: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = "26")]
    pub sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub inherit: Vec<Inherit>,
    #[prost(int32, optional, tag = "34")]
    pub cgroups: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    #[prost(uint32, optional, tag = "38")]
    pub empty_namespaces: Option<u32>,
    #[prost(message, repeated, tag = "39")]
    pub join: Vec<Join>,
    #[prost(string, optional, tag = "44")]
    pub freezer: Option<String>,
    #[prost(bool, optional, tag = "46")]
    pub skip_tcp_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "50")]
    pub orphan_terminal: Option<bool>,
    #[prost(string, optional, tag = "53")]
    pub label: Option<String>,
    #[prost(int32, optional, tag = "64")]
    pub network_lock: Option<i32>,
}

/// `criu_page_server_info`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PageServer {
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// `ext_mount_map`: a mount that is not saved. At the dump its place and a name, at the restore that name and its source.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExternalMount {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// `cgroup_root`; without a controller it is for all.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CgroupRoot {
    #[prost(string, required, tag = "2")]
    pub path: String,
}

/// `inherit_fd`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Inherit {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// `join_namespace`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Join {
    #[prost(string, required, tag = "1")]
    pub kind: String,
    #[prost(string, required, tag = "2")]
    pub path: String,
}
