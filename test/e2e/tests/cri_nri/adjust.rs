//! What plugins make of containers.

use std::fs;

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, pod};
use testkit::{need, wait};
use tonic::Code;

use crate::bed::{connect, install, run, run_with, table, uninstall};

/// The specification of a container.
fn spec(node: &Node, id: &str) -> serde_json::Value {
    let info = node.ctr(&format!("containers info {id}")).ok();
    let info: serde_json::Value = serde_json::from_str(&info).expect("it is JSON");
    info["Spec"].clone()
}

#[test]
fn what_a_plugin_adjusts_is_seen_in_the_container() {
    run(|node, programs| {
        let folder = node.path("shared");
        fs::create_dir(&folder).expect("the scratch folder takes folders");
        fs::write(folder.join("word"), "hello").expect("the scratch folder takes a file");
        let hooked = node.path("hooked");
        let adjust = format!(
            r#""Adjust": {{
                "env": [{{"key": "COLOUR", "value": "red"}}, {{"key": "-OLD", "value": ""}}],
                "annotations": {{"example.com/by": "plugin"}},
                "mounts": [{{"destination": "/data", "type": "bind", "source": "{}", "options": ["rbind", "ro"]}}],
                "rlimits": [{{"type": "RLIMIT_NOFILE", "hard": "77", "soft": "66"}}],
                "hooks": {{"createRuntime": [{{"path": "/bin/sh", "args": ["sh", "-c", "echo ran > {}"]}}]}},
                "linux": {{
                    "devices": [{{"path": "/dev/extra", "type": "c", "major": "1", "minor": "3",
                        "fileMode": {{"value": 438}}}}],
                    "oomScoreAdj": {{"value": "321"}},
                    "sysctl": {{"net.ipv4.ip_forward": "1"}},
                    "resources": {{"cpu": {{"shares": {{"value": "1234"}}}}}}
                }}}}"#,
            folder.display(),
            hooked.display()
        );
        let (_scribe, journal) = connect(node, programs, "10-scribe", &adjust.replace('\n', " "));
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let mut config = container("main", &["sleep", "1000"]);
        config.envs = vec![proto::KeyValue { key: "OLD".to_owned(), value: b"1".to_vec() }];
        let main = node.started(&id, &of, &config).expect("it starts");
        let see = |script: &str| node.sh(&main, script).trim().to_owned();
        assert_eq!(
            see("echo $COLOUR$OLD; cat /data/word; touch /data/x 2>/dev/null || echo ro"),
            "red\nhelloro"
        );
        assert_eq!(see("ulimit -n; cat /proc/1/oom_score_adj"), "66\n321");
        assert_eq!(see("echo gone > /dev/extra; cat /proc/sys/net/ipv4/ip_forward"), "1");
        assert_eq!(fs::read_to_string(&hooked).expect("the hook was run"), "ran\n");
        let spec = spec(node, &main);
        assert_eq!(spec["annotations"]["example.com/by"], "plugin");
        assert_eq!(spec["linux"]["resources"]["cpu"]["shares"], 1234);

        // An update of something else leaves what the plugin set.
        let request = proto::UpdateContainerResourcesRequest {
            container_id: main.clone(),
            linux: Some(proto::LinuxContainerResources { cpu_period: 50_000, ..Default::default() }),
            ..Default::default()
        };
        node.ask(|mut client| async move { client.update_container_resources(request).await })
            .expect("it can be updated");
        let cpu = self::spec(node, &main)["linux"]["resources"]["cpu"].clone();
        assert_eq!((&cpu["shares"], &cpu["period"]), (&1234.into(), &50_000.into()), "{cpu}");
        node.away(&id);
        assert!(journal.has("RemoveContainer main"), "{:?}", journal.lines());
    });
}

#[test]
fn a_plugin_gives_a_container_a_device_that_a_vendor_describes() {
    let folders = "cdi_spec_dirs = ['SCRATCH/cdi']\n";
    run_with(&format!("{folders}{}", table("60s", "")), |node, programs| {
        let described = r#"{"cdiVersion": "0.5.0", "kind": "vendor.com/gpu", "devices": [{"name": "0",
            "containerEdits": {"env": ["GPU=there"], "deviceNodes": [{"path": "/dev/gpu", "hostPath": "/dev/null"}]}}]}"#;
        fs::create_dir(node.path("cdi")).expect("the scratch folder takes folders");
        fs::write(node.path("cdi/vendor.json"), described).expect("the scratch folder takes files");
        let adjust = r#""Adjust": {"CDIDevices": [{"name": "vendor.com/gpu=0"}]}"#;
        let (first, _) = connect(node, programs, "10-first", adjust);
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let main = node.started(&id, &of, &container("main", &["sleep", "1000"])).expect("it starts");
        assert_eq!(node.sh(&main, "echo x > /dev/gpu; echo $GPU").trim(), "there");
        drop(first);

        let (second, journal) = connect(node, programs, "10-second", &adjust.replace("gpu=0", "gpu=9"));
        let error =
            node.create(&id, &of, &container("other", &["true"])).expect_err("there is no such device");
        assert!(error.message().contains("vendor.com/gpu=9"), "{error}");
        assert!(journal.has("RemoveContainer other"), "{:?}", journal.lines());
        drop(second);
        node.away(&id);
    });
}

#[test]
fn plugins_of_other_people_adjust_a_container_and_disagree_by_name() {
    run(|node, programs| {
        let classes =
            r#"{"UnifiedAnnotations": ["misc.max"], "Classes": [{"Name": "swap", "SwapLimitRatio": 0.5}]}"#;
        install(node, "10-memory-qos", &programs.memory_qos, Some(classes));
        install(node, "20-sgx-epc", &programs.sgx_epc, None);
        node.daemon.stop();
        node.daemon.restart();
        let mut of = pod(node, "pod");
        let annotate = |of: &mut proto::PodSandboxConfig, key: &str, value: &str| {
            of.annotations.insert(key.to_owned(), value.to_owned());
        };
        annotate(&mut of, "class.memory-qos.nri.io", "swap");
        annotate(&mut of, "epc-limit.nri.io/container.main", "4096");
        let id = node.run_pod(&of).expect("a pod can be run");
        let mut config = container("main", &["true"]);
        let linux = config.linux.as_mut().expect("it has it");
        linux.resources =
            Some(proto::LinuxContainerResources { memory_limit_in_bytes: 1 << 30, ..Default::default() });
        let main = node.create(&id, &of, &config).expect("it is made");
        let unified = spec(node, &main)["linux"]["resources"]["unified"].clone();
        let expected = serde_json::json!({
            "memory.high": (1_u64 << 29).to_string(), "memory.swap.max": "max", "misc.max": "sgx_epc 4096"
        });
        assert_eq!(unified, expected);
        node.away(&id);

        annotate(&mut of, "misc.max.memory-qos.nri.io", "sgx_epc 1");
        let id = node.run_pod(&of).expect("a pod can be run");
        let error = node.create(&id, &of, &config).expect_err("two want the same");
        for word in ["10-memory-qos", "20-sgx-epc", "misc.max"] {
            assert!(error.message().contains(word), "{error}");
        }
        node.away(&id);
        uninstall(node);
    });
}

#[test]
fn required_plugins_and_validators_have_the_last_word() {
    let more = "[plugins.'io.containerd.nri.v1.nri'.default_validator]\nenable = true\n\
        required_plugins = ['needed']\nreject_oci_hook_adjustment = true\n";
    run_with(&table("60s", more), |node, programs| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let config = container("main", &["true"]);
        let error = node.create(&id, &of, &config).expect_err("a plugin is missing");
        assert!(error.message().contains("needed"), "{error}");

        let (needed, _) = connect(node, programs, "10-needed", "");
        let main = node.create(&id, &of, &config).expect("it is there");
        node.remove_container(&main).expect("it goes");

        let hooks = r#""Adjust": {"hooks": {"poststop": [{"path": "/bin/true"}]}}"#;
        let (hooker, told) = connect(node, programs, "20-hooker", hooks);
        let error = node.create(&id, &of, &config).expect_err("hooks are refused");
        assert_eq!(error.code(), Code::PermissionDenied);
        assert!(error.message().contains("20-hooker"), "{error}");
        // Whoever was asked hears that nothing came of it.
        assert!(told.has("RemoveContainer main"), "{:?}", told.lines());
        drop(hooker);

        let judge = r#""Events": ["validatecontaineradjustment"], "Reject": "not today""#;
        let (judge, told) = connect(node, programs, "90-judge", judge);
        let error = wait::until("the judge", wait::SOON, || {
            node.create(&id, &of, &config)
                .map(|made| {
                    node.remove_container(&made).expect("it goes");
                })
                .err()
        });
        assert!(error.message().contains("90-judge") && error.message().contains("not today"), "{error}");
        told.wait("ValidateContainerAdjustment main");
        drop((judge, needed));
        node.away(&id);
    });
}

#[test]
fn a_plugin_changes_limits_of_its_own_accord() {
    let v1 = std::path::Path::new("/sys/fs/cgroup/cpu").is_dir();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if need::that(v1 || controllers.contains("cpu"), "a cgroup that shares processors").is_err() {
        return;
    }
    run(|node, programs| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let main = node.started(&id, &of, &container("main", &["sleep", "1000"])).expect("it starts");
        let update = |id: &str| {
            format!(
                r#""Unsolicited": {{"containerId": "{id}",
                "linux": {{"resources": {{"cpu": {{"shares": {{"value": "512"}}}}}}}}}}"#
            )
            .replace('\n', " ")
        };
        let (_fine, fine) = connect(node, programs, "10-fine", &update(&main));
        assert_eq!(fine.wait("UpdateContainers"), "UpdateContainers 0 failed, <nil>");
        let shares = node.status(&main).expect("it is there").resources.and_then(|all| all.linux);
        assert_eq!(shares.expect("it has limits").cpu_shares, 512);
        let pid = node.ctr("tasks list").ok();
        let pid = pid.lines().find_map(|line| line.strip_prefix(main.as_str())).expect("it runs");
        let pid = pid.split_whitespace().next().expect("a number");
        let of_kernel = if v1 { "cpu.shares" } else { "cpu.weight" };
        let wanted = if v1 { "512" } else { "20" };
        assert_eq!(cgroup_file(pid, of_kernel).trim(), wanted);

        // One that has ended cannot be changed, one that is not there is passed over.
        node.stop_container(&main, 0).expect("it ends");
        let (_late, late) = connect(node, programs, "20-late", &update(&main));
        assert_eq!(late.wait("UpdateContainers"), "UpdateContainers 1 failed, <nil>");
        let (_lost, lost) = connect(node, programs, "30-lost", &update("nobody"));
        assert_eq!(lost.wait("UpdateContainers"), "UpdateContainers 0 failed, <nil>");
        node.away(&id);
    });
}

/// A file of a process's cgroup, of the hierarchy that has it.
fn cgroup_file(pid: &str, name: &str) -> String {
    let controller = name.split('.').next().expect("it has one");
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let place = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let folder = if controllers.is_empty() { String::new() } else { format!("/{controller}") };
        let is_it = controllers.is_empty() || controllers.split(',').any(|one| one == controller);
        is_it.then(|| fs::read_to_string(format!("/sys/fs/cgroup{folder}{path}/{name}")).ok()).flatten()
    };
    table.lines().find_map(place).unwrap_or_else(|| panic!("no {name} of {pid}: {table}"))
}
