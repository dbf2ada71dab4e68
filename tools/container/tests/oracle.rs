//! The same bundle run by runc: what a container sees must be the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::process::Command;

use support::Bundle;
use testkit::need;

/// Runs the bundle's script with runc; its output and exit code.
fn runc(bundle: &Bundle, runc: &std::path::Path) -> (String, i32) {
    std::fs::write(bundle.path("config.json"), bundle.spec.to_vec()).unwrap();
    let output = Command::new(runc)
        .arg("--root")
        .arg(bundle.path("runc"))
        .args(["run", "--bundle"])
        .arg(bundle.scratch.folder())
        .arg(format!("{}-runc", bundle.scratch.tag()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout) + &text(&output.stderr), output.status.code().unwrap_or(-1))
}

#[test]
fn a_container_sees_what_it_would_see_with_runc() {
    let Some(mut bundle) = Bundle::new() else { return };
    let Ok(program) = need::program("runc") else { return };
    bundle.process().env.push("B=1".into());
    bundle.process().user.additional_gids = vec![5, 6];
    bundle.spec.hostname = "inside".into();
    for script in [
        "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Umask)' /proc/self/status",
        "id; umask; pwd; hostname; env | sort; ulimit -n",
        // Masks differ in what lies behind them: type and options are not compared there.
        "cut -d' ' -f2,3 /proc/self/mounts | grep -vE '^(/proc|/sys)/|^/ ' | sort",
        "cut -d' ' -f2 /proc/self/mounts | sort",
        "ls -l /dev | cut -c1-10,33-47 | sort; ls -l /dev/fd /dev/ptmx /dev/core | sed 's/.*dev/dev/'",
        "for m in proc dev dev/pts dev/shm dev/mqueue sys run; do grep \" /$m \" /proc/self/mounts | cut -d' ' -f4 | tr , '\\n' | grep -vE 'size|inode|mode' | sort | tr '\\n' ' '; echo; done",
        "ls /proc/self/fd; ls /proc/self/ns; cat /proc/self/cgroup | cut -d: -f3 | sort -u; cat /proc/sys/kernel/hostname",
        "exit 9",
        "kill -9 $$",
    ] {
        let ours = bundle.script(script).run().unwrap();
        let theirs = runc(&bundle, &program);
        assert_eq!((ours.stdout + &ours.stderr, ours.code), theirs, "{script}");
    }
}

#[test]
fn refusals_say_what_runc_says() {
    let Some(mut bundle) = Bundle::new() else { return };
    let Ok(program) = need::program("runc") else { return };
    for args in [&["nope"][..], &["/nope"], &["/etc/passwd"]] {
        let error = bundle.args(args).run().unwrap_err().chain();
        let (theirs, _) = runc(&bundle, &program);
        let theirs = theirs.replace("\\\"", "\"");
        assert!(theirs.contains(&error), "{error} is not in {theirs}");
    }
}
