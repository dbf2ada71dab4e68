//! What two plugins may and may not do to one container.

use std::collections::BTreeMap;

use super::{Creation, MergeError, Updates};
use crate::owners::{Conflict, Owners};
use crate::proto::*;

const ID: &str = "c1";

fn container() -> Container {
    Container {
        id: ID.into(),
        env: vec!["PATH=/bin".into(), "COLOUR=grey".into()],
        mounts: vec![mount("/proc"), mount("/data")],
        annotations: [("kept".into(), "yes".into()), ("old".into(), "1".into())].into(),
        ..Container::default()
    }
}

fn mount(destination: &str) -> Mount {
    Mount { destination: destination.into(), r#type: "bind".into(), ..Mount::default() }
}

fn variable(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: value.into() }
}

fn creation() -> Creation {
    Creation::new(PodSandbox::default(), container())
}

fn adjust(adjust: ContainerAdjustment) -> CreateContainerResponse {
    CreateContainerResponse { adjust: Some(adjust), ..Default::default() }
}

fn linux(linux: LinuxContainerAdjustment) -> CreateContainerResponse {
    adjust(ContainerAdjustment { linux: Some(linux), ..Default::default() })
}

fn resources(resources: LinuxResources) -> CreateContainerResponse {
    linux(LinuxContainerAdjustment { resources: Some(resources), ..Default::default() })
}

fn env(entries: &[(&str, &str)]) -> CreateContainerResponse {
    let env = entries.iter().map(|(key, value)| variable(key, value)).collect();
    adjust(ContainerAdjustment { env, ..Default::default() })
}

fn names(plugins: (&str, &str), what: &str) -> MergeError {
    let (first, second) = (plugins.0.to_owned(), plugins.1.to_owned());
    MergeError::Conflict(Conflict { container: ID.into(), first, second, what: what.into() })
}

/// Each thing that has one owner, asked for by two.
#[test]
fn two_plugins_that_want_the_same_thing_are_refused() {
    let limit = |value| Some(OptionalInt64 { value });
    let rlimit = PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 2, soft: 1 };
    let policy = LinuxSeccomp { default_action: "SCMP_ACT_ALLOW".into(), ..Default::default() };
    let device = LinuxDevice { path: "/dev/x".into(), r#type: "c".into(), ..Default::default() };
    let namespace = LinuxNamespace { r#type: "network".into(), path: "/run/netns/x".into() };
    let page = HugepageLimit { page_size: "2MB".into(), limit: 4 };
    let text = |value: &str| Some(OptionalString { value: value.into() });
    let cases = vec![
        (adjust(ContainerAdjustment { annotations: one("a", "b"), ..Default::default() }), "Annotations a"),
        (adjust(ContainerAdjustment { mounts: vec![mount("/new")], ..Default::default() }), "Mounts /new"),
        (env(&[("COLOUR", "red")]), "Env COLOUR"),
        (adjust(ContainerAdjustment { args: vec!["sh".into()], ..Default::default() }), "Args"),
        (
            adjust(ContainerAdjustment { rlimits: vec![rlimit], ..Default::default() }),
            "Rlimits RLIMIT_NOFILE",
        ),
        (
            adjust(ContainerAdjustment {
                cdi_devices: vec![CdiDevice { name: "v/c=d".into() }],
                ..Default::default()
            }),
            "CdiDevices v/c=d",
        ),
        (linux(LinuxContainerAdjustment { devices: vec![device], ..Default::default() }), "Devices /dev/x"),
        (linux(LinuxContainerAdjustment { cgroups_path: "/x".into(), ..Default::default() }), "CgroupsPath"),
        (
            linux(LinuxContainerAdjustment {
                oom_score_adj: Some(OptionalInt { value: 1 }),
                ..Default::default()
            }),
            "OomScoreAdj",
        ),
        (
            linux(LinuxContainerAdjustment {
                io_priority: Some(LinuxIoPriority { class: 1, priority: 2 }),
                ..Default::default()
            }),
            "IoPriority",
        ),
        (
            linux(LinuxContainerAdjustment { seccomp_policy: Some(policy), ..Default::default() }),
            "SeccompPolicy",
        ),
        (
            linux(LinuxContainerAdjustment { namespaces: vec![namespace], ..Default::default() }),
            "Namespace network",
        ),
        (
            linux(LinuxContainerAdjustment { sysctl: one("kernel.x", "1"), ..Default::default() }),
            "Sysctl kernel.x",
        ),
        (
            linux(LinuxContainerAdjustment {
                net_devices: [("eth9".to_owned(), LinuxNetDevice::default())].into(),
                ..Default::default()
            }),
            "LinuxNetDevices eth9",
        ),
        (
            linux(LinuxContainerAdjustment {
                scheduler: Some(LinuxScheduler { policy: 1, ..Default::default() }),
                ..Default::default()
            }),
            "LinuxSched",
        ),
        (
            linux(LinuxContainerAdjustment {
                rdt: Some(LinuxRdt { clos_id: text("gold"), ..Default::default() }),
                ..Default::default()
            }),
            "RdtClosID",
        ),
        (
            linux(LinuxContainerAdjustment {
                memory_policy: Some(LinuxMemoryPolicy::default()),
                ..Default::default()
            }),
            "MemoryPolicy",
        ),
        (
            resources(LinuxResources {
                memory: Some(LinuxMemory { limit: limit(9), ..Default::default() }),
                ..Default::default()
            }),
            "MemLimit",
        ),
        (
            resources(LinuxResources {
                memory: Some(LinuxMemory { swap: limit(9), ..Default::default() }),
                ..Default::default()
            }),
            "MemSwapLimit",
        ),
        (
            resources(LinuxResources {
                cpu: Some(LinuxCpu { quota: limit(9), ..Default::default() }),
                ..Default::default()
            }),
            "CPUQuota",
        ),
        (
            resources(LinuxResources {
                cpu: Some(LinuxCpu { cpus: "0-1".into(), ..Default::default() }),
                ..Default::default()
            }),
            "CPUSetCPUs",
        ),
        (
            resources(LinuxResources { hugepage_limits: vec![page], ..Default::default() }),
            "HugepageLimits 2MB",
        ),
        (
            resources(LinuxResources { unified: one("memory.high", "1"), ..Default::default() }),
            "CgroupsUnified memory.high",
        ),
        (resources(LinuxResources { blockio_class: text("slow"), ..Default::default() }), "BlockioClass"),
        (resources(LinuxResources { rdt_class: text("gold"), ..Default::default() }), "RdtClass"),
        (resources(LinuxResources { pids: Some(LinuxPids { limit: 7 }), ..Default::default() }), "PidsLimit"),
    ];
    for (wish, what) in cases {
        let mut creation = creation();
        creation.merge("10-a", wish.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let conflict = creation.merge("20-b", wish).expect_err(what);
        assert_eq!(conflict, names(("10-a", "20-b"), what));
    }
}

fn one(key: &str, value: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

#[test]
fn the_next_plugin_sees_what_those_before_it_changed() {
    let mut creation = creation();
    let first = ContainerAdjustment {
        annotations: [("-old".to_owned(), String::new()), ("new".to_owned(), "2".to_owned())].into(),
        env: vec![variable("COLOUR", "red"), variable("-PATH", "")],
        mounts: vec![mount("-/data"), mount("/data"), mount("-/proc")],
        ..Default::default()
    };
    creation.merge("10-a", adjust(first)).unwrap();
    let seen = creation.request.container.as_ref().unwrap();
    let kept = [("kept".to_owned(), "yes".to_owned()), ("new".to_owned(), "2".to_owned())];
    assert_eq!(seen.annotations, kept.into());
    assert_eq!(seen.env, ["COLOUR=red"]);
    let mounts: Vec<_> = seen.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(mounts, ["/data"]);
}

#[test]
fn a_plugin_may_take_over_what_it_removes_first() {
    let mut creation = creation();
    creation.merge("10-a", env(&[("COLOUR", "red")])).unwrap();
    creation.merge("20-b", env(&[("-COLOUR", ""), ("COLOUR", "blue")])).unwrap();
    let set: Vec<_> =
        creation.adjustment.env.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    assert_eq!(set, [("-COLOUR", ""), ("COLOUR", "blue")]);
    let third = creation.merge("30-c", env(&[("COLOUR", "green")])).unwrap_err();
    assert_eq!(third, names(("20-b", "30-c"), "Env COLOUR"));
}

#[test]
fn what_was_removed_belongs_to_who_removed_it() {
    let mut creation = creation();
    creation.merge("10-a", env(&[("COLOUR", "red")])).unwrap();
    creation.merge("20-b", env(&[("-COLOUR", "")])).unwrap();
    assert_eq!(creation.adjustment.env, [variable("-COLOUR", "")]);
    let third = creation.merge("30-c", env(&[("COLOUR", "green")])).unwrap_err();
    assert_eq!(third, names(("20-b", "30-c"), "Env COLOUR"));
}

#[test]
fn an_empty_first_argument_takes_the_arguments_over() {
    let args = |args: &[&str]| {
        let args = args.iter().map(|&argument| argument.to_owned()).collect();
        adjust(ContainerAdjustment { args, ..Default::default() })
    };
    let mut creation = creation();
    creation.merge("10-a", args(&["echo", "a"])).unwrap();
    creation.merge("20-b", args(&["", "echo", "b"])).unwrap();
    assert_eq!(creation.adjustment.args, ["echo", "b"]);
    assert_eq!(creation.merge("30-c", args(&["c"])), Err(names(("20-b", "30-c"), "Args")));
}

#[test]
fn hooks_of_all_plugins_add_up() {
    let hooks = |path: &str| {
        let hook = Hook { path: path.into(), ..Default::default() };
        let hooks = Hooks { prestart: vec![hook], ..Default::default() };
        adjust(ContainerAdjustment { hooks: Some(hooks), ..Default::default() })
    };
    let mut creation = creation();
    creation.merge("10-a", hooks("/a")).unwrap();
    creation.merge("20-b", hooks("/b")).unwrap();
    let paths: Vec<_> =
        creation.adjustment.hooks.unwrap().prestart.into_iter().map(|hook| hook.path).collect();
    assert_eq!(paths, ["/a", "/b"]);
    let owners = creation.owners.into_message();
    assert_eq!(owners.owners[ID].simple[&(Field::OciHooks as i32)], "10-a,20-b");
}

#[test]
fn removing_rdt_takes_its_fields_over() {
    let rdt = |rdt: LinuxRdt| linux(LinuxContainerAdjustment { rdt: Some(rdt), ..Default::default() });
    let id = |value: &str| Some(OptionalString { value: value.into() });
    let mut creation = creation();
    creation.merge("10-a", rdt(LinuxRdt { clos_id: id("gold"), ..Default::default() })).unwrap();
    creation
        .merge("20-b", rdt(LinuxRdt { remove: true, clos_id: id("iron"), ..Default::default() }))
        .unwrap();
    let asked = creation.adjustment.linux.unwrap().rdt.unwrap();
    assert_eq!((asked.remove, asked.clos_id), (true, id("iron")));
}

fn shares(container: &str, value: u64) -> ContainerUpdate {
    let cpu = LinuxCpu { shares: Some(OptionalUInt64 { value }), ..Default::default() };
    let resources = Some(LinuxResources { cpu: Some(cpu), ..Default::default() });
    let linux = Some(LinuxContainerUpdate { resources });
    ContainerUpdate { container_id: container.into(), linux, ignore_failure: false }
}

#[test]
fn a_container_that_is_being_made_cannot_be_updated() {
    let answer = CreateContainerResponse { update: vec![shares(ID, 5)], ..Default::default() };
    let error = creation().merge("10-a", answer).unwrap_err();
    assert!(matches!(error, MergeError::Unborn { .. }), "{error}");
}

#[test]
fn updates_of_one_container_by_several_plugins_become_one() {
    let (mut updates, mut owners) = (Updates::default(), Owners::default());
    updates.merge(&mut owners, "10-a", vec![shares("other", 5)]).unwrap();
    let mut pids = shares("other", 5);
    pids.linux.as_mut().unwrap().resources =
        Some(LinuxResources { pids: Some(LinuxPids { limit: 3 }), ..Default::default() });
    updates.merge(&mut owners, "20-b", vec![pids]).unwrap();
    let (_, others) = updates.finish();
    let [other] = others.as_slice() else { panic!("{others:?}") };
    let resources = other.linux.as_ref().unwrap().resources.as_ref().unwrap();
    assert_eq!(resources.cpu.as_ref().unwrap().shares, Some(OptionalUInt64 { value: 5 }));
    assert_eq!(resources.pids, Some(LinuxPids { limit: 3 }));
}

#[test]
fn an_update_that_may_fail_gives_way_to_another_plugins() {
    let (mut updates, mut owners) = (Updates::default(), Owners::default());
    updates.merge(&mut owners, "10-a", vec![shares("other", 5)]).unwrap();
    let second = ContainerUpdate { ignore_failure: true, ..shares("other", 6) };
    updates.merge(&mut owners, "20-b", vec![second]).unwrap();
    assert!(updates.merge(&mut owners, "30-c", vec![shares("other", 7)]).is_err());
    assert_eq!(updates.finish().1, [shares("other", 5)]);
}

#[test]
fn a_clients_update_is_what_plugins_make_of_it() {
    let asked = shares(ID, 2).linux.unwrap().resources.unwrap();
    let (mut updates, mut owners) = (Updates::of(ID, asked), Owners::default());
    updates.merge(&mut owners, "10-a", vec![shares(ID, 9)]).unwrap();
    let seen = updates.wanted().unwrap().cpu.as_ref().unwrap().shares;
    assert_eq!(seen, Some(OptionalUInt64 { value: 9 }));
    let (wanted, others) = updates.finish();
    assert!(wanted.unwrap().changed && others.is_empty());
}
