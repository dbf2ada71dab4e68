use std::path::Path;

use proptest::prelude::*;
use testkit::Scratch;

use super::*;

fn identity() -> &'static Identity {
    Identity::of(Path::new("berthd"))
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let scratch = Scratch::new();
    Config::load(&scratch.file("config.toml", text), identity())
}

fn refused(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

#[test]
fn the_defaults_read_back_as_themselves() {
    let defaults = Config::defaults(identity());
    assert_eq!(load(&defaults.to_toml()).unwrap(), defaults);
    assert_eq!(load("").unwrap(), defaults);
}

#[test]
fn a_key_that_nobody_knows_is_refused_with_the_nearest_one() {
    for (text, wanted) in [
        ("version = 2\nrooot = '/x'\n", r#":2: unknown key "rooot" in the file; the nearest is "root""#),
        (
            "version = 3\n[grpc]\n  adress = '/x'\n",
            r#":3: unknown key "adress" in [grpc]; the nearest is "address""#,
        ),
        (
            "version = 3\n[plugins.'io.containerd.gc.v1.scheduler']\n  startup_dealy = '1s'\n",
            r#"in [plugins.'io.containerd.gc.v1.scheduler']; the nearest is "startup_delay""#,
        ),
        (
            "version = 4\n[proxy_plugins.x]\n  adress = 'y'\n",
            r#"in [proxy_plugins."x"]; the nearest is "address""#,
        ),
        ("version = 2\n[debug]\n  levle = 'info'\n", r#"the nearest is "level""#),
        (
            "version = 4\n[grpc]\n  address = '/x'\n",
            "since version 4 it is [plugins.'io.containerd.server.v1.grpc']",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn tables_of_parts_to_come_are_kept() {
    let config = load("version = 3\n[plugins.'io.containerd.nri.v1.nri']\n disable = true\n[plugins.'org.example.x']\n a = 1\n").unwrap();
    assert_eq!(config.plugins.others.len(), 2);
    assert!(config.to_toml().contains("disable = true"));
}

#[test]
fn version_one_is_refused_with_advice() {
    for text in ["version = 1\n", "[plugins.cri]\n sandbox_image = 'x'\n"] {
        assert!(refused(text).contains("version = 2"), "{text}");
    }
    assert!(refused("version = 5\n").contains("versions 2 to 4 are known"));
}

#[test]
fn version_two_becomes_version_four_as_containerd_does_it() {
    let config = load(
        "version = 2\n\
         disabled_plugins = ['io.containerd.grpc.v1.cri']\n\
         [grpc]\n address = '/x/d.sock'\n gid = 7\n tcp_address = '127.0.0.1:1'\n\
         [debug]\n address = '/x/debug.sock'\n level = 'debug'\n\
         [metrics]\n address = '127.0.0.1:2'\n grpc_histogram = false\n\
         [plugins.'io.containerd.internal.v1.restart']\n interval = '3s'\n\
         [plugins.'io.containerd.monitor.v1.cgroups']\n no_prometheus = true\n\
         [plugins.'io.containerd.runtime.v2.task']\n sched_core = true\n\
         [plugins.'io.containerd.grpc.v1.cri']\n sandbox_image = 'p'\n stream_server_port = '5'\n enable_cdi = true\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd]\n snapshotter = 's'\n default_runtime_name = 'r'\n\
         [plugins.'io.containerd.grpc.v1.cri'.cni]\n bin_dir = '/b'\n",
    )
    .unwrap();
    let Plugins { grpc, metrics, ttrpc, restart, cgroups, shim, others, .. } = &config.plugins;
    assert_eq!((grpc.address.as_str(), grpc.uid, grpc.gid), ("/x/d.sock", 0, 7));
    assert_eq!((ttrpc.address.as_str(), ttrpc.gid), ("", 7));
    assert_eq!(restart.interval, GoDuration::from_secs(3));
    assert!(cgroups.no_prometheus);
    assert_eq!(shim.env, ["SCHED_CORE=1"]);
    assert_eq!(config.debug.level, "debug");
    let other = |id: &str, path: &[&str]| {
        let mut value = &others[id];
        for key in path {
            value = &value[*key];
        }
        value.clone()
    };
    assert_eq!(other("io.containerd.server.v1.grpc-tcp", &["address"]), "127.0.0.1:1".into());
    assert_eq!(other("io.containerd.server.v1.debug", &["address"]), "/x/debug.sock".into());
    assert_eq!(metrics.address, "127.0.0.1:2");
    assert_eq!(other("io.containerd.cri.v1.images", &["pinned_images", "sandbox"]), "p".into());
    assert_eq!(other("io.containerd.cri.v1.images", &["snapshotter"]), "s".into());
    assert_eq!(other("io.containerd.cri.v1.runtime", &["enable_cdi"]), true.into());
    assert_eq!(other("io.containerd.cri.v1.runtime", &["containerd", "default_runtime_name"]), "r".into());
    assert_eq!(other("io.containerd.cri.v1.runtime", &["cni", "bin_dirs"]), vec!["/b"].into());
    assert_eq!(other("io.containerd.grpc.v1.cri", &["stream_server_port"]), "5".into());
    assert_eq!(load(&config.to_toml()).unwrap(), config);
}

#[test]
fn the_shims_socket_is_beside_the_clients_unless_it_is_set() {
    let mut config = load("version = 2\n[grpc]\n address = '/x/d.sock'\n gid = 7\n").unwrap();
    config.complete();
    assert_eq!(config.plugins.ttrpc.address, "/x/d.sock.ttrpc");
    assert_eq!(config.plugins.ttrpc.gid, 7);
    let mut config = load("version = 2\n[ttrpc]\n address = '/y'\n").unwrap();
    config.complete();
    assert_eq!(config.plugins.ttrpc.address, "/y");
}

#[test]
fn imports_are_laid_over_the_file_in_their_order() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("conf.d")).unwrap();
    scratch.file("conf.d/10-a.toml", "version = 2\noom_score = -5\ndisabled_plugins = ['a.b', 'c.d']\n");
    scratch.file("conf.d/20-b.toml", "version = 2\noom_score = 0\nroot = ''\n[timeouts]\n'x' = '9s'\n");
    scratch.file("conf.d/30-c.txt", "no toml");
    // The import of itself ends nowhere.
    let text = "version = 2\nroot = '/r'\nimports = ['conf.d/*.toml', 'config.toml']\n\
                disabled_plugins = ['a.b']\n[timeouts]\n'x' = '1s'\n'y' = '2s'\n";
    let config = Config::load(&scratch.file("config.toml", text), identity()).unwrap();
    assert_eq!(config.root, Path::new("/r"));
    assert_eq!(config.oom_score, -5);
    assert_eq!(config.disabled_plugins, ["a.b", "c.d"]);
    assert_eq!(config.timeout("x"), Some(std::time::Duration::from_secs(9)));
    assert_eq!(config.timeout("y"), Some(std::time::Duration::from_secs(2)));
}

#[test]
fn an_import_must_be_there_and_not_newer() {
    let scratch = Scratch::new();
    let main = scratch.file("config.toml", "version = 2\nimports = ['absent.toml']\n");
    assert!(Config::load(&main, identity()).unwrap_err().to_string().contains("absent.toml"));
    scratch.file("absent.toml", "version = 3\n");
    let error = Config::load(&main, identity()).unwrap_err().to_string();
    assert!(error.contains("newer than the version 2"), "{error}");
}

#[test]
fn a_value_of_the_wrong_form_names_the_file() {
    let error = refused("version = 2\noom_score = 'high'\n");
    assert!(error.contains("config.toml"), "{error}");
    assert!(refused("version = 2\ndisabled_plugins = ['cri']\n").contains("no whole plugin name"));
    assert!(refused("not toml").contains("is no TOML"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_dumped_reads_as_the_same(
        root in "/[a-z]{1,8}",
        score in -1000..1000_i32,
        uid in 0..70_000_u32,
        delay in 0..100_000_u64,
        disabled in proptest::collection::vec("[a-z]{1,5}\\.[a-z]{1,5}", 0..3),
        timeouts in proptest::collection::btree_map("[a-z.]{1,12}", 0..1_000_000_u64, 0..4),
        kept in "[a-z \"'\\\\]{0,12}",
    ) {
        let mut config = Config::defaults(identity());
        config.root = root.into();
        config.oom_score = score;
        config.plugins.grpc.uid = uid;
        config.plugins.gc.schedule_delay = GoDuration::from_millis(delay);
        config.disabled_plugins = disabled.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        config.timeouts.extend(timeouts.into_iter().map(|(name, ms)| (name, GoDuration::from_millis(ms))));
        config.plugins.others.insert("org.example.kept".into(), toml::Table::from_iter([("text".to_owned(), kept.into())]).into());
        let read = load(&config.to_toml()).unwrap();
        prop_assert_eq!(&read, &config);
        prop_assert_eq!(read.to_toml(), config.to_toml());
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ = load(&text);
    }
}
