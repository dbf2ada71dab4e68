//! What must not be had through the CRI: the rows of published advisories that a kubelet's requests and images reach.

use std::fs;
use std::path::{Path, PathBuf};

use berth_proto::runtime::v1 as proto;
use e2e::{Answer, Node, container, pod};
use proto::SupplementalGroupsPolicy;
use serde_json::json;
use testkit::image::Layer;
use testkit::{image, wait};

/// Changes what is asked for on Linux.
fn with(
    mut config: proto::ContainerConfig,
    change: impl FnOnce(&mut proto::LinuxContainerSecurityContext),
) -> proto::ContainerConfig {
    let linux = config.linux.get_or_insert_default();
    change(linux.security_context.get_or_insert_default());
    config
}

/// Demands an error, whether a container is refused when it is made or when it is started.
#[track_caller]
fn refused(node: &Node, pod: &str, of: &proto::PodSandboxConfig, config: &proto::ContainerConfig) -> String {
    match node.started(pod, of, config) {
        Err(error) => error.message().to_owned(),
        Ok(id) => panic!("it was started: {:?}", node.status(&id)),
    }
}

#[test]
fn a_log_does_not_leave_its_pods_folder() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let canary = node.path("canary");
        fs::create_dir(&canary).expect("the scratch folder takes a folder");
        fs::write(canary.join("file"), "as it was").expect("the scratch folder takes a file");
        let logs = node.path("logs/pod");
        std::os::unix::fs::symlink(&canary, logs.join("folder")).expect("a link can be made");
        std::os::unix::fs::symlink(canary.join("file"), logs.join("link")).expect("a link can be made");
        let absolute = canary.join("absolute.log").display().to_string();
        let paths = [
            "../../canary/up.log",
            "a/../../../canary/up.log",
            &absolute,
            "folder/through.log",
            "link",
            "..",
        ];
        for (number, path) in paths.iter().enumerate() {
            let mut config = container(&format!("c{number}"), &["echo", "evil"]);
            (*path).clone_into(&mut config.log_path);
            match node.started(&pod, &of, &config) {
                Err(error) => assert!(error.message().contains("log"), "{path}: {error}"),
                // It may run without a log; it may not write through the link.
                Ok(id) => drop(node.ended(&id)),
            }
            let names: Vec<_> = fs::read_dir(&canary).expect("it is there").flatten().collect();
            assert_eq!(names.len(), 1, "{path}: {names:?}");
            assert_eq!(fs::read_to_string(canary.join("file")).expect("it is there"), "as it was", "{path}");
        }
        node.away(&pod);
    });
}

#[test]
fn kernel_parameters_of_the_host_are_not_set() {
    Node::run(|node| {
        let run = |node: &Node, name: &str, host: bool, pairs: &[(&str, &str)]| -> Answer<String> {
            let mut config = pod(node, name);
            let linux = config.linux.as_mut().expect("it has it");
            linux.sysctls = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            let options =
                linux.security_context.as_mut().and_then(|context| context.namespace_options.as_mut());
            let options = options.expect("it has them");
            if host {
                options.network = proto::NamespaceMode::Node.into();
                options.ipc = proto::NamespaceMode::Node.into();
            }
            node.run_pod(&config)
        };
        let read = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
        let names = ["kernel/core_pattern", "kernel/hostname", "kernel/shmmax", "vm/overcommit_memory"];
        let before = names.map(read);
        let bad = [
            ("kernel.core_pattern", "|/evil"),
            ("kernel/core_pattern", "|/evil"),
            ("vm.overcommit_memory", "1"),
            ("kernel.hostname", "evil"),
            ("net/../kernel/core_pattern", "|/evil"),
            ("net.../kernel/core_pattern", "|/evil"),
            ("net.ipv4.ip_forward", "1\nkernel.core_pattern=|/evil"),
            ("net.ipv4.ip_forward+kernel.core_pattern", "1"),
            ("net.no.such.parameter", "1"),
            ("", "1"),
        ];
        for (key, value) in bad {
            let error = run(node, "bad", false, &[(key, value)]).expect_err(key);
            assert!(error.message().contains("sysctl"), "{key}: {error}");
        }
        for (key, value) in
            [("net.ipv4.ip_forward", "1"), ("kernel.shmmax", "65536"), ("fs.mqueue.msg_max", "11")]
        {
            let error = run(node, "host", true, &[(key, value)]).expect_err(key);
            assert!(error.message().contains(key), "{key}: {error}");
        }
        assert_eq!(names.map(read), before);

        let good =
            [("net.ipv4.ip_forward", "1"), ("kernel.shmmax", "65536"), ("net.ipv4.tcp_syncookies", "0")];
        let id = run(node, "good", false, &good).expect("they are the pod's own");
        let of = pod(node, "good");
        let own = node.started(&id, &of, &container("c", &["sleep", "1000"])).expect("it starts");
        for (key, value) in good {
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            assert_eq!(node.sh(&own, &format!("cat {path}")).trim(), value, "{key}");
        }
        assert_eq!(names.map(read), before);
        node.away(&id);
    });
}

#[test]
fn a_user_that_is_no_user_is_refused_wherever_it_comes_from() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let users = [
            "2147483648",
            "4294967296",
            "-1",
            "0x0",
            "+0",
            "18446744073709551616",
            "0:4294967296",
            "0:-1",
            "no",
        ];
        for (number, user) in users.iter().enumerate() {
            let name = format!("berth.test/user:{number}");
            let base = image::busybox().expect("it was looked for").named(&name);
            node.import(&base.set("User", json!(user)));
            let mut config = container(&format!("image{number}"), &["id"]);
            config.image.as_mut().expect("it has one").image.clone_from(&name);
            let error = refused(node, &pod, &of, &config);
            assert!(error.contains(user.trim_start_matches("0:")), "{user}: {error}");
            if !user.contains(':') {
                let config = with(container(&format!("name{number}"), &["id"]), |security| {
                    security.run_as_username = (*user).to_owned();
                });
                let error = refused(node, &pod, &of, &config);
                assert!(error.contains(user), "{user}: {error}");
            }
        }
        for (number, value) in [-1, 1 << 31, 1 << 32, i64::MIN].into_iter().enumerate() {
            let value = Some(proto::Int64Value { value });
            let user =
                with(container(&format!("u{number}"), &["id"]), |security| security.run_as_user = value);
            refused(node, &pod, &of, &user);
            let group = with(container(&format!("g{number}"), &["id"]), |security| {
                security.run_as_user = Some(proto::Int64Value { value: 0 });
                security.run_as_group = value;
            });
            refused(node, &pod, &of, &group);
        }
        node.away(&pod);
    });
}

/// A wish for an identity: user of the image, user, name, group, more groups, policy.
type Wish = (&'static str, Option<i64>, &'static str, Option<i64>, &'static [i64], SupplementalGroupsPolicy);

/// What `id` says for each wish on a node.
fn identities(node: &Node) -> Vec<String> {
    use SupplementalGroupsPolicy::{Merge, Strict};
    const WISHES: [Wish; 13] = [
        ("", None, "", None, &[], Merge),
        ("web", None, "", None, &[], Merge),
        ("web", None, "", None, &[], Strict),
        ("web:nogroup", None, "", None, &[7, 8], Merge),
        ("1000", None, "", None, &[], Merge),
        ("1000:50", None, "", None, &[], Strict),
        ("4242", None, "", None, &[9], Merge),
        ("", Some(1000), "", None, &[], Merge),
        ("", Some(1000), "", Some(4), &[5], Merge),
        ("", Some(1000), "", Some(4), &[5], Strict),
        ("", None, "web", None, &[50, 50], Merge),
        ("", None, "web", Some(50), &[], Merge),
        ("web", Some(4242), "", Some(4243), &[], Merge),
    ];
    let of = pod(node, "pod");
    let pod = node.run_pod(&of).expect("a pod can be run");
    let wishes = WISHES.iter().enumerate();
    let said = wishes.map(|(number, (image, user, name, group, more, policy))| {
        let reference = format!("berth.test/groups:{number}");
        let base = image::busybox().expect("it was looked for").named(&reference);
        let users = Layer::new()
            .file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n", 0o644)
            .file(
                "etc/group",
                b"root:x:0:\nweb:x:1000:\nstaff:x:50:web\nmore:x:60000:root,web\nnogroup:x:65534:\n",
                0o644,
            );
        node.import(&base.layer(users).set("User", json!(image)));
        let script = "id -u; id -g; id -G | tr ' ' '\\n' | sort -n | uniq | tr '\\n' ' '";
        let mut config = with(container(&format!("c{number}"), &["sh", "-c", script]), |security| {
            security.run_as_user = user.map(|value| proto::Int64Value { value });
            security.run_as_group = group.map(|value| proto::Int64Value { value });
            (*name).clone_into(&mut security.run_as_username);
            security.supplemental_groups = more.to_vec();
            security.set_supplemental_groups_policy(*policy);
        });
        config.image.as_mut().expect("it has one").image = reference;
        let id = node.started(&pod, &of, &config).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(node.ended(&id).exit_code, 0, "{number}");
        let log = node.log("pod", &format!("c{number}"));
        let words = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect::<Vec<_>>().join(" ");
        format!("{number}: {}", words.trim())
    });
    let said = said.collect();
    node.away(&pod);
    said
}

#[test]
fn users_have_the_groups_that_they_have_with_containerd() {
    let (mut wanted, mut found) = (Vec::new(), Vec::new());
    Node::oracle(|node| wanted = identities(node));
    Node::run(|node| found = identities(node));
    if !wanted.is_empty() {
        assert_eq!(found, wanted, "berthd on the left, containerd on the right");
    }
}

/// The most that the daemon has ever had in memory, in bytes (proc_pid_status(5)).
fn peak(node: &Node) -> u64 {
    let pid = node.daemon.pid().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("every process has it");
    line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).expect("it is a number") << 10
}

#[test]
fn output_of_a_command_beyond_what_a_message_holds_is_dropped_and_costs_no_memory() {
    const MOST: usize = 16 << 20;
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let id = node.started(&pod, &of, &container("c", &["sleep", "1000"])).expect("it starts");
        let before = peak(node);
        let script = "head -c 400000000 /dev/zero & head -c 50000000 /dev/zero >&2; wait; exit 6";
        let answer = node.exec(&id, &["sh", "-c", script]).expect("it is run");
        assert_eq!((answer.stdout.len(), answer.stderr.len(), answer.exit_code), (MOST, MOST, 6));
        let more = peak(node) - before;
        assert!(more < 10 * MOST as u64, "the daemon took {more} bytes more");
        node.away(&pod);
    });
}

/// What kubelets ask to be masked and to be read-only, unless a pod says otherwise.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[test]
fn a_container_sees_and_may_no_more_than_is_usual() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let usual = with(container("c", &["sleep", "1000"]), |security| {
            security.masked_paths = MASKED.map(str::to_owned).into();
            security.readonly_paths = READ_ONLY.map(str::to_owned).into();
        });
        let id = node.started(&pod, &of, &usual).expect("it starts");
        let masked = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"];
        for path in masked {
            assert_eq!(node.sh(&id, &format!("[ -e {path} ] && cat {path} || true")), "", "{path}");
        }
        for path in ["/sys/firmware", "/sys/devices/virtual/powercap", "/proc/acpi", "/proc/scsi"] {
            assert_eq!(node.sh(&id, &format!("[ -e {path} ] && ls {path} || true")), "", "{path}");
        }
        for path in [
            "/proc/sysrq-trigger",
            "/proc/sys/kernel/core_pattern",
            "/sys/kernel/uevent_helper",
            "/proc/irq/x",
        ] {
            let script = format!("(echo evil > {path}) 2>/dev/null && echo written || echo refused");
            assert_eq!(node.sh(&id, &script), "refused\n", "{path}");
        }
        let field = |id: &str, name: &str| {
            let script =
                format!("sed -n 's/^{name}:[[:space:]]*//p' /proc/1/status /proc/self/status | uniq");
            node.sh(id, &script).trim().to_owned()
        };
        assert_eq!(field(&id, "CapInh"), "0000000000000000");
        assert_eq!(field(&id, "CapEff"), "00000000a80425fb");
        assert_eq!(field(&id, "CapBnd"), "00000000a80425fb");
        assert_eq!(node.sh(&id, "ls /proc/1/fd | tr '\\n' ' '"), "0 1 2 ");

        let few = with(container("few", &["sleep", "1000"]), |security| {
            security.capabilities = Some(proto::Capability {
                add_capabilities: vec!["NET_ADMIN".to_owned()],
                drop_capabilities: vec!["ALL".to_owned()],
                ..Default::default()
            });
            security.no_new_privs = true;
            security.readonly_rootfs = true;
            security.masked_paths = vec!["/etc/passwd".to_owned()];
            security.seccomp = Some(proto::SecurityProfile {
                profile_type: proto::security_profile::ProfileType::RuntimeDefault.into(),
                ..Default::default()
            });
        });
        let few = node.started(&pod, &of, &few).expect("it starts");
        assert_eq!(field(&few, "CapEff"), "0000000000001000");
        assert_eq!(field(&few, "CapBnd"), "0000000000001000");
        assert_eq!(field(&few, "NoNewPrivs"), "1");
        assert_eq!(field(&few, "Seccomp"), "2");
        assert_eq!(node.sh(&few, "cat /etc/passwd"), "");
        assert_eq!(node.sh(&few, "(echo > /file) 2>/dev/null && echo written || echo refused"), "refused\n");
        let unknown = with(container("unknown", &["true"]), |security| {
            security.capabilities =
                Some(proto::Capability { add_capabilities: vec!["EVIL".to_owned()], ..Default::default() });
        });
        let error = refused(node, &pod, &of, &unknown);
        assert!(error.contains("EVIL"), "{error}");
        node.away(&pod);
    });
}

#[test]
fn a_working_directory_that_is_somebodys_descriptor_is_refused() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        for number in 0..16 {
            let mut config = container(&format!("c{number}"), &["sh", "-c", "cat etc/hostname; pwd; ls -a"]);
            config.working_dir = format!("/proc/self/fd/{number}");
            if let Ok(id) = node.started(&pod, &of, &config) {
                let status = node.ended(&id);
                let log = node.log("pod", &format!("c{number}"));
                panic!("descriptor {number}: {status:?}\n{log}");
            }
        }
        node.away(&pod);
    });
}

/// Names and contents beneath a folder.
fn tree(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("it is there").flatten() {
        if entry.path().is_dir() {
            all.extend(tree(&entry.path()));
        }
        all.push((entry.path(), fs::read_to_string(entry.path()).unwrap_or_default()));
    }
    all.sort();
    all
}

#[test]
fn an_image_reaches_nothing_of_the_host_by_its_volumes_users_and_labels() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let canary = node.path("canary");
        fs::create_dir(&canary).expect("the scratch folder takes a folder");
        fs::write(canary.join("secret"), "the host's").expect("the scratch folder takes a file");
        let before = tree(&canary);
        let host = canary.display().to_string();
        let up = format!("/..{}", "/..".repeat(12)) + &host;
        let base = || image::busybox().expect("it was looked for");

        // Volumes: out of the root by name, and by a link.
        for (number, volume) in [up.as_str(), "/link", "/link/secret"].into_iter().enumerate() {
            let name = format!("berth.test/volume:{number}");
            let layer = Layer::new().symlink("link", &host);
            node.import(&base().named(&name).layer(layer).set("Volumes", json!({ volume: {} })));
            let script = format!(
                "cat {volume}/secret {volume} /link/secret {host}/secret 2>/dev/null; touch {volume}/new; true"
            );
            let mut config = container(&format!("v{number}"), &["sh", "-c", &script]);
            config.image.as_mut().expect("it has one").image = name;
            if let Ok(id) = node.started(&pod, &of, &config) {
                node.ended(&id);
            }
            let log = node.log("pod", &format!("v{number}"));
            assert!(!log.contains("the host's"), "{volume}: {log}");
            assert_eq!(tree(&canary), before, "{volume}");
        }

        // Users: read from what is no file of the image.
        let fifo = image::tar::Entry::new(image::EntryKind::Fifo, "etc/passwd");
        let layers = [
            Layer::new().symlink("etc/passwd", &format!("{host}/secret")),
            Layer::new().symlink("etc/passwd", "/dev/zero"),
            Layer::new().entry(&fifo),
        ];
        for (number, layer) in layers.into_iter().enumerate() {
            let name = format!("berth.test/passwd:{number}");
            node.import(&base().named(&name).layer(layer).set("User", json!("web")));
            let mut config = container(&format!("p{number}"), &["id"]);
            config.image.as_mut().expect("it has one").image = name;
            let error = refused(node, &pod, &of, &config);
            assert!(!error.contains("the host's"), "{error}");
        }

        // Labels: those that mean something to a daemon are not an image's to give.
        let name = "berth.test/labels:1";
        let evil = node.path("evil");
        let labels = json!({
            "containerd.io/restart.loguri": format!("binary:///bin/touch?{}", evil.display()),
            "containerd.io/restart.status": "running",
            "io.cri-containerd.kind": "sandbox",
            "io.berth.restart": "always",
            "plain": "kept",
        });
        node.import(&base().named(name).set("Labels", labels));
        let mut config = container("labels", &["sleep", "1000"]);
        config.image.as_mut().expect("it has one").image = name.to_owned();
        let id = node.started(&pod, &of, &config).expect("it starts");
        let record = node.ctr(&format!("containers info {id}")).ok();
        let record: serde_json::Value = serde_json::from_str(&record).expect("ctr answers in JSON");
        let labels = record["Labels"].as_object().cloned().unwrap_or_default();
        let keys: Vec<&str> = labels.keys().map(String::as_str).collect();
        assert_eq!(keys, ["io.cri-containerd.kind", "plain"]);
        assert_eq!(labels["io.cri-containerd.kind"], "container");
        assert!(!evil.exists());
        node.away(&pod);
        wait::soon("the end of the container", || node.containers().is_empty());
    });
}
