//! Other people's shims under berthd: containerd 2.3's and Debian's 1.6, each with runc, asked for by path
//! and by name, and driven by `ctr`.

use std::path::PathBuf;

use testkit::{Daemon, Invocation, Kind, Setup, image, need, processes, programs, wait};

const IMAGE: &str = "berth.test/busybox:1";
/// The name by which the shim is asked for; the rule of names leads to `containerd-shim-theirs-v2`.
const RUNTIME: &str = "io.example.theirs.v2";

/// A daemon with the image, and in its path the shim.
struct World {
    daemon: Daemon,
}

/// Both shims.
fn shims() -> Vec<PathBuf> {
    let found = [
        ("containerd 2.3's shim", programs::containerd("containerd-shim-runc-v2")),
        ("Debian's shim", programs::debian("containerd-shim-runc-v2")),
    ];
    found.into_iter().filter_map(|(what, path)| need::that(path.is_some(), what).ok().and(path)).collect()
}

/// Runs `test` once for each shim, and demands that nothing is left each time.
fn on_each(test: impl Fn(&mut World)) {
    if need::program("runc").is_err() {
        return;
    }
    let Ok(image) = image::busybox() else { return };
    for shim in shims() {
        let named = testkit::Scratch::new();
        std::os::unix::fs::symlink(&shim, named.path("containerd-shim-theirs-v2"))
            .expect("the scratch folder takes a link");
        // ctr passes options of runc only to this name.
        let config =
            format!("[plugins.'io.berth.runtime.v1.shims'.runtimes]\n'io.containerd.runc.v2' = {shim:?}\n");
        let setup = Setup { path: vec![named.folder().to_owned()], config, ..Setup::default() };
        let Ok(daemon) = Daemon::with(Kind::Berth, setup) else { return };
        let Ok(import) = daemon.ctr() else { return };
        let archive = daemon.scratch().file("busybox.tar", image.oci_archive());
        import.line("images import --local").arg(archive).ok();
        let mut world = World { daemon };
        test(&mut world);
        world.daemon.finish();
    }
}

impl World {
    fn ctr(&self, line: &str) -> Invocation {
        self.daemon.ctr().expect("it was there for the import").line(line)
    }

    /// `ctr run` with the shim.
    fn run(&self, line: &str) -> Invocation {
        self.ctr(&format!("run --runtime {RUNTIME} {line}"))
    }

    /// Pid and state of a task as `ctr tasks ls` has them.
    fn task(&self, id: &str) -> Option<(u32, String)> {
        let list = self.ctr("tasks ls").ok();
        let words = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = words.into_iter().find(|words| words.first() == Some(&id))?;
        Some((found.get(1)?.parse().ok()?, (*found.get(2)?).to_owned()))
    }

    fn state(&self, id: &str) -> Option<String> {
        self.task(id).map(|(_, state)| state)
    }

    fn pid(&self, id: &str) -> u32 {
        self.task(id).expect("the task is listed").0
    }

    fn remove(&self, id: &str) {
        self.ctr(&format!("tasks delete --force {id}")).outcome();
        self.ctr(&format!("containers delete {id}")).ok();
    }

    /// Deletes a task that has ended; ctr tells its exit code as a warning.
    fn deleted_with(&self, id: &str, code: u32) {
        let outcome = self.ctr(&format!("tasks delete {id}")).outcome();
        assert!(outcome.status.success(), "{outcome}");
        assert!(outcome.stderr_text().contains(&code.to_string()), "{outcome}");
    }

    fn kill_shims(&self) {
        for process in processes::tagged(self.daemon.tag()) {
            if process.command.contains("containerd-shim-") {
                let shim = wait::Watched::open(process.pid).expect("it runs");
                shim.signal(rustix::process::Signal::KILL);
                assert!(shim.ends_within(wait::SOON));
            }
        }
    }
}

#[test]
fn a_container_runs_with_its_output_and_its_exit_code() {
    on_each(|world| {
        let outcome = world.run(&format!("--rm {IMAGE} one sh -c")).arg("echo hello; exit 7").outcome();
        assert_eq!((outcome.code(), outcome.stdout_text().as_str()), (7, "hello\n"), "{outcome}");
        assert_eq!(world.ctr("tasks ls -q").ok(), "");
        assert_eq!(world.ctr("containers ls -q").ok(), "");
    });
}

#[test]
fn exec_pause_metrics_and_kill_work_on_a_running_container() {
    on_each(|world| {
        world.run(&format!("-d --null-io {IMAGE} one sleep 1000")).ok();
        assert_eq!(world.ctr("tasks exec --exec-id e one echo inside").ok(), "inside\n");
        let outcome = world.ctr("tasks exec --exec-id e one sh -c").arg("exit 4").outcome();
        assert_eq!(outcome.code(), 4, "{outcome}");
        world.ctr("tasks pause one").ok();
        assert_eq!(world.state("one").as_deref(), Some("PAUSED"));
        world.ctr("tasks resume one").ok();
        assert_eq!(world.state("one").as_deref(), Some("RUNNING"));
        assert!(world.ctr("tasks metrics one").ok().contains("one"));
        assert!(world.ctr("tasks ps one").ok().contains(&world.pid("one").to_string()));
        let refused = world.ctr("tasks delete one").fails();
        assert!(refused.contains("must be stopped") || refused.contains("failed precondition"), "{refused}");
        world.ctr("tasks kill --signal SIGKILL one").ok();
        wait::soon("the end", || world.state("one").as_deref() == Some("STOPPED"));
        let again = world.ctr("tasks kill --signal SIGKILL one").fails();
        assert!(again.contains("not found"), "{again}");
        world.deleted_with("one", 137);
        world.ctr("containers delete one").ok();
    });
}

#[test]
fn a_missing_command_is_told_in_runcs_words_and_leaves_nothing() {
    on_each(|world| {
        let complaint = world.run(&format!("--rm {IMAGE} one /no/such/command")).fails();
        assert!(complaint.contains("failed to create shim task"), "{complaint}");
        assert!(complaint.contains("/no/such/command"), "{complaint}");
        assert_eq!(world.ctr("tasks ls -q").ok(), "");
    });
}

#[test]
fn the_shim_is_also_found_by_its_path_and_gets_its_options() {
    on_each(|world| {
        for shim in shims() {
            let run = world.ctr("run --rm --runtime").arg(&shim).line(IMAGE).args(["one", "echo", "by path"]);
            assert_eq!(run.ok(), "by path\n");
        }
        let runc = need::program("runc").expect("it was there at the start");
        let run = world.ctr("run --rm --runc-binary").arg(&runc).line(IMAGE);
        assert_eq!(run.args(["two", "echo", "with options"]).ok(), "with options\n");
        let complaint =
            world.ctr(&format!("run --rm --runc-binary /no/such/runc {IMAGE} three true")).fails();
        assert!(complaint.contains("/no/such/runc"), "{complaint}");
    });
}

#[test]
fn a_killed_daemon_finds_its_containers_again_and_the_exit_codes_of_those_that_ended() {
    on_each(|world| {
        for name in ["stays", "ends"] {
            world.run(&format!("-d --null-io {IMAGE} {name} sleep 1000")).ok();
        }
        let before = world.pid("stays");
        let ending = wait::Watched::open(world.pid("ends")).expect("it runs");
        world.daemon.kill();
        ending.signal(rustix::process::Signal::KILL);
        assert!(ending.ends_within(wait::SOON));
        world.daemon.restart();
        assert_eq!(world.task("stays"), Some((before, "RUNNING".to_owned())));
        wait::soon("the exit to be known", || world.state("ends").as_deref() == Some("STOPPED"));
        assert_eq!(world.ctr("tasks exec --exec-id e stays echo inside").ok(), "inside\n");
        world.deleted_with("ends", 137);
        world.ctr("containers delete ends").ok();
        world.remove("stays");
    });
}

#[test]
fn a_shim_that_is_killed_takes_its_container_with_it_now_or_at_the_next_start() {
    on_each(|world| {
        world.run(&format!("-d --null-io {IMAGE} one sleep 1000")).ok();
        let init = wait::Watched::open(world.pid("one")).expect("it runs");
        world.kill_shims();
        assert!(init.ends_within(wait::SOON), "nobody ended the container");
        wait::soon("the task to go", || world.task("one").is_none());
        world.ctr("containers delete one").ok();

        world.run(&format!("-d --null-io {IMAGE} two sleep 1000")).ok();
        let init = wait::Watched::open(world.pid("two")).expect("it runs");
        world.daemon.kill();
        world.kill_shims();
        world.daemon.restart();
        assert!(init.ends_within(wait::SOON), "nobody ended the container");
        wait::soon("the task to go", || world.task("two").is_none());
        world.ctr("containers delete two").ok();
    });
}

#[test]
fn events_come_in_containerds_order() {
    on_each(|world| {
        let events = world.ctr("events").start();
        wait::soon("the subscription", || {
            world.ctr("namespaces label").arg(world.daemon.tag()).arg("seen=yes").outcome();
            events.stdout_so_far().contains("/namespaces/update")
        });
        world.run(&format!("--rm {IMAGE} one true")).ok();
        wait::soon("the last event", || events.stdout_so_far().contains("/containers/delete"));
        let told = events.stdout_so_far();
        let topics: Vec<&str> = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
            .into_iter()
            .filter(|topic| told.contains(topic))
            .collect();
        assert_eq!(topics.len(), 4, "{told}");
        let places: Vec<_> = topics.iter().map(|topic| told.find(topic)).collect();
        assert!(places.is_sorted(), "{told}");
        assert_eq!(told.matches("/tasks/exit").count(), 1, "{told}");
        assert_eq!(told.matches("/tasks/delete").count(), 1, "{told}");
    });
}
