//! The commands about containers that are there.

use e2e::{Cli, IMAGE};
use testkit::wait;

#[test]
fn logs_are_followed_tailed_and_bounded() {
    let Ok(cli) = Cli::start() else { return };
    cli.run(&format!("run -d --name one {IMAGE} sh -c"))
        .arg("for i in 1 2 3; do echo out $i; done; echo err >&2; sleep 0.3; echo end")
        .ok();
    let followed = cli.run("logs -f one").outcome();
    assert_eq!(followed.stdout_text(), "out 1\nout 2\nout 3\nend\n");
    assert_eq!(followed.stderr_text(), "err\n");
    assert_eq!(cli.run("logs --tail 1 one").ok(), "end\n");
    let stamped = cli.run("logs -t --tail 1 one").ok();
    assert!(stamped.ends_with("Z end\n") && stamped.starts_with("20"), "{stamped}");
    assert_eq!(cli.run("logs --until 1h one").ok(), "");
    assert_eq!(
        cli.run("logs --since 1h --tail 2 one").ok().lines().count(),
        1,
        "one of the two is standard error"
    );
    let path = cli.run("inspect --format {{.LogPath}} one").ok();
    let first = std::fs::read_to_string(path.trim()).expect("it is the log");
    assert!(first.starts_with(r#"{"log":"out 1\n","stream":"stdout","time":""#), "{first}");
    assert!(cli.run("logs missing").fails().contains("No such container: missing"));
    cli.finish();
}

#[test]
fn logs_rotate() {
    let Ok(cli) = Cli::start() else { return };
    let run = format!("run --name one --log-opt max-size=4k --log-opt max-file=3 {IMAGE} sh -c");
    cli.run(&run).arg("for i in $(seq 1000); do echo line number $i; done").ok();
    let lines = cli.run("logs one").ok();
    assert!(lines.ends_with("line number 1000\n") && !lines.starts_with("line number 1\n"), "{lines}");
    let numbers: Vec<u32> = lines
        .lines()
        .map(|line| line.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number"))
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no line is lost between files");
    cli.finish();
}

#[test]
fn ps_lists_filters_and_formats() {
    let Ok(cli) = Cli::start() else { return };
    let id = cli.sleeper("one", "--label a=b");
    cli.run(&format!("run --name two {IMAGE} sh -c")).arg("exit 2").outcome();
    let table = cli.run("ps").ok();
    let head = "CONTAINER ID   IMAGE                  COMMAND        CREATED";
    assert!(table.starts_with(head), "{table}");
    assert!(
        table.contains(&id[..12]) && table.contains("\"sleep 1000\"") && !table.contains("two"),
        "{table}"
    );
    assert_eq!(cli.run("ps -q --no-trunc").ok().trim(), id);
    let names = |line: &str| cli.run(line).ok().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(names("ps -a --format {{.Names}}"), "two one");
    assert_eq!(names("ps -a --format {{.Names}} -f label=a"), "one");
    assert_eq!(names("ps -a --format {{.Names}} -f label=a=c"), "");
    assert_eq!(names("ps --format {{.Names}} -f status=exited"), "two");
    assert_eq!(names("ps -a --format {{.Names}} -f exited=2 -f name=t"), "two");
    assert_eq!(names("ps -l --format {{.Names}}"), "two");
    let json = cli.run("ps --format json").ok();
    let row: serde_json::Value = serde_json::from_str(&json).expect("a line of JSON");
    assert_eq!((row["Names"].as_str(), row["State"].as_str()), (Some("one"), Some("running")));
    assert!(cli.run("ps -f color=red").fails().contains("invalid filter"));
    cli.run("rename two three").ok();
    assert_eq!(names("ps -a --format {{.Names}}"), "three one");
    cli.finish();
}

#[test]
fn inspect_says_that_memory_ran_out() {
    let Ok(cli) = Cli::start() else { return };
    let fill = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    let killed = cli.run(&format!("run --name hog --memory 16m {IMAGE} {fill}")).outcome();
    assert_eq!(killed.code(), 137);
    cli.run(&format!("run --name calm --memory 16m {IMAGE} true")).ok();
    let state = ["inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "hog", "calm"];
    assert_eq!(cli.berth().args(state).ok(), "true 137\nfalse 0\n");
    cli.finish();
}

#[test]
fn inspect_has_dockers_shape() {
    let Ok(cli) = Cli::start() else { return };
    let id = cli.sleeper("one", "-e A=1 --memory 64m -v data:/data --tmpfs /t -w /tmp --label x=y");
    let text = cli.run("inspect one").ok();
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let one = &list[0];
    assert_eq!(one["Id"], id.as_str());
    assert_eq!(one["Name"], "/one");
    assert_eq!(one["Path"], "sleep");
    assert_eq!(one["Args"][0], "1000");
    assert_eq!(one["State"]["Status"], "running");
    assert!(one["State"]["Pid"].as_u64().is_some_and(|pid| pid > 1));
    assert_eq!(one["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(one["Config"]["WorkingDir"], "/tmp");
    assert_eq!(one["Config"]["Labels"]["x"], "y");
    assert_eq!(one["Mounts"][0]["Name"], "data");
    assert_eq!(one["GraphDriver"]["Name"], "overlayfs");
    assert!(text.starts_with("[\n    {\n        \"Id\": "), "{}", &text[..60]);
    let image = cli.run("inspect --type image --format").args(["{{.Os}}/{{index .RepoTags 0}}", IMAGE]).ok();
    assert_eq!(image.trim(), format!("linux/{IMAGE}"));
    let missing = cli.run("inspect missing").outcome();
    assert_eq!((missing.code(), missing.stdout_text().as_str()), (1, "[]\n"));
    cli.finish();
}

#[test]
fn files_are_copied_in_and_out() {
    let Ok(cli) = Cli::start() else { return };
    cli.sleeper("one", "");
    let file = cli.daemon().scratch().file("file", "text\n");
    cli.run("cp").arg(&file).arg("one:/tmp/in").ok();
    assert_eq!(cli.run("exec one cat /tmp/in").ok(), "text\n");
    cli.run("exec one ln -s /etc/passwd /tmp/link").ok();
    cli.run("cp one:/tmp/in").arg(cli.path("out")).ok();
    assert_eq!(std::fs::read_to_string(cli.path("out")).expect("it was copied"), "text\n");
    cli.run("cp one:/tmp").arg(cli.path("folder")).ok();
    assert!(cli.path("folder/link").is_symlink());
    let tar = cli.run("cp one:/tmp/in -").outcome().stdout;
    assert!(tar.len() >= 1024 && tar.windows(5).any(|bytes| bytes == b"text\n"));
    cli.run("exec one mkdir /unpacked").ok();
    cli.run("cp - one:/unpacked").input(tar).ok();
    assert_eq!(cli.run("exec one cat /unpacked/in").ok(), "text\n");
    // A link of the container's that points out of it leads nowhere on the host.
    cli.run("exec one ln -s").arg(cli.path("")).arg("/tmp/host").ok();
    cli.run("cp").arg(&file).arg("one:/tmp/host/evil").fails();
    assert!(!cli.path("evil").exists());
    cli.run("stop -t 0 one").ok();
    cli.run("cp").arg(&file).arg("one:/root/later").ok();
    cli.run("start one").ok();
    assert_eq!(cli.run("exec one cat /root/later").ok(), "text\n");
    assert!(cli.run("diff one").ok().lines().any(|line| line == "A /root/later"));
    cli.finish();
}

#[test]
fn a_container_is_frozen_limited_and_watched() {
    let Ok(cli) = Cli::start() else { return };
    cli.sleeper("one", "--memory 64m --pids-limit 50");
    cli.run("pause one").ok();
    assert!(cli.run("ps").ok().contains("(Paused)"));
    assert!(cli.run("pause one").fails().contains("already paused"));
    cli.run("unpause one").ok();
    assert!(cli.run("unpause one").fails().contains("not paused"));
    let table = cli.run("stats --no-stream").ok();
    assert!(table.contains("/ 64MiB"), "{table}");
    cli.run("update --memory 96m one").ok();
    assert!(cli.run("stats --no-stream").ok().contains("/ 96MiB"));
    assert_eq!(cli.run("inspect --format {{.HostConfig.Memory}} one").ok(), format!("{}\n", 96 << 20));
    let top = cli.run("top one").ok();
    assert!(top.starts_with("UID") && top.contains("sleep 1000"), "{top}");
    cli.finish();
}

#[test]
fn stop_kills_what_does_not_listen_and_restart_starts_again() {
    let Ok(cli) = Cli::start() else { return };
    cli.run(&format!("run -d --name deaf {IMAGE} sh -c"))
        .arg("trap '' TERM; while :; do sleep 0.1; done")
        .ok();
    cli.run("stop -t 1 deaf").ok();
    assert_eq!(cli.run("inspect --format {{.State.ExitCode}} deaf").ok(), "137\n");
    cli.sleeper("one", "--stop-signal KILL");
    let pid = || cli.run("inspect --format {{.State.Pid}} one").ok();
    let before = pid();
    cli.run("restart one").ok();
    cli.reaches("one", "running");
    assert_ne!(before, pid());
    cli.finish();
}

#[test]
fn a_restart_policy_starts_it_again_until_somebody_stops_it() {
    let Ok(cli) = Cli::start() else { return };
    cli.run(&format!("run -d --name one --restart always {IMAGE} sleep 1000")).ok();
    let pid = || cli.run("inspect --format {{.State.Pid}} one").ok();
    let before = pid();
    cli.run("exec one kill -9 1").outcome();
    let process: u32 = before.trim().parse().expect("a pid");
    if let Some(watched) = wait::Watched::open(process) {
        watched.signal(rustix::process::Signal::KILL);
    }
    wait::soon("the next process", || {
        let now = pid();
        now != before && now.trim() != "0"
    });
    cli.run("stop -t 0 one").ok();
    cli.reaches("one", "exited");
    cli.finish();
}

#[test]
fn a_foreground_container_outlives_the_daemon() {
    let Ok(mut cli) = Cli::start() else { return };
    let running = cli.sh(&format!("run --rm {IMAGE}"), "echo one; sleep 2; echo two; exit 6").start();
    // Often that is before the client has heard that the container was started.
    wait::soon("the first line", || running.stdout_so_far() == "one\n");
    cli.daemon_mut().kill();
    cli.daemon_mut().restart();
    let outcome = running.wait();
    assert_eq!((outcome.code(), outcome.stdout_text().as_str()), (6, "one\ntwo\n"), "{outcome}");
    assert_eq!(cli.run("ps -aq").ok(), "");
    cli.finish();
}

#[test]
fn a_hundred_containers_run_ten_at_a_time() {
    let Ok(cli) = Cli::start() else { return };
    std::thread::scope(|scope| {
        for worker in 0..10 {
            let cli = &cli;
            scope.spawn(move || {
                for number in 0..10 {
                    let text = format!("{worker}-{number}");
                    assert_eq!(cli.run(&format!("run --rm {IMAGE} echo {text}")).ok().trim(), text);
                }
            });
        }
    });
    assert_eq!(cli.run("ps -aq").ok(), "");
    cli.finish();
}

#[test]
fn what_is_restarted_goes_on_in_the_same_log() {
    let Ok(cli) = Cli::start() else { return };
    cli.run(&format!("run -d --name one --restart on-failure:2 {IMAGE} sh -c"))
        .arg("echo again; exit 1")
        .ok();
    wait::soon("the third line", || cli.run("logs one").ok() == "again\nagain\nagain\n");
    cli.finish();
}

#[test]
fn events_are_told_in_dockers_words() {
    let Ok(cli) = Cli::start() else { return };
    let watching =
        cli.run("events --filter type=container --format {{.Action}}:{{.Actor.Attributes.name}}").start();
    wait::soon("the first event", || {
        cli.run(&format!("run --rm --name one {IMAGE} true")).ok();
        let heard = watching.stdout_so_far();
        ["create:one", "start:one", "die:one"].iter().all(|line| heard.contains(line))
    });
    drop(watching);
    cli.finish();
}
