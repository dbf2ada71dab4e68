//! Devices that their vendors describe (CDI), in containers of command lines.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Cli, IMAGE};

/// Where daemons of devices write; command lines know no other place.
const FOLDER: &str = "/var/run/cdi";

/// A description that goes with the test.
struct Described(PathBuf);

impl Described {
    fn new(tag: &str) -> Self {
        fs::create_dir_all(FOLDER).expect("root makes folders");
        let text = format!(
            r#"{{"cdiVersion": "0.5.0", "kind": "{tag}.test/gpu", "devices": [{{"name": "0", "containerEdits":
            {{"env": ["GPU=there"], "deviceNodes": [{{"path": "/dev/gpu", "hostPath": "/dev/null"}}]}}}}]}}"#
        );
        let path = Path::new(FOLDER).join(format!("{tag}.json"));
        fs::write(&path, text).expect("root writes files");
        Self(path)
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_device_is_given_by_the_name_that_its_vendor_has_for_it() {
    let Ok(cli) = Cli::start() else { return };
    let tag = cli.daemon().tag().to_owned();
    let _described = Described::new(&tag);
    let device = format!("{tag}.test/gpu=0");
    let script = "echo x > /dev/gpu && echo $GPU";
    let said =
        cli.sh(&format!("run --rm --device {device} --device /dev/zero:/dev/more {IMAGE}"), script).ok();
    assert_eq!(said.trim(), "there");
    let made = cli.run(&format!("create --device {device} {IMAGE} true")).ok();
    let shown = cli.run("inspect --format").arg("{{json .HostConfig.DeviceRequests}}").arg(made.trim()).ok();
    assert_eq!(shown.trim(), format!(r#"[{{"DeviceIDs":["{device}"],"Driver":"cdi"}}]"#));
    cli.run("rm").arg(made.trim()).ok();

    let said = cli.run(&format!("run --rm --device {tag}.test/gpu=1 {IMAGE} true")).fails();
    assert!(said.contains(&format!("{tag}.test/gpu=1")) && said.contains("there are 0"), "{said}");

    // ctr reads the description itself.
    if let Ok(ctr) = cli.daemon().ctr() {
        let said = ctr.line(&format!("run --rm --device {device} {IMAGE} by-ctr sh -c")).arg(script).ok();
        assert_eq!(said.trim(), "there");
    }
    cli.finish();
}
