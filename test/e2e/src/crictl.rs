//! Kubernetes' client for people.

use testkit::{Daemon, Invocation, programs};

/// `crictl` at a daemon's socket; panics where it is missing, so look for it first.
#[track_caller]
pub fn crictl(daemon: &Daemon, line: &str) -> Invocation {
    let socket = format!("unix://{}", daemon.address().display());
    let program = programs::find("crictl").expect("it was looked for before the daemon was started");
    // Without a file of its own it reads the machine's.
    let config = daemon.scratch().file("crictl.yaml", "timeout: 120\n");
    Invocation::new(program)
        .arg("--config")
        .arg(config)
        .args(["--runtime-endpoint", &socket, "--image-endpoint", &socket])
        .line(line)
}
