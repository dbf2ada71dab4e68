//! Files in folders, and what a container gets of them.

use std::path::PathBuf;

use berth_types::ErrorKind;
use testkit::Scratch;

use super::*;

/// A vendor's file in each of the two forms that they write.
const YAML: &str = r#"---
cdiVersion: "1.1.0"
kind: vendor.com/gpu
annotations: {maker: it}
containerEdits:
  env: [ALL=1]
  mounts:
  - {hostPath: /usr/lib/gpu, containerPath: /usr/lib/gpu/deep, options: [ro, nosuid, rbind], type: none}
devices:
- name: "0"
  containerEdits:
    env: [COLOUR=red]
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/null, fileMode: 0640, permissions: rw}
    - {path: /dev/made, type: b, major: 7, minor: 9, uid: 3}
    hooks:
    - {hookName: createContainer, path: /usr/bin/gpu-hook, args: [gpu-hook, ldcache], timeout: 5}
    additionalGids: [44, 0]
    intelRdt: {closID: gold, schemata: ["L3:0=f"], enableMonitoring: true}
    netDevices:
    - {hostInterfaceName: eth9, name: eth1}
- name: all
  containerEdits: {env: [COLOUR=all]}
"#;
const JSON: &str = r#"{"cdiVersion": "0.5.0", "kind": "vendor.com/nic", "devices": [
    {"name": "a", "containerEdits": {"deviceNodes": [{"path": "/dev/zero"}]}}]}"#;

struct Bed {
    _scratch: Scratch,
    folders: Vec<PathBuf>,
}

fn bed(files: &[(usize, &str, &str)]) -> Bed {
    let scratch = Scratch::new();
    let folders = vec![scratch.path("etc"), scratch.path("run"), scratch.path("absent")];
    folders[..2].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    for (folder, name, text) in files {
        std::fs::write(folders[*folder].join(name), text).unwrap();
    }
    Bed { _scratch: scratch, folders }
}

impl Bed {
    fn inject(&self, names: &[&str]) -> Result<Spec> {
        let mut spec = Spec::default();
        spec.process.get_or_insert_default().env = vec!["COLOUR=grey".into(), "KEPT=1".into()];
        spec.process.get_or_insert_default().user.gid = 5;
        let wanted: Vec<DeviceName> = names.iter().map(|name| name.parse().unwrap()).collect();
        inject(&mut spec, &self.folders, &wanted).map(|()| spec)
    }
}

#[test]
fn a_container_gets_all_that_a_device_is_described_with() {
    let bed = bed(&[(0, "gpu.yaml", YAML), (1, "nic.json", JSON), (1, "notes.txt", "{")]);
    let spec = bed.inject(&["vendor.com/gpu=0", "vendor.com/nic=a", "vendor.com/gpu=0"]).unwrap();
    let expected: Spec = serde_json::from_str(
        r#"{"ociVersion": "",
        "process": {"user": {"uid": 0, "gid": 5, "additionalGids": [44]}, "cwd": "",
            "env": ["COLOUR=red", "KEPT=1", "ALL=1"]},
        "mounts": [{"destination": "/usr/lib/gpu/deep", "type": "none", "source": "/usr/lib/gpu",
            "options": ["ro", "nosuid", "rbind"]}],
        "hooks": {"createContainer": [{"path": "/usr/bin/gpu-hook", "args": ["gpu-hook", "ldcache"], "timeout": 5}]},
        "linux": {
            "devices": [
                {"path": "/dev/gpu0", "type": "c", "major": 1, "minor": 3, "fileMode": 416, "gid": 5},
                {"path": "/dev/made", "type": "b", "major": 7, "minor": 9, "uid": 3, "gid": 5},
                {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 438, "gid": 5}],
            "resources": {"devices": [
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
                {"allow": true, "type": "b", "major": 7, "minor": 9, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"}]},
            "netDevices": {"eth9": {"name": "eth1"}},
            "intelRdt": {"closID": "gold", "schemata": ["L3:0=f"], "enableMonitoring": true}}}"#,
    )
    .unwrap();
    assert_eq!(spec, expected);
}

#[test]
fn a_device_that_is_not_there_is_named_with_what_is() {
    let bed = bed(&[(0, "gpu.yaml", YAML), (0, "broken.yaml", "kind: [")]);
    let error = bed.inject(&["vendor.com/gpu=0", "vendor.com/gpu=1"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for word in ["vendor.com/gpu=1", "of vendor.com/gpu there are 0, all", "broken.yaml"] {
        assert!(error.message().contains(word), "{error}");
    }
}

#[test]
fn later_folders_have_precedence_and_two_of_one_folder_have_none() {
    let of = |value: &str| {
        format!(
            r#"{{"cdiVersion": "0.3.0", "kind": "v/g", "devices": [{{"name": "a", "containerEdits": {{"env": ["BY={value}"]}}}}]}}"#
        )
    };
    let (first, second) = (of("first"), of("second"));
    let bed = bed(&[(0, "a.json", &first), (0, "b.json", &first), (1, "c.json", &second)]);
    let spec = bed.inject(&["v/g=a"]).unwrap();
    assert!(spec.process.unwrap().env.contains(&"BY=second".to_owned()));

    std::fs::write(bed.folders[1].join("d.yaml"), &first).unwrap();
    let error = bed.inject(&["v/g=a"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.message().contains("c.json") && error.message().contains("d.yaml"), "{error}");
}

#[test]
fn files_that_are_not_valid_do_not_count_and_say_why() {
    let device = |edits: &str| {
        format!(
            r#"{{"cdiVersion": "1.1.0", "kind": "v/g", "devices": [{{"name": "a", "containerEdits": {edits}}}]}}"#
        )
    };
    for (text, why) in [
        (device("{}"), "changes nothing"),
        (device(r#"{"env": ["X"]}"#), "NAME=VALUE"),
        (device(r#"{"env": ["A=1"], "colour": 1}"#), "unknown field"),
        (device(r#"{"deviceNodes": [{"path": "/dev/x", "type": "z"}]}"#), "type is none of"),
        (device(r#"{"deviceNodes": [{"path": "/dev/x", "permissions": "rx"}]}"#), "rwm"),
        (device(r#"{"hooks": [{"hookName": "late", "path": "/h"}]}"#), "no such hook"),
        (device(r#"{"mounts": [{"hostPath": "/h"}]}"#), "containerPath"),
        (device(r#"{"intelRdt": {"closID": "../x"}}"#), "no name of a folder"),
        (
            device(
                r#"{"netDevices": [{"hostInterfaceName": "a", "name": "x"}, {"hostInterfaceName": "b", "name": "x"}]}"#,
            ),
            "twice",
        ),
        (device(r#"{"env": ["A=1"]}"#).replace("1.1.0", "9.0.0"), "9.0.0"),
        (device(r#"{"additionalGids": [1]}"#).replace("1.1.0", "0.6.0"), "came with 0.7.0"),
        (device(r#"{"env": ["A=1"]}"#).replace("v/g", "vg"), "no /"),
        (r#"{"cdiVersion": "1.1.0", "kind": "v/g", "devices": []}"#.to_owned(), "no devices"),
        ("x".repeat(5 << 20), "more than"),
    ] {
        let bed = bed(&[(0, "a.json", &text)]);
        let error = bed.inject(&["v/g=a"]).unwrap_err();
        assert!(error.message().contains("a.json") && error.message().contains(why), "{why}: {error}");
    }
}

#[test]
fn a_device_that_the_host_lacks_leaves_the_document_as_it_was() {
    let text = r#"{"cdiVersion": "0.3.0", "kind": "v/g", "devices": [{"name": "a",
        "containerEdits": {"env": ["A=1"], "deviceNodes": [{"path": "/dev/no-such-thing"}]}}]}"#;
    let bed = bed(&[(0, "a.json", text)]);
    let mut spec = Spec::default();
    let error = inject(&mut spec, &bed.folders, &["v/g=a".parse().unwrap()]).unwrap_err();
    assert!(error.chain().contains("/dev/no-such-thing"), "{error}");
    assert_eq!(spec, Spec::default());
}
