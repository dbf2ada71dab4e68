//! Times of a container's life beside runc's, printed: `cargo run --release --example time -- BUNDLE [RUNC]`.
//!
//! `BUNDLE` is a folder with `rootfs` and `config.json`; the latter is made when it is missing. Each round makes, starts, awaits and deletes a container;
//! by turns with `runc run` when that is given.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_container::{Container, Create, Deletion, Exec, Stdio};

const ROUNDS: usize = 40;

fn main() {
    let mut args = std::env::args().skip(1);
    let bundle = PathBuf::from(args.next().expect("a bundle"));
    let runc = args.next();
    if !bundle.join("config.json").exists() {
        configure(&bundle);
    }
    let mut stages: [Vec<Duration>; 6] = Default::default();
    let mut theirs = Vec::new();
    for round in 0..ROUNDS {
        for (stage, time) in stages.iter_mut().zip(ours(&bundle, round)) {
            stage.push(time);
        }
        if let Some(runc) = &runc {
            theirs.push(runcs(runc, &bundle, round));
        }
    }
    for (name, times) in ["create", "start", "exit", "delete", "total", "exec"].iter().zip(&mut stages) {
        print(name, times);
    }
    if runc.is_some() {
        print("runc run", &mut theirs);
    }
}

fn configure(bundle: &Path) {
    use berth_oci::runtime::{default, default_seccomp};
    let mut spec = default::spec("time", "c");
    let process = spec.process.get_or_insert_default();
    process.args = vec!["/bin/true".into()];
    process.env = vec![default::PATH_ENV.into()];
    let linux = spec.linux.get_or_insert_default();
    linux.seccomp = Some(default_seccomp(process.capabilities.as_ref()));
    std::fs::write(bundle.join("config.json"), spec.to_vec()).expect("config.json");
}

fn print(name: &str, times: &mut [Duration]) {
    times.sort();
    let ms = |at: usize| times[at].as_secs_f64() * 1000.0;
    println!(
        "{name:10} min {:6.2}  median {:6.2}  p90 {:6.2} ms",
        ms(0),
        ms(times.len() / 2),
        ms(times.len() * 9 / 10)
    );
}

fn ours(bundle: &Path, round: usize) -> [Duration; 6] {
    let begun = Instant::now();
    let create = Create {
        id: format!("time-{round}"),
        bundle: bundle.to_owned(),
        root: bundle.join("state"),
        stdio: Stdio::Inherit,
        ..Create::default()
    };
    let mut container = Container::create(create).expect("create").container;
    let created = begun.elapsed();
    let mut exec = Duration::ZERO;
    let mut paused = Duration::ZERO;
    if std::env::var_os("EXEC").is_some() {
        let at = Instant::now();
        let process = container.default_process(&["/bin/true".into()]);
        let done = container.exec(Exec { process, ..Exec::default() }).expect("exec");
        wait(done.pidfd.as_fd());
        exec = at.elapsed();
        paused = exec;
    }
    let at = begun.elapsed();
    container.start().expect("start");
    let started = begun.elapsed();
    wait(container.pidfd().expect("ours"));
    let ended = begun.elapsed();
    container.delete(Deletion::Stopped).expect("delete");
    let total = begun.elapsed();
    [created, started - at, ended - started, total - ended, total - paused, exec]
}

fn wait(pidfd: std::os::fd::BorrowedFd<'_>) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).expect("wait");
}

fn runcs(runc: &str, bundle: &Path, round: usize) -> Duration {
    let begun = Instant::now();
    let status = std::process::Command::new(runc)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(format!("runc-time-{round}"))
        .status()
        .expect("runc");
    assert!(status.success());
    begun.elapsed()
}
