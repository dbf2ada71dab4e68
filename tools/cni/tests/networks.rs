//! Networks of plugins: stand-ins that remember what they were told, lie or hang, and the real ones.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_cni::{Attachment, Cni, Settings};
use berth_sys::thread::{in_network, in_new_network};
use berth_types::ErrorKind;
use serde_json::{Value, json};
use testkit::{Scratch, need, wait};

/// Remembers its variables and its configuration, then answers what `answer` says.
const RECORDER: &str = r#"#!/bin/sh
here=$(dirname "$0")
number=$(ls "$here/said" | wc -l)
file="$here/said/$(printf %03d "$number")-$(basename "$0")-$CNI_COMMAND"
cat > "$file"
env | sort > "$here/environment"
ls /proc/self/fd | wc -l > "$here/descriptors"
[ -e "$here/answer-$CNI_COMMAND-$(basename "$0")" ] && exec "$here/answer-$CNI_COMMAND-$(basename "$0")"
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"interface":0,"address":"10.1.0.2/24","gateway":"10.1.0.1"}]}'
[ "$CNI_COMMAND" = VERSION ] && echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'
exit 0
"#;

struct Host {
    scratch: Scratch,
}

impl Host {
    fn new(plugins: &[&str]) -> Self {
        let host = Self { scratch: Scratch::new() };
        for folder in ["conf", "bin/said"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        for plugin in plugins {
            host.program(plugin, RECORDER);
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.folder().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        // Another process writes it, or a child that another test is just starting would hold it open for writing.
        let copied =
            Command::new("sh").args(["-c", "printf %s \"$1\" > \"$2\"", "sh", text]).arg(&path).status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn conf(&self, name: &str, value: &Value) {
        fs::write(self.path("conf").join(name), value.to_string()).unwrap();
    }

    fn settings(&self) -> Settings {
        Settings {
            conf_dir: self.path("conf"),
            bin_dirs: vec![self.path("bin")],
            cache_dir: self.path("cache"),
            deadline: Duration::from_secs(30),
            ..Settings::default()
        }
    }

    fn cni(&self) -> Cni {
        Cni::new(self.settings())
    }

    /// What the recorders were told, in order: their file's name and the configuration.
    fn said(&self) -> Vec<(String, Value)> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.path("bin/said")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let read = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap()[4..].to_owned();
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap_or(Value::Null))
        };
        files.iter().map(read).collect()
    }

    fn commands(&self) -> Vec<String> {
        self.said().into_iter().map(|(name, _)| name).collect()
    }

    fn records(&self) -> usize {
        fs::read_dir(self.path("cache/results")).map_or(0, |entries| {
            entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
        })
    }
}

/// An attachment of a namespace of its own, which ends with the test. The test stays in its caller's.
fn in_a_namespace(test: impl FnOnce(&Attachment)) {
    let file = in_new_network(|| fs::File::open("/proc/thread-self/ns/net")).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    let capabilities = json!({"portMappings": [{"hostPort": 80}], "bandwidth": {"ingressRate": 1}});
    test(&Attachment {
        container: "pod-1".into(),
        namespace: format!("/proc/{}/fd/{number}", std::process::id()).into(),
        arguments: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), "web".into())],
        capabilities: capabilities.as_object().unwrap().clone(),
    });
}

fn chain(version: &str) -> Value {
    json!({"cniVersion": version, "name": "net", "plugins": [
        {"type": "one", "key": 7},
        {"type": "two", "capabilities": {"portMappings": true, "bandwidth": false}},
    ]})
}

#[test]
fn plugins_of_a_chain_hear_of_each_other_and_of_the_runtime() -> Result<(), need::Missing> {
    need::root()?;
    let host = Host::new(&["one", "two"]);
    host.conf("10-net.conflist", &chain("1.0.0"));
    let cni = host.cni();
    in_a_namespace(|pod| {
        let attached = cni.add(pod).unwrap();
        assert_eq!(attached.addresses("eth0"), ["10.1.0.2".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(attached.info()["Interfaces"]["eth0"]["IPConfigs"][0]["Gateway"], "10.1.0.1");
        assert_eq!(attached.info()["Interfaces"]["lo"]["IPConfigs"][0]["IP"], "127.0.0.1");
        let inside = fs::File::open(&pod.namespace).unwrap();
        let bound = in_network(inside.as_fd(), || std::net::TcpListener::bind("127.0.0.1:0"));
        bound.expect("the loopback device is up");
        let again = berth_cni::Attached::from_value(&attached.to_value()).unwrap();
        assert_eq!(again, attached);
        cni.check(pod).unwrap();
        cni.del(pod).unwrap();
    });
    let said = host.said();
    let names: Vec<&str> = said.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one-ADD", "two-ADD", "one-CHECK", "two-CHECK", "two-DEL", "one-DEL"]);
    let configs: Vec<&Value> = said.iter().map(|(_, config)| config).collect();
    assert_eq!(configs[0]["key"], 7);
    assert!(configs.iter().all(|config| config["name"] == "net" && config["cniVersion"] == "1.0.0"));
    assert!(configs[0].get("prevResult").is_none() && configs[0].get("runtimeConfig").is_none());
    assert_eq!(configs[1]["prevResult"]["ips"][0]["address"], "10.1.0.2/24");
    assert_eq!(configs[1]["runtimeConfig"], json!({"portMappings": [{"hostPort": 80}]}));
    for later in &configs[2..] {
        assert_eq!(later["prevResult"]["ips"][0]["address"], "10.1.0.2/24");
    }
    let environment = fs::read_to_string(host.path("bin/environment")).unwrap();
    let mut variables: Vec<&str> =
        environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // What a shell sets by itself.
    variables.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    let expected =
        ["CNI_ARGS", "CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH", "PATH"];
    assert_eq!(variables, expected);
    assert!(environment.contains("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web\n"), "{environment}");
    // The three streams and the one with which ls reads.
    assert_eq!(fs::read_to_string(host.path("bin/descriptors")).unwrap().trim(), "4");
    assert_eq!(host.records(), 0);
    Ok(())
}

#[test]
fn a_failed_plugin_is_named_with_its_own_words_and_all_is_taken_back() -> Result<(), need::Missing> {
    need::root()?;
    let host = Host::new(&["one", "two"]);
    host.conf("10-net.conflist", &chain("1.0.0"));
    host.program(
        "answer-ADD-two",
        "#!/bin/sh\necho '{\"code\": 103, \"msg\": \"no room\", \"details\": \"in the inn\"}'; exit 1\n",
    );
    let cni = host.cni();
    in_a_namespace(|pod| {
        let error = cni.add(pod).unwrap_err().chain();
        assert_eq!(error, "CNI plugin two of network net failed (ADD): no room; in the inn (code 103)");
        assert_eq!(host.commands(), ["one-ADD", "two-ADD", "two-DEL", "one-DEL"]);
        assert_eq!(host.records(), 0);

        // A removal that fails keeps its record, and the next one does it.
        host.program("answer-DEL-one", "#!/bin/sh\necho stuck >&2; exit 3\n");
        cni.add(pod).unwrap_err();
        assert_eq!(cni.recorded("pod-1"), [("net".to_owned(), "eth0".to_owned())]);
        assert!(cni.del(pod).unwrap_err().chain().contains("it ended with status 3: stuck"));
        // What is gone already is no failure, whoever says so.
        host.program(
            "answer-DEL-one",
            "#!/bin/sh\necho '{\"code\": 100, \"msg\": \"link not found\"}'; exit 1\n",
        );
        cni.del(pod).unwrap();
        assert_eq!(host.records(), 0);
    });
    Ok(())
}

#[test]
fn a_chain_of_which_a_program_is_missing_is_not_begun_and_one_that_loses_a_program_is_taken_back()
-> Result<(), need::Missing> {
    need::root()?;
    let host = Host::new(&["one", "three"]);
    let list = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [
        {"type": "one"}, {"type": "two"}, {"type": "three"},
    ]});
    host.conf("10-net.conflist", &list);
    let cni = host.cni();
    in_a_namespace(|pod| {
        let error = cni.add(pod).unwrap_err().chain();
        assert!(error.contains("no CNI plugin two in") && error.contains("install it"), "{error}");
        assert_eq!((host.commands().len(), host.records()), (0, 0), "nothing was begun");

        // The first one takes the second away when it is asked to add.
        host.program("two", RECORDER);
        let recorder = host.path("bin/two");
        let answer = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}]}"#;
        let take = format!("#!/bin/sh\nmv {0} {0}.away\necho '{answer}'\n", recorder.display());
        host.program("answer-ADD-one", &take);
        let error = cni.add(pod).unwrap_err().chain();
        assert!(error.contains("no CNI plugin two in"), "{error}");
        // Those that are there have given back what they gave; that of the missing one is remembered.
        assert_eq!(host.commands(), ["one-ADD", "three-DEL", "one-DEL"]);
        assert_eq!(host.records(), 1);
        assert!(cni.del(pod).unwrap_err().chain().contains("no CNI plugin two in"));
        fs::rename(host.path("bin/two.away"), &recorder).unwrap();
        cni.del(pod).unwrap();
        assert_eq!(host.records(), 0);
        assert!(host.commands().ends_with(&["three-DEL", "two-DEL", "one-DEL"].map(str::to_owned)));
    });
    Ok(())
}

#[test]
fn a_plugin_that_hangs_is_killed_with_its_children_and_one_that_babbles_is_refused()
-> Result<(), need::Missing> {
    need::root()?;
    let host = Host::new(&["one", "two"]);
    host.conf("10-net.conflist", &chain("1.0.0"));
    let child = host.path("child");
    let hang = format!("#!/bin/sh\nsleep 1000 & echo $! > {}; wait\n", child.display());
    host.program("answer-ADD-two", &hang);
    // Long enough for the others on a busy machine.
    let cni = Cni::new(Settings { deadline: Duration::from_secs(5), ..host.settings() });
    in_a_namespace(|pod| {
        let error = cni.add(pod).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{}", error.chain());
        let text = "CNI plugin two of network net did not answer ADD within 5 s and was killed";
        assert_eq!(error.to_string(), text);
        let pid = fs::read_to_string(&child).unwrap().trim().to_owned();
        let is_gone = || {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        wait::soon("the plugin's child is gone", is_gone);
        assert_eq!(host.records(), 0);
        for (lie, told) in [
            ("echo hello", "answered \"hello\" to ADD"),
            ("exit 0", "answered \"\" to ADD"),
            ("echo '{\"ips\":[{\"address\":\"nowhere\"}]}'", "nowhere"),
            ("kill -SEGV $$", "killed by signal 11"),
            ("exec yes", "more than a mebibyte"),
            ("cat > /dev/null; exit 9", "status 9 without a word"),
        ] {
            host.program("answer-ADD-two", &format!("#!/bin/sh\n{lie}\n"));
            let error = cni.add(pod).unwrap_err().chain();
            assert!(error.contains(told) && error.contains("plugin two of network net"), "{lie}: {error}");
            assert_eq!(host.records(), 0, "{lie}");
        }
    });
    Ok(())
}

#[test]
fn an_addition_that_a_crash_cut_off_is_known_and_collected() -> Result<(), need::Missing> {
    need::root()?;
    let host = Host::new(&["one", "two"]);
    host.conf("10-net.conflist", &chain("1.1.0"));
    in_a_namespace(|pod| {
        // The intent is there while the plugin runs.
        let seen = host.path("seen");
        host.program(
            "answer-ADD-one",
            &format!("#!/bin/sh\ncp {}/* {}; exit 1\n", host.path("cache/results").display(), seen.display()),
        );
        let cni = host.cni();
        cni.add(pod).unwrap_err();
        let intent: Value = serde_json::from_slice(&fs::read(&seen).unwrap()).unwrap();
        assert_eq!(intent["kind"], "cniCacheV1");
        assert_eq!(intent["networkName"], "net");
        assert!(intent.get("result").is_none());
        fs::remove_file(host.path("bin/answer-ADD-one")).unwrap();

        // As after a kill in the middle of ADD, beside one that was added.
        cni.add(pod).unwrap();
        fs::copy(&seen, host.path("cache/results/net-pod-2-eth0")).unwrap();
        let text = fs::read_to_string(&seen).unwrap().replace("pod-1", "pod-2");
        fs::write(host.path("cache/results/net-pod-2-eth0"), text).unwrap();
        // And what another network's runtime keeps here.
        let foreign = fs::read_to_string(&seen).unwrap().replace("\"net\"", "\"theirs\"");
        fs::write(host.path("cache/results/theirs-pod-1-eth0"), foreign).unwrap();
        fs::remove_dir_all(host.path("bin/said")).unwrap();
        fs::create_dir(host.path("bin/said")).unwrap();
        cni.gc(&[("pod-1".into(), "eth0".into())]).unwrap();
        assert_eq!(host.commands(), ["two-DEL", "one-DEL", "one-GC", "two-GC"]);
        let valid = json!([{"containerID": "pod-1", "ifname": "eth0"}]);
        assert_eq!(host.said()[2].1["cni.dev/valid-attachments"], valid);
        assert_eq!(host.records(), 2);

        // A removal goes by the configuration of its time, whatever the folder holds now, and without a namespace.
        fs::remove_file(host.path("conf/10-net.conflist")).unwrap();
        fs::remove_file(host.path("cache/results/theirs-pod-1-eth0")).unwrap();
        cni.del(&Attachment { namespace: PathBuf::new(), ..pod.clone() }).unwrap();
        assert_eq!(host.records(), 0);
        cni.del(pod).unwrap();
    });
    Ok(())
}

#[test]
fn the_folder_is_read_again_when_it_changes_or_is_made_again() {
    let host = Host::new(&[]);
    let cni = host.cni();
    let names =
        |cni: &Cni| -> Vec<String> { cni.networks().networks.iter().map(|list| list.name.clone()).collect() };
    let problem = cni.status().unwrap_err();
    assert_eq!(problem.kind(), ErrorKind::Unavailable);
    assert!(
        problem.chain().contains("cni plugin not initialized: no network config found in"),
        "{}",
        problem.chain()
    );
    host.conf("20-b.conf", &json!({"cniVersion": "0.4.0", "name": "b", "type": "bridge"}));
    assert_eq!(names(&cni), ["b"]);
    host.conf(
        "10-a.conflist",
        &json!({"name": "a", "cniVersions": ["0.4.0", "1.1.0", "9.9.9"], "plugins": [{"type": "x"}]}),
    );
    assert_eq!(names(&cni), ["a"], "the first by name");
    assert_eq!(cni.networks().networks[0].version.as_str(), "1.1.0");
    let all = Cni::new(Settings { max_conf_num: 0, ..host.settings() });
    assert_eq!(names(&all), ["a", "b"]);
    fs::remove_dir_all(host.path("conf")).unwrap();
    assert!(cni.status().is_err() && names(&cni).is_empty());
    fs::create_dir_all(host.path("conf/c")).unwrap();
    host.conf("c.conflist", &json!({"cniVersion": "1.0.0", "name": "c"}));
    assert!(cni.status().unwrap_err().chain().contains("network c has no plugins"));
    fs::write(host.path("conf/c/10-x.conf"), json!({"type": "x"}).to_string()).unwrap();
    assert_eq!(cni.networks().networks[0].plugins[0].kind, "x", "plugins beside the list");
    assert!(cni.networks().networks[0].source.contains("\"x\""), "and kept with it");
}

#[test]
fn configurations_that_are_none_are_refused_by_name() {
    let host = Host::new(&[]);
    let cni = host.cni();
    for (wrong, why) in [
        ("{", "must be JSON"),
        (r#"{"name":"a","plugins":[{"type":"../evil"}]}"#, "is a path"),
        (r#"{"name":"a","plugins":[{"type":"/bin/sh"}]}"#, "is a path"),
        (r#"{"name":"a","plugins":[{"type":".."}]}"#, "is a path"),
        (r#"{"name":"a","plugins":[{}]}"#, "lacks its type"),
        (r#"{"name":"../a","plugins":[{"type":"x"}]}"#, "cannot name"),
        (r#"{"plugins":[{"type":"x"}]}"#, "cannot name"),
        (r#"{"name":"a","cniVersion":"7","plugins":[{"type":"x"}]}"#, "unknown CNI version"),
        (r#"{"name":"a","cniVersions":["7"],"plugins":[{"type":"x"}]}"#, "none of the versions"),
        (r#"{"name":"a","disableCheck":"maybe","plugins":[{"type":"x"}]}"#, "true or false"),
        (r#"{"name":"a","plugins":7}"#, "must be a list"),
    ] {
        fs::write(host.path("conf/a.conflist"), wrong).unwrap();
        let error = cni.status().unwrap_err().chain();
        assert!(error.contains(why) && error.contains("a.conflist"), "{wrong}: {error}");
    }
    let bad = Attachment { container: "a/../b".into(), ..Attachment::default() };
    assert!(cni.add(&bad).unwrap_err().to_string().contains("cannot name"));
    let bad = Attachment {
        container: "a".into(),
        arguments: vec![("A".into(), "1;B=2".into())],
        ..Attachment::default()
    };
    assert!(cni.add(&bad).unwrap_err().to_string().contains("cannot be given"));
}

#[test]
fn status_and_versions_are_the_plugins_own() {
    let host = Host::new(&["one", "two"]);
    host.conf("10-net.conflist", &chain("1.0.0"));
    let cni = host.cni();
    cni.status().unwrap();
    assert!(host.commands().is_empty(), "STATUS came with 1.1.0");
    host.conf("10-net.conflist", &chain("1.1.0"));
    cni.status().unwrap();
    assert_eq!(host.commands(), ["one-STATUS", "two-STATUS"]);
    host.program("answer-STATUS-two", "#!/bin/sh\necho '{\"code\": 50, \"msg\": \"not yet\"}'; exit 1\n");
    let error = cni.status().unwrap_err();
    assert_eq!((error.kind(), error.chain().contains("not yet")), (ErrorKind::Unavailable, true));
    assert_eq!(cni.versions("one").unwrap(), ["1.0.0", "1.1.0"]);
    assert!(cni.versions("three").unwrap_err().to_string().contains("install it"));
}

#[test]
fn networks_of_one_pod_are_added_together_or_not_at_all() -> Result<(), need::Missing> {
    need::root()?;
    for is_serial in [false, true] {
        let host = Host::new(&["one", "two"]);
        host.conf("1.conf", &json!({"cniVersion": "0.3.1", "name": "first", "type": "one"}));
        host.conf("2.conf", &json!({"name": "second", "type": "two"}));
        let cni = Cni::new(Settings { max_conf_num: 0, is_serial, ..host.settings() });
        in_a_namespace(|pod| {
            let attached = cni.add(pod).unwrap();
            assert_eq!(attached.addresses("eth1").len(), 1);
            assert_eq!(host.records(), 2);
            assert_eq!(cni.check(pod).unwrap_err().kind(), ErrorKind::NotImplemented);
            cni.del(pod).unwrap();
            host.program("answer-ADD-two", "#!/bin/sh\nexit 1\n");
            assert!(cni.add(pod).unwrap_err().to_string().contains("network second"));
            assert_eq!(host.records(), 0);
        });
    }
    Ok(())
}

#[test]
fn the_reference_plugins_make_check_and_remove_a_network() -> Result<(), need::Missing> {
    need::root()?;
    let folder = testkit::programs::peers().join("cni-1.1.1/usr/lib/cni");
    need::that(folder.join("bridge").exists(), "the reference CNI plugins")?;
    for version in ["0.4.0", "1.0.0"] {
        let host = Host::new(&[]);
        let leases = host.path("leases");
        host.conf(
            "10-net.conflist",
            &json!({"cniVersion": version, "name": "net", "plugins": [
                {"type": "bridge", "bridge": "cni-t0", "isGateway": true, "hairpinMode": true,
                 "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": "10.99.0.0/24"}]],
                          "routes": [{"dst": "0.0.0.0/0"}]}},
                {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
            ]}),
        );
        let cni = Cni::new(Settings { bin_dirs: vec![folder.clone()], ..host.settings() });
        // The host's side is a namespace of the test too.
        in_new_network(|| {
            in_a_namespace(|pod| attach_on_a_bridge(&cni, pod, &leases));
            Ok(())
        })
        .unwrap();
        assert_eq!(host.records(), 0);
    }
    Ok(())
}

fn attach_on_a_bridge(cni: &Cni, pod: &Attachment, leases: &Path) {
    let attached = cni.add(pod).unwrap();
    let address = attached.addresses("eth0")[0].to_string();
    assert_eq!(address, "10.99.0.2");
    let lease = fs::read_to_string(leases.join("net").join(&address)).unwrap();
    assert_eq!(lease, "pod-1\r\neth0");
    cni.check(pod).unwrap();
    assert!(cni.versions("bridge").unwrap().contains(&"1.0.0".to_owned()));
    // Again, as after a crash that forgot the answer: the first address is given back.
    assert_eq!(cni.add(pod).unwrap().addresses("eth0")[0].to_string(), "10.99.0.3");
    assert!(!leases.join("net").join(&address).exists());
    cni.check(pod).unwrap();
    cni.del(pod).unwrap();
    cni.del(pod).unwrap();
    assert!(!leases.join("net").join("10.99.0.3").exists());
}
