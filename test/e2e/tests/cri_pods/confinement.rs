//! What keeps pods apart from each other and from the host: users, cgroups, modes of files, and words that are more than
//! that.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, create, give_own_users, pod};
use serde_json::{Value, json};
use testkit::image::{self, Layer};

fn file(text: &str) -> String {
    fs::read_to_string(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The pid of a container's first process.
fn pid(node: &Node, id: &str) -> u32 {
    let tasks = node.ctr("tasks ls").ok();
    let line = tasks.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{tasks}"));
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a pid")
}

#[test]
fn a_pod_with_users_of_its_own_is_in_its_pods_cgroup_and_limited() {
    Node::run(|node| {
        let mut of = pod(node, "pod");
        let mut config = container("c", &["sleep", "1000"]);
        give_own_users(&mut of, &mut config);
        let id = node.run_pod(&of).expect("a pod can be run");
        config.linux.as_mut().expect("it has it").resources =
            Some(proto::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
        let one = node.started(&id, &of, &config).expect("it starts");
        assert_eq!(node.sh(&one, "id -u; touch /file && stat -c %u /file"), "0\n0\n");
        let pid = pid(node, &one);
        let map = file(&format!("/proc/{pid}/uid_map"));
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1000000", "65536"]);
        let own = format!("/{}/{one}", node.daemon.tag());
        for line in file(&format!("/proc/{pid}/cgroup")).lines() {
            let path = line.splitn(3, ':').nth(2).unwrap_or_default();
            // What nobody limits here may be left where it is.
            assert!(path.ends_with(&own) || line.starts_with("0::") || line.contains(":name="), "{line}");
        }
        let limits =
            ["memory/", ""].map(|kind| format!("/sys/fs/cgroup/{kind}{}", own.trim_start_matches('/')));
        let mut limits = limits.iter().flat_map(|folder| {
            ["memory.limit_in_bytes", "memory.max"].map(|name| Path::new(folder).join(name))
        });
        let limit = limits.find_map(|path| fs::read_to_string(path).ok());
        assert_eq!(limit.expect("it has a cgroup of memory").trim(), (64 << 20).to_string());
        node.away(&id);
    });
}

/// Whether nobody but the owner may anything.
fn is_roots(mode: u32) -> bool {
    mode & 0o700 == mode & 0o777
}

/// Everything beneath a folder but what is mounted from elsewhere.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path());
        let is_image = ["rootfs", "snapshots", "fs", "work"].iter().any(|name| entry.file_name() == *name);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_image {
            walk(&entry.path(), found);
        }
    }
}

#[test]
fn sockets_and_files_of_pods_are_roots_alone() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let config = proto::ContainerConfig { stdin: true, ..container("c", &["sleep", "1000"]) };
        let one = node.started(&id, &of, &config).expect("it starts");
        node.sh(&one, "true");
        let mode =
            |path: &Path| fs::symlink_metadata(path).map_or(0, |found| found.permissions().mode() & 0o7777);
        assert_eq!((mode(&node.daemon.root()), mode(&node.daemon.state())), (0o700, 0o711));
        let mut found = Vec::new();
        walk(&node.daemon.state(), &mut found);
        walk(&node.daemon.root(), &mut found);
        let mut sockets = 0;
        for path in &found {
            let Ok(metadata) = fs::symlink_metadata(path) else { continue };
            if metadata.file_type().is_socket() || metadata.file_type().is_fifo() {
                sockets += u32::from(metadata.file_type().is_socket());
                let parents = path.ancestors().skip(1).take_while(|parent| *parent != node.daemon.state());
                let is_private = parents.into_iter().any(|parent| is_roots(mode(parent)));
                assert!(is_roots(mode(path)) || is_private, "{} has mode {:o}", path.display(), mode(path));
            }
            // The shared memory of a pod is everybody's in it.
            let is_shared = path.ends_with("shm") || metadata.file_type().is_symlink();
            assert!(is_shared || mode(path) & 0o002 == 0, "{} has mode {:o}", path.display(), mode(path));
        }
        assert!(sockets > 0, "a shim listens somewhere");
        let abstract_ones = file("/proc/net/unix");
        let ours =
            abstract_ones.lines().filter(|line| line.contains('@') && line.contains(node.daemon.tag()));
        assert_eq!(ours.count(), 0, "{abstract_ones}");
        node.away(&id);
    });
}

#[test]
fn containers_that_are_made_at_once_have_nothing_of_each_other() {
    const MANY: usize = 200;
    Node::run(|node| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let asked: Vec<_> = (0..MANY)
            .map(|number| {
                let mut config = container(&format!("c{number}"), &["true"]);
                let value = number.to_string().into_bytes();
                config.envs.push(proto::KeyValue { key: format!("SECRET_{number}"), value });
                let request = create(&id, &of, &config);
                node.asking(|mut client| async move { client.create_container(request).await })
            })
            .collect();
        for (number, asked) in asked.into_iter().enumerate() {
            let made = node.answer(asked).expect("a container can be made").container_id;
            if number % 20 != 0 {
                continue;
            }
            let record: Value =
                serde_json::from_str(&node.ctr(&format!("containers info {made}")).ok()).expect("JSON");
            let env = record["Spec"]["process"]["env"].as_array().cloned().unwrap_or_default();
            let secrets: Vec<_> =
                env.iter().filter_map(Value::as_str).filter(|pair| pair.starts_with("SECRET_")).collect();
            assert_eq!(secrets, [format!("SECRET_{number}={number}")]);
        }
        node.away(&id);
    });
}

#[test]
fn what_would_be_a_line_in_a_database_of_users_is_none() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let evil = "/tmp\nevil::0:0::/:/bin/sh";
        let mut config = container("home", &["sleep", "1000"]);
        let home = proto::KeyValue { key: "HOME".to_owned(), value: evil.as_bytes().to_vec() };
        config.envs.push(home);
        let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        security.expect("it has it").run_as_user = Some(proto::Int64Value { value: 4242 });
        let one = node.started(&id, &of, &config).expect("it starts");
        assert_eq!(
            node.sh(&one, "grep -c evil /etc/passwd /etc/group || true"),
            "/etc/passwd:0\n/etc/group:0\n"
        );
        let mut config = container("folder", &["cat", "/etc/passwd"]);
        config.working_dir = evil.to_owned();
        if let Ok(one) = node.started(&id, &of, &config) {
            node.ended(&one);
        }
        assert!(!node.log("pod", "folder").contains("evil"));

        // A database that is too large is not read.
        let name = "berth.test/large:1";
        let mut users = b"web:x:7:7::/:/bin/sh\n".to_vec();
        users.resize(11 << 20, b'\n');
        let layer = Layer::new().file("etc/passwd", &users, 0o644);
        let image = image::busybox().expect("it was looked for").named(name).layer(layer);
        node.import(&image.set("User", json!("web")));
        let mut config = container("large", &["id"]);
        config.image.as_mut().expect("it has one").image = name.to_owned();
        let error = node.create(&id, &of, &config).expect_err("it is too large");
        assert!(error.message().contains("passwd"), "{error}");
        node.away(&id);
    });
}
