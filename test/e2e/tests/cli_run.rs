//! `berth run`, `exec`, `create`, `start`: exit codes, streams, options.

use e2e::{Cli, IMAGE};
use testkit::{Kind, wait};

#[test]
fn exit_codes_are_dockers() {
    let Ok(cli) = Cli::start() else { return };
    let code = |line: &str, words: &[&str]| cli.run(line).args(words).outcome().code();
    let run = format!("run --rm {IMAGE}");
    assert_eq!(code(&run, &["true"]), 0);
    assert_eq!(code(&run, &["sh", "-c", "exit 42"]), 42);
    assert_eq!(code(&format!("run --rm --init {IMAGE}"), &["sh", "-c", "kill -9 $$"]), 137);
    assert_eq!(code(&run, &["no-such-program"]), 127);
    assert_eq!(code(&run, &["/no/such/program"]), 127);
    assert_eq!(code(&run, &["/etc"]), 126);
    assert_eq!(code(&run, &["/etc/passwd"]), 126);
    assert_eq!(code("run --rm --pull never berth.test/missing:1", &[]), 125);
    assert_eq!(code(&format!("run --rm --memory 1 {IMAGE}"), &["true"]), 125);
    assert_eq!(code(&format!("run --no-such-flag {IMAGE}"), &["true"]), 125);
    cli.sleeper("one", "");
    assert_eq!(code("exec one", &["sh", "-c", "exit 7"]), 7);
    assert_eq!(code("exec one", &["no-such-program"]), 127);
    assert_eq!(code("exec one", &["/etc/passwd"]), 126);
    assert_eq!(code("exec missing", &["true"]), 1);
    assert_eq!(cli.run("ps -aq").ok().lines().count(), 1, "what failed left nothing behind");
    cli.finish();
}

#[test]
fn binary_data_passes_both_ways_untouched() {
    let Ok(cli) = Cli::start() else { return };
    let data: Vec<u8> =
        (0..300_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let outcome = cli.run(&format!("run --rm -i {IMAGE} cat")).input(data.clone()).outcome();
    assert!(outcome.status.success(), "{outcome}");
    assert!(outcome.stdout == data, "{} of {} bytes came back", outcome.stdout.len(), data.len());
    cli.sleeper("one", "");
    let outcome = cli.run("exec -i one cat").input(data.clone()).outcome();
    assert!(outcome.stdout == data, "{} of {} bytes came back", outcome.stdout.len(), data.len());
    let both = cli.sh(&format!("run --rm {IMAGE}"), "echo out; echo err >&2").outcome();
    assert_eq!((both.stdout_text().as_str(), both.stderr_text().as_str()), ("out\n", "err\n"));
    cli.finish();
}

#[test]
fn large_output_arrives_whole() {
    let Ok(cli) = Cli::start() else { return };
    let script = "dd if=/dev/zero bs=65536 count=320 2>/dev/null | tr '\\0' x";
    let outcome = cli.sh(&format!("run --rm {IMAGE}"), script).outcome();
    assert!(outcome.status.success(), "{}", outcome.stderr_text());
    assert_eq!(outcome.stdout.len(), 320 * 65536);
    cli.finish();
}

#[test]
fn options_reach_the_process() {
    let Ok(cli) = Cli::start() else { return };
    let run = |flags: &str, script: &str| cli.sh(&format!("run --rm {flags} {IMAGE}"), script).ok();
    assert_eq!(run("-e A=1 -e B", "echo $A-$B"), "1-\n");
    assert_eq!(run("-w /tmp", "pwd"), "/tmp\n");
    assert_eq!(run("-u nobody", "id -u; id -g; echo $HOME"), "65534\n65534\n/\n");
    assert_eq!(run("-u 1234:50 --group-add 60", "id -G"), "50 60\n");
    assert_eq!(run("--hostname box", "hostname; cat /etc/hostname"), "box\nbox\n");
    // A container's name is hexadecimal and stands in that file too.
    assert_eq!(run("--add-host store:10.1.2.3", "grep store /etc/hosts"), "10.1.2.3\tstore\n");
    assert_eq!(run("--read-only", "touch /x 2>/dev/null || echo no"), "no\n");
    assert_eq!(run("--tmpfs /t:size=1m", "touch /t/x && stat -f -c %b /t"), "256\n");
    assert_eq!(run("--cap-drop ALL", "grep CapEff /proc/self/status"), "CapEff:\t0000000000000000\n");
    assert_eq!(
        run("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status"),
        "NoNewPrivs:\t1\n"
    );
    assert_eq!(run("--ulimit nofile=100:200", "ulimit -n; ulimit -Hn"), "100\n200\n");
    assert_eq!(run("--init", "cat /proc/1/comm"), "docker-init\n");
    assert_eq!(run("--network host", "ls /sys/class/net | wc -l").trim(), count("/sys/class/net"));
    assert_eq!(run("--sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    assert_eq!(run("--entrypoint echo", "x").trim(), "sh -c x");
    assert_eq!(run("--privileged", "grep Seccomp: /proc/self/status"), "Seccomp:\t0\n");
    assert_eq!(run("", "grep Seccomp: /proc/self/status; ps | wc -l"), "Seccomp:\t2\n4\n");
    cli.finish();
}

fn count(folder: &str) -> String {
    std::fs::read_dir(folder).map(Iterator::count).unwrap_or_default().to_string()
}

#[test]
fn volumes_outlive_containers_and_get_what_the_image_has() {
    let Ok(cli) = Cli::start() else { return };
    let run = |flags: &str, script: &str| cli.sh(&format!("run --rm {flags} {IMAGE}"), script).ok();
    assert_eq!(
        run("-v data:/etc", "ls /etc; echo kept > /etc/new"),
        "group\nhostname\nhosts\npasswd\nresolv.conf\n"
    );
    assert_eq!(run("-v data:/mnt", "cat /mnt/new"), "kept\n");
    assert_eq!(run("-v data:/mnt:ro", "touch /mnt/x 2>/dev/null || echo no"), "no\n");
    let folder = cli.path("shared");
    std::fs::create_dir(&folder).expect("the scratch folder takes a folder");
    run(&format!("-v {}:/mnt", folder.display()), "echo there > /mnt/file");
    assert_eq!(std::fs::read_to_string(folder.join("file")).expect("the container wrote it"), "there\n");
    let mount = format!("--mount type=bind,src={},dst=/mnt,readonly", folder.display());
    assert_eq!(run(&mount, "cat /mnt/file; touch /mnt/x 2>/dev/null || echo no"), "there\nno\n");
    let refused =
        cli.sh(&format!("run --rm --mount type=bind,src=/no/such,dst=/mnt {IMAGE}"), "true").outcome();
    assert_eq!(refused.code(), 125);
    run("-v /anonymous", "touch /anonymous/x");
    assert_eq!(cli.run("volume ls -q").ok(), "data\n", "an anonymous volume goes with --rm");
    cli.run("volume rm data").ok();
    cli.finish();
}

#[test]
fn a_container_is_made_started_stopped_and_removed() {
    let Ok(cli) = Cli::start() else { return };
    let id = cli
        .run(&format!("create --name web -e A=1 {IMAGE} sh -c"))
        .arg("trap 'exit 3' TERM; echo up $A; while :; do sleep 0.1; done")
        .ok();
    let id = id.trim();
    assert_eq!(id.len(), 64);
    assert_eq!(cli.run("ps -a --format {{.Names}}:{{.State}}").ok(), "web:created\n");
    cli.run("start web").ok();
    wait::soon("the first line", || cli.run("logs web").ok() == "up 1\n");
    assert!(cli.run("ps").ok().contains("Up "));
    assert!(cli.run("rm web").fails().contains("container is running"));
    cli.run("stop web").ok();
    assert_eq!(cli.run("inspect --format {{.State.ExitCode}} web").ok(), "3\n");
    assert!(cli.run("ps -a").ok().contains("Exited (3)"));
    cli.run("start web").ok();
    assert_eq!(cli.run("kill web").ok(), "web\n");
    assert_eq!(cli.run("wait web").ok(), "137\n");
    assert!(cli.run(&format!("run --name web {IMAGE} true")).fails().contains("already in use"));
    assert_eq!(cli.run("rm").arg(&id[..6]).ok().trim(), &id[..6]);
    assert_eq!(cli.run("ps -aq").ok(), "");
    cli.finish();
}

#[test]
fn a_detached_container_with_rm_goes_when_it_ends() {
    let Ok(cli) = Cli::start() else { return };
    cli.run(&format!("run -d --rm --name short {IMAGE} sleep 0.3")).ok();
    wait::soon("its removal", || cli.run("ps -aq").ok().is_empty());
    cli.finish();
}

#[test]
fn the_demonstration_shows_what_isolates_it() {
    let Ok(cli) = Cli::start() else { return };
    let shown = cli.run("run --rm --memory 64m hello").ok();
    for text in
        ["Hello from inside a container", "this is process 1 of 1", "64.0 MiB", "filtered", "all of it"]
    {
        assert!(shown.contains(text), "{text:?} is not in\n{shown}");
    }
    assert!(!shown.contains("network        the host's"), "{shown}");
    cli.finish();
}

#[test]
fn images_run_from_folders_and_archives() {
    let Ok(cli) = Cli::start() else { return };
    let Ok(image) = testkit::image::busybox() else { return };
    let image = image.named("berth.test/other:2");
    image.write_layout(&cli.path("layout"));
    let folder = cli.path("layout").display().to_string();
    assert_eq!(cli.run(&format!("run --rm oci:{folder} echo folder")).ok(), "folder\n");
    let archive = cli.daemon().scratch().file("other.tar", image.oci_archive()).display().to_string();
    assert_eq!(cli.run(&format!("run --rm oci-archive:{archive} echo archive")).ok(), "archive\n");
    assert!(cli.run("images --format {{.Repository}}:{{.Tag}}").ok().contains("berth.test/other:2\n"));
    assert_eq!(cli.run("run --rm oci:/no/such").outcome().code(), 125);
    let root = cli.path("rootfs");
    std::fs::create_dir_all(root.join("bin")).expect("the scratch folder takes a folder");
    let Ok(busybox) = testkit::need::program("busybox") else { return };
    std::fs::copy(busybox, root.join("bin/sh")).expect("a program can be copied");
    let line = format!("run --rm --rootfs {} /bin/sh -c", root.display());
    assert_eq!(cli.run(&line).arg("echo folder").ok(), "folder\n");
    cli.finish();
}

#[test]
fn the_same_command_line_drives_containerd() {
    let Ok(cli) = Cli::on(Kind::Containerd) else { return };
    assert_eq!(cli.run(&format!("run --rm {IMAGE} echo hello")).ok(), "hello\n");
    assert_eq!(cli.run(&format!("run --rm -i {IMAGE} cat")).input("in\0out").outcome().stdout, b"in\0out");
    assert_eq!(cli.sh(&format!("run --rm {IMAGE}"), "exit 5").outcome().code(), 5);
    assert_eq!(cli.run(&format!("run --rm {IMAGE} nope")).outcome().code(), 127);
    cli.run(&format!("run -d --name one {IMAGE} sh -c")).arg("echo started; exec sleep 1000").ok();
    wait::soon("the first line", || cli.run("logs one").ok() == "started\n");
    assert_eq!(cli.run("exec one echo in").ok(), "in\n");
    assert!(cli.run("stats --no-stream").ok().contains("one"));
    cli.run("stop -t 0 one").ok();
    cli.run("rm one").ok();
    cli.finish();
}
