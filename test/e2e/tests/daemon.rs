//! The daemon as a process: its folders, its signals, its service manager, its configuration.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Daemon, Invocation, Kind, Scratch, Setup, need, programs, wait};

fn signal(daemon: &Daemon, signal: Signal) {
    let pid = daemon.pid().expect("it runs");
    wait::Watched::open(pid).expect("it runs").signal(signal);
}

fn logged(daemon: &Daemon, text: &str) {
    wait::soon(text, || daemon.log().contains(text));
}

/// berthd with folders of its own, and the words of `line`.
fn berthd(scratch: &Scratch, line: &str) -> Option<Invocation> {
    let program = programs::own("berthd").ok_or(()).or_else(|()| need::program("berthd")).ok()?;
    let flags = |name: &str, file: &str| [format!("--{name}"), scratch.path(file).display().to_string()];
    Some(
        Invocation::new(program)
            .args(flags("root", "root"))
            .args(flags("state", "state"))
            .args(flags("address", "d.sock"))
            .line(line),
    )
}

#[test]
fn folders_and_sockets_are_tight_whatever_the_umask_was() {
    if need::root().is_err() {
        return;
    }
    let scratch = Scratch::new();
    let Some(program) = programs::own("berthd") else { return };
    // A root that an older daemon made too open.
    fs::create_dir(scratch.path("root")).expect("the scratch folder takes a folder");
    let script = "umask 000; chmod 755 root; exec \"$0\" --root $PWD/root --state $PWD/state --address $PWD/run/d.sock";
    let running =
        Invocation::new("sh").args(["-c", script]).arg(&program).current_dir(scratch.folder()).start();
    let mode = |path: &str| fs::symlink_metadata(scratch.path(path)).map(|found| found.mode() & 0o7777);
    // The last thing that is done to the last socket before the daemon answers.
    wait::soon("the sockets", || mode("run/d.sock.ttrpc").is_ok_and(|mode| mode == 0o660));
    for (path, wanted) in [
        ("root", 0o700),
        ("root/daemon.lock", 0o600),
        ("root/io.containerd.metadata.v1.bolt", 0o700),
        ("root/io.containerd.snapshotter.v1.overlayfs", 0o700),
        ("root/io.containerd.grpc.v1.introspection/uuid", 0o600),
        ("state", 0o711),
        ("state/io.containerd.runtime.v2.task", 0o711),
        ("state/s", 0o700),
        ("run", 0o770),
        ("run/d.sock", 0o660),
        ("run/d.sock.ttrpc", 0o660),
    ] {
        let found = mode(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(found, wanted, "{path} has mode {found:o} and not {wanted:o}");
    }
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), 0);
    assert!(!scratch.path("run/d.sock").exists() && !scratch.path("run/d.sock.ttrpc").exists());
}

#[test]
fn a_service_manager_hears_of_every_step() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let manager = UnixDatagram::bind(&path).expect("the scratch folder takes a socket");
    manager.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket takes a limit");
    let environment = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())];
    let Ok(mut daemon) = Daemon::with(Kind::Berth, Setup { environment, ..Setup::default() }) else { return };
    let heard = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("the daemon tells");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    signal(&daemon, Signal::HUP);
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(), "READY=1");
    daemon.stop();
    assert_eq!(heard(), "STOPPING=1");
    daemon.finish();
}

#[test]
fn a_reload_takes_up_what_can_change_and_names_the_rest() {
    let Ok(daemon) = Daemon::start(Kind::Berth) else { return };
    let first = fs::read_to_string(daemon.config()).expect("it was written");
    signal(&daemon, Signal::HUP);
    logged(&daemon, "the config has not changed");

    let other = first.replacen("version = 2", "version = 2\noom_score = -7", 1);
    fs::write(daemon.config(), &other).expect("the scratch folder takes a config");
    signal(&daemon, Signal::HUP);
    logged(&daemon, "takes effect when the daemon is started again");
    assert!(daemon.log().contains("key=oom_score"), "{}", daemon.log_tail());

    fs::write(daemon.config(), "version = 2\nrooot = '/x'\n").expect("the scratch folder takes a config");
    signal(&daemon, Signal::HUP);
    logged(&daemon, "nothing changes");
    assert!(daemon.log().contains("nearest is"), "{}", daemon.log_tail());

    signal(&daemon, Signal::USR1);
    logged(&daemon, "how the daemon is");
    fs::write(daemon.config(), first).expect("the scratch folder takes a config");
    daemon.finish();
}

#[test]
fn a_config_that_is_wrong_keeps_the_daemon_from_starting() {
    let scratch = Scratch::new();
    for (text, complaint) in [
        (
            "version = 2\n[grpc]\n adress = '/x'\n",
            "unknown key \"adress\" in [grpc]; the nearest is \"address\"",
        ),
        ("version = 1\n", "version = 2"),
        ("version = 2\nimports = ['absent.toml']\n", "absent.toml"),
        (
            "version = 2\nrequired_plugins = ['io.containerd.snapshotter.v1.absent']\n",
            "required plugin io.containerd.snapshotter.v1.absent not included",
        ),
        ("version = 2\nroot = 'relative'\n", "absolute path"),
        (
            "version = 2\n[plugins.'io.containerd.differ.v1.erofs']\n enable_dmverity = true\n",
            "dm-verity devices",
        ),
        ("version = 2\n[debug]\n level = 'loud'\n", "unknown log level"),
    ] {
        let config = scratch.file("config.toml", text);
        let Some(program) = programs::own("berthd") else { return };
        let mut daemon = Invocation::new(program).arg("--config").arg(config);
        if !text.contains("root =") {
            daemon = daemon.arg("--root").arg(scratch.path("root"));
        }
        let daemon =
            daemon.arg("--state").arg(scratch.path("state")).arg("--address").arg(scratch.path("d.sock"));
        let said = daemon.within(Duration::from_secs(30)).fails();
        assert!(said.contains(complaint), "{said}");
        assert!(!scratch.path("d.sock").exists());
    }
    let said = berthd(&scratch, "--config /no/such/file").map(Invocation::fails);
    assert!(said.is_none_or(|said| said.contains("/no/such/file")));
}

#[test]
fn places_that_cannot_be_are_named() {
    if need::root().is_err() {
        return;
    }
    let scratch = Scratch::new();
    scratch.file("root", "a file");
    let Some(daemon) = berthd(&scratch, "") else { return };
    let said = daemon.fails();
    assert!(said.contains(&scratch.path("root").display().to_string()), "{said}");
    fs::remove_file(scratch.path("root")).expect("it is there");

    scratch.file("d.sock", "a file");
    let said = berthd(&scratch, "").expect("it was there").fails();
    assert!(said.contains("is no socket"), "{said}");
    assert!(Path::new(&scratch.path("d.sock")).exists(), "it is not the daemon's to remove");
}

#[test]
fn a_dump_of_a_config_reads_as_the_same() {
    let scratch = Scratch::new();
    let text = "version = 2\noom_score = -5\n[grpc]\n address = '/x/d.sock'\n gid = 7\n\
                [plugins.'io.containerd.grpc.v1.cri']\n sandbox_image = 'p'\n";
    let config = scratch.file("config.toml", text).display().to_string();
    let Some(program) = programs::own("berthd") else { return };
    let dump = |config: &str, command: &str| {
        Invocation::new(&program).args(["--config", config, "config", command]).ok()
    };
    let first = dump(&config, "dump");
    assert!(first.contains("version = 4") && first.contains("gid = 7"), "{first}");
    assert!(first.contains("[plugins.\"io.containerd.cri.v1.images\".pinned_images]"), "{first}");
    let second = scratch.file("second.toml", &first).display().to_string();
    assert_eq!(dump(&second, "dump"), first);
    assert_eq!(dump(&second, "migrate"), first);
}

#[test]
fn under_the_name_of_containerd_it_has_its_places_and_name() {
    let setup = Setup { name: Some("containerd"), ..Setup::default() };
    let Ok(mut daemon) = Daemon::with(Kind::Berth, setup) else { return };
    let Ok(containerd) = Kind::Containerd.program() else { return };
    let said = |program: &Path, line: &str| Invocation::new(program).line(line).ok();
    let words = |program: &Path| -> Vec<String> {
        said(program, "--version").split_whitespace().map(str::to_owned).collect()
    };
    let (ours, theirs) = (words(daemon.program()), words(&containerd));
    assert_eq!((ours.len(), &ours[..2]), (4, &theirs[..2]));
    assert!(ours[2].starts_with("2.3.4"), "{ours:?}");
    let places = |program: &Path| -> Vec<String> {
        let config = said(program, "config default").replace('"', "'");
        let place = |line: &&str| {
            ["version =", "root =", "state =", "address = '/run"].iter().any(|key| line.starts_with(key))
        };
        config.lines().map(str::trim).filter(place).map(str::to_owned).collect()
    };
    assert_eq!(places(daemon.program()), places(&containerd));

    // Units and scripts start it, speak to it, and start it anew.
    for _ in 0..2 {
        let Ok(ctr) = daemon.ctr() else { return };
        assert!(ctr.line("version").ok().contains("Version:  2.3.4"));
        daemon.stop();
        daemon.restart();
    }
    daemon.finish();
}

#[test]
fn the_log_has_containerds_forms() {
    let Ok(daemon) = Daemon::start(Kind::Berth) else { return };
    let log = daemon.log();
    let booted = log.lines().find(|line| line.contains("successfully booted")).expect("it says so");
    assert!(booted.starts_with("time=\"20") && booted.contains("\" level=info msg=\""), "{booted}");
    daemon.finish();

    let scratch = Scratch::new();
    let Some(daemon) = berthd(&scratch, "--log-format json --log-level error") else { return };
    scratch.file("state", "a file");
    assert!(!daemon.fails().is_empty());
    let Some(daemon) = berthd(&scratch, "--log-format xml") else { return };
    assert!(daemon.fails().contains("text and json are known"));
}
