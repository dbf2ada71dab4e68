//! A daemon that is killed without warning, and what it finds again. Where the promise is
//! containerd's too, the test runs on both.

use testkit::{Daemon, Invocation, Kind, image, processes, wait};

const IMAGE: &str = "berth.test/busybox:1";

/// Runs `test` on a fresh daemon of each kind that has the image.
fn on_both(test: impl Fn(&mut Daemon)) {
    on(&[Kind::Berth, Kind::Containerd], test);
}

fn on(kinds: &[Kind], test: impl Fn(&mut Daemon)) {
    for kind in kinds.iter().copied() {
        let Ok(image) = image::busybox() else { return };
        let Ok(mut daemon) = Daemon::start(kind) else { return };
        let archive = daemon.scratch().file("busybox.tar", image.oci_archive());
        let Ok(import) = daemon.ctr() else { return };
        import.line("images import --local").arg(archive).ok();
        test(&mut daemon);
        daemon.finish();
    }
}

fn ctr(daemon: &Daemon, line: &str) -> Invocation {
    daemon.ctr().expect("it was there for the import").line(line)
}

/// The state of a task as `ctr tasks ls` has it, none without the task.
fn status(daemon: &Daemon, id: &str) -> Option<String> {
    let list = ctr(daemon, "tasks ls").ok();
    let mut lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .find(|words| words.first() == Some(&id))
        .and_then(|words| words.get(2).map(|word| (*word).to_owned()))
}

fn pid(daemon: &Daemon, id: &str) -> u32 {
    let list = ctr(daemon, "tasks ls").ok();
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(id));
    let word = line.and_then(|line| line.split_whitespace().nth(1)).expect("the task is listed");
    word.parse().expect("a pid is a number")
}

fn end(daemon: &Daemon, id: &str) {
    ctr(daemon, &format!("tasks delete --force {id}")).outcome();
    ctr(daemon, &format!("containers delete {id}")).ok();
}

#[test]
fn running_containers_are_there_again_with_exec_and_the_same_process() {
    on_both(|daemon| {
        ctr(daemon, &format!("run -d --null-io {IMAGE} stays sleep 1000")).ok();
        let before = pid(daemon, "stays");
        daemon.kill();
        daemon.restart();
        assert_eq!(pid(daemon, "stays"), before);
        assert_eq!(status(daemon, "stays").as_deref(), Some("RUNNING"));
        assert_eq!(ctr(daemon, "tasks exec --exec-id e stays echo inside").ok(), "inside\n");
        end(daemon, "stays");
    });
}

#[test]
fn a_container_that_ended_meanwhile_has_its_exit_code() {
    // containerd forgets such a task, and its exit code with it.
    on(&[Kind::Berth], |daemon| {
        ctr(daemon, &format!("run -d --null-io {IMAGE} ends sleep 1000")).ok();
        let watched = wait::Watched::open(pid(daemon, "ends")).expect("it runs");
        daemon.kill();
        watched.signal(rustix::process::Signal::KILL);
        assert!(watched.ends_within(wait::SOON));
        daemon.restart();
        wait::soon("the exit to be known", || status(daemon, "ends").as_deref() == Some("STOPPED"));
        let deleted = ctr(daemon, "tasks delete ends").outcome();
        // ctr 2.3 warns of it and exits with 0.
        assert!(deleted.stderr_text().contains("exit code 137"), "{deleted}");
        ctr(daemon, "containers delete ends").ok();
    });
}

#[test]
fn a_shim_that_died_meanwhile_leaves_nothing_behind() {
    on_both(|daemon| {
        ctr(daemon, &format!("run -d --null-io {IMAGE} orphan sleep 1000")).ok();
        let init = wait::Watched::open(pid(daemon, "orphan")).expect("it runs");
        daemon.kill();
        for shim in processes::tagged(daemon.tag()).iter().filter(|process| process.command.contains("shim"))
        {
            wait::Watched::open(shim.pid).expect("it runs").signal(rustix::process::Signal::KILL);
        }
        daemon.restart();
        assert!(init.ends_within(wait::SOON), "nobody ended the orphan's process");
        wait::soon("the task to be forgotten", || status(daemon, "orphan").is_none());
        ctr(daemon, "containers delete orphan").ok();
    });
}

#[test]
fn a_shim_that_dies_is_told_as_an_exit() {
    on_both(|daemon| {
        let run = ctr(daemon, &format!("run --null-io {IMAGE} victim sleep 1000")).start();
        wait::soon("the task", || status(daemon, "victim").as_deref() == Some("RUNNING"));
        let init = wait::Watched::open(pid(daemon, "victim")).expect("it runs");
        for shim in processes::tagged(daemon.tag()).iter().filter(|process| process.command.contains("shim"))
        {
            wait::Watched::open(shim.pid).expect("it runs").signal(rustix::process::Signal::KILL);
        }
        assert!(init.ends_within(wait::SOON), "nobody ended the process");
        let outcome = run.wait();
        assert!(!outcome.status.success(), "{outcome}");
        end(daemon, "victim");
    });
}

#[test]
fn records_survive_a_kill_right_after_their_answer() {
    on_both(|daemon| {
        for number in 0..20 {
            ctr(daemon, &format!("namespaces create kept-{number}")).ok();
            if number % 5 == 4 {
                daemon.kill();
                daemon.restart();
            }
        }
        let names = ctr(daemon, "namespaces ls -q").ok();
        for number in 0..20 {
            assert!(names.lines().any(|name| name == format!("kept-{number}")), "{number} of {names}");
        }
        ctr(daemon, "images check --quiet").ok();
        assert!(ctr(daemon, "images ls -q").ok().contains(IMAGE));
    });
}
