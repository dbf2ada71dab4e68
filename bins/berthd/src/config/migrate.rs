//! From the form of older versions to the newest: plugins under the names that they have since, the server's
//! settings in the tables of its plugins. The moves are those of containerd 2.3's own `config migrate`.

use toml::{Table, Value};

use super::VERSION;

/// Tables of plugins that have another name today.
pub(super) const RENAMED: [(&str, &str); 2] = [
    ("io.containerd.monitor.v1.cgroups", "io.containerd.monitor.task.v1.cgroups"),
    ("io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart"),
];

const TASK: &str = "io.containerd.runtime.v2.task";
const SHIM: &str = "io.containerd.shim.v1.manager";
const CRI: &str = "io.containerd.grpc.v1.cri";
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
const GRPC: &str = "io.containerd.server.v1.grpc";
const TCP: &str = "io.containerd.server.v1.grpc-tcp";
const TTRPC: &str = "io.containerd.server.v1.ttrpc";

/// Settings of CRI that stayed with its server.
const CRI_SERVER_KEYS: [&str; 6] = [
    "disable_tcp_service",
    "stream_server_address",
    "stream_server_port",
    "stream_idle_timeout",
    "enable_tls_streaming",
    "x509_key_pair_streaming",
];
/// Settings of CRI that went to its images, under the same name.
const CRI_IMAGE_KEYS: [&str; 6] = [
    "registry",
    "image_decryption",
    "max_concurrent_downloads",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "stats_collect_period",
];
/// Settings of `containerd` within CRI that went to its images.
const CRI_SNAPSHOT_KEYS: [&str; 3] =
    ["snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"];

/// Brings a file of version 2 or 3 to the newest. A newer file is left alone.
pub(super) fn migrate(file: &mut Table, version: i64) {
    if version >= VERSION {
        return;
    }
    let plugins = plugins(file);
    for (old, new) in RENAMED {
        if let Some(table) = plugins.remove(old) {
            plugins.entry(new).or_insert(table);
        }
    }
    core_scheduling(plugins);
    cri(plugins);
    servers(file);
    file.insert("version".to_owned(), Value::Integer(VERSION));
}

fn plugins(file: &mut Table) -> &mut Table {
    table(file, "plugins")
}

/// The table at `key`, made if there is none. Keys were checked before: what is there is a table.
fn table<'a>(of: &'a mut Table, key: &str) -> &'a mut Table {
    let value = of.entry(key).or_insert_with(|| Value::Table(Table::new()));
    if !value.is_table() {
        *value = Value::Table(Table::new());
    }
    value.as_table_mut().expect("it was made a table")
}

/// `sched_core` became a variable of the shims' environment.
fn core_scheduling(plugins: &mut Table) {
    let task = plugins.get_mut(TASK).and_then(Value::as_table_mut);
    let wanted = task.and_then(|task| task.remove("sched_core")).and_then(|value| value.as_bool());
    if wanted == Some(true) {
        let env = table(plugins, SHIM).entry("env").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(env) = env.as_array_mut() {
            env.push(Value::from("SCHED_CORE=1"));
        }
    }
}

/// CRI's one table became three: images, runtime, server.
fn cri(plugins: &mut Table) {
    let Some(Value::Table(old)) = plugins.remove(CRI) else { return };
    let images = table(plugins, CRI_IMAGES);
    if let Some(image) = old.get("sandbox_image") {
        table(images, "pinned_images").insert("sandbox".to_owned(), image.clone());
    }
    copy(&old, images, &CRI_IMAGE_KEYS);
    if let Some(Value::Table(containerd)) = old.get("containerd") {
        copy(containerd, images, &CRI_SNAPSHOT_KEYS);
    }

    let runtime = table(plugins, CRI_RUNTIME);
    for (key, value) in &old {
        let moved = CRI_IMAGE_KEYS.contains(&key.as_str())
            || CRI_SERVER_KEYS.contains(&key.as_str())
            || key == "sandbox_image";
        let mut value = value.clone();
        if key == "containerd"
            && let Some(containerd) = value.as_table_mut()
        {
            containerd.retain(|key, _| !CRI_SNAPSHOT_KEYS.contains(&key));
        }
        if key == "cni"
            && let Some(cni) = value.as_table_mut()
            && let Some(folder) = cni.remove("bin_dir")
        {
            cni.entry("bin_dirs").or_insert(Value::Array(vec![folder]));
        }
        if !moved {
            runtime.entry(key.clone()).or_insert(value);
        }
    }

    let mut server = Table::new();
    copy(&old, &mut server, &CRI_SERVER_KEYS);
    plugins.insert(CRI.to_owned(), Value::Table(server));
}

fn copy(from: &Table, to: &mut Table, keys: &[&str]) {
    for key in keys {
        if let Some(value) = from.get(*key) {
            to.insert((*key).to_owned(), value.clone());
        }
    }
}

/// `[grpc]`, `[ttrpc]`, `[debug]` and `[metrics]` became tables of plugins. A table that is there already wins.
fn servers(file: &mut Table) {
    let taken = |file: &mut Table, key: &str| match file.remove(key) {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    };
    let grpc = taken(file, "grpc");
    let ttrpc = taken(file, "ttrpc");
    let metrics = taken(file, "metrics");
    let debug: Table = ["address", "uid", "gid"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), table(file, "debug").remove(key)?)))
        .collect();

    let plugins = plugins(file);
    let mut place = |id: &str, table: Table| {
        if !table.is_empty() {
            plugins.entry(id).or_insert(Value::Table(table));
        }
    };
    let sizes = ["max_recv_message_size", "max_send_message_size"];
    let mut clients = picked(&grpc, &["address", "uid", "gid"]);
    clients.extend(picked(&grpc, &sizes));
    let owner = picked(&clients, &["uid", "gid"]);
    place(GRPC, clients);

    let mut tcp = Table::new();
    for (old, new) in [
        ("tcp_address", "address"),
        ("tcp_tls_ca", "tls_ca"),
        ("tcp_tls_cert", "tls_cert"),
        ("tcp_tls_key", "tls_key"),
        ("tcp_tls_common_name", "tls_common_name"),
    ] {
        if let Some(value) = picked(&grpc, &[old]).remove(old) {
            tcp.insert(new.to_owned(), value);
        }
    }
    if !tcp.is_empty() {
        tcp.extend(picked(&grpc, &sizes));
    }
    place(TCP, tcp);

    let mut shims = picked(&ttrpc, &["address", "uid", "gid"]);
    if !shims.contains_key("address") {
        for (key, id) in owner {
            shims.entry(key).or_insert(id);
        }
    }
    place(TTRPC, shims);

    if picked(&debug, &["address"]).contains_key("address") {
        place("io.containerd.server.v1.debug", debug);
    }
    place("io.containerd.server.v1.metrics", picked(&metrics, &["address"]));
    place("io.containerd.metrics.v1.grpc-prometheus", picked(&metrics, &["grpc_histogram"]));
}

/// The values at `keys` that say something: an empty text and a zero say nothing, as ever in these versions.
fn picked(from: &Table, keys: &[&str]) -> Table {
    let says = |value: &Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Integer(number) => *number != 0,
        Value::Boolean(on) => *on,
        _ => true,
    };
    keys.iter()
        .filter_map(|key| Some(((*key).to_owned(), from.get(*key).filter(|value| says(value))?.clone())))
        .collect()
}
