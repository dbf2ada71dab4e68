//! The commands about images, volumes, namespaces and the disk.

use e2e::{Cli, IMAGE};

#[test]
fn images_are_listed_tagged_and_removed() {
    let Ok(cli) = Cli::start() else { return };
    let table = cli.run("images").ok();
    assert!(table.starts_with("REPOSITORY           TAG       IMAGE ID       CREATED"), "{table}");
    cli.run(&format!("tag {IMAGE} berth.test/again:2")).ok();
    let names = cli.run("images --format {{.Repository}}:{{.Tag}}").ok();
    assert!(names.contains("berth.test/again:2\n") && names.contains(IMAGE), "{names}");
    assert_eq!(cli.run("images -q").ok().lines().count(), 1, "two names of one image");
    assert_eq!(cli.run("images -q -f reference=*/again").ok().lines().count(), 1);
    let id = cli.run("images -q").ok();
    assert_eq!(cli.run(&format!("run --rm {} echo by id", id.trim())).ok(), "by id\n");
    cli.run(&format!("run --name one {IMAGE} true")).ok();
    assert!(cli.run(&format!("rmi {IMAGE}")).fails().contains("one").eq(&false));
    assert_eq!(cli.run("rmi berth.test/again:2").ok(), "Untagged: berth.test/again:2\n");
    cli.run("rm one").ok();
    let removed = cli.run(&format!("rmi {IMAGE}")).ok();
    assert!(removed.contains("Deleted: sha256:"), "{removed}");
    assert!(cli.run("rmi missing").fails().contains("No such image"));
    cli.finish();
}

#[test]
fn what_is_saved_can_be_loaded() {
    let Ok(cli) = Cli::start() else { return };
    let archive = cli.path("saved.tar");
    cli.run("save -o").arg(&archive).arg(IMAGE).ok();
    cli.run(&format!("rmi {IMAGE}")).ok();
    assert_eq!(cli.run("load -i").arg(&archive).ok(), format!("Loaded image: {IMAGE}\n"));
    let piped = cli.run(&format!("save {IMAGE}")).outcome().stdout;
    cli.run(&format!("rmi {IMAGE}")).ok();
    cli.run("load").input(piped).ok();
    assert_eq!(cli.run(&format!("run --rm {IMAGE} echo again")).ok(), "again\n");
    cli.finish();
}

#[test]
fn containers_become_images() {
    let Ok(cli) = Cli::start() else { return };
    cli.sh(&format!("run --name one {IMAGE}"), "echo kept > /root/file").ok();
    cli.run("commit -m why -c").arg("CMD [\"cat\", \"/root/file\"]").args(["one", "berth.test/made:1"]).ok();
    assert_eq!(cli.run("run --rm berth.test/made:1").ok(), "kept\n");
    let history = cli.run("history berth.test/made:1").ok();
    assert!(history.starts_with("IMAGE") && history.contains("why"), "{history}");
    let archive = cli.path("files.tar");
    cli.run("export -o").arg(&archive).arg("one").ok();
    cli.run("import -c").arg("CMD [\"cat\", \"/root/file\"]").arg(&archive).arg("berth.test/imported:1").ok();
    assert_eq!(cli.run("run --rm berth.test/imported:1").ok(), "kept\n");
    cli.finish();
}

#[test]
fn volumes_have_commands_of_their_own() {
    let Ok(cli) = Cli::start() else { return };
    assert_eq!(cli.run("volume create --label a=b data").ok(), "data\n");
    assert!(cli.run("volume ls").ok().starts_with("DRIVER    VOLUME NAME\nlocal     data\n"));
    assert_eq!(cli.run("volume inspect --format {{.Labels.a}} data").ok(), "b\n");
    cli.sleeper("one", "-v data:/data");
    assert!(cli.run("volume rm data").fails().contains("in use"));
    cli.run("rm -f one").ok();
    assert_eq!(cli.run("volume rm data").ok(), "data\n");
    assert!(cli.run("volume inspect data").fails().contains("no such volume"));
    cli.run("volume create x/y").fails();
    cli.finish();
}

#[test]
fn namespaces_are_apart() {
    let Ok(cli) = Cli::start() else { return };
    let other = format!("{}other", cli.daemon().tag());
    cli.run(&format!("namespace create --label a=b {other}")).ok();
    assert!(cli.run("namespace ls -q").ok().lines().any(|name| name == other));
    assert_eq!(cli.run("namespace inspect --format {{.Labels.a}}").arg(&other).ok(), "b\n");
    assert_eq!(cli.berth().args(["-n", &other]).line("images -q").ok(), "");
    cli.run(&format!("namespace rm {other}")).ok();
    cli.finish();
}

#[test]
fn the_disk_is_accounted_for_and_freed() {
    let Ok(cli) = Cli::start() else { return };
    cli.run(&format!("run --name done {IMAGE} true")).ok();
    cli.sleeper("one", "");
    let df = cli.run("system df").ok();
    let images = df.lines().nth(1).unwrap_or_default();
    assert!(images.starts_with("Images          1         1"), "{df}");
    assert!(cli.run("system df -v").ok().contains("one"));
    let pruned = cli.run("system prune -f").ok();
    assert!(pruned.contains("Deleted Containers:") && pruned.contains("Total reclaimed space:"), "{pruned}");
    assert_eq!(cli.run("ps -a --format {{.Names}}").ok(), "one\n");
    cli.run("rm -f one").ok();
    cli.run("image prune -a -f").ok();
    assert_eq!(cli.run("images -q").ok(), "");
    cli.finish();
}

#[test]
fn facts_of_daemon_and_command_line_are_shown() {
    let Ok(cli) = Cli::start() else { return };
    assert!(cli.run("version").ok().contains("Server:"));
    assert!(cli.run("version --format {{.Server.Version}}").ok().contains("berth"));
    assert!(cli.run("info").ok().contains(" Storage Driver: overlayfs\n"));
    assert!(cli.run("system status").ok().contains("the daemon runs"));
    assert!(cli.run("completion bash").ok().contains("complete"));
    assert!(cli.run("--help").ok().contains("Commands:"));
    cli.finish();
}

#[test]
fn images_go_to_a_registry_and_come_back() {
    let Ok(cli) = Cli::start() else { return };
    let Ok(registry) = testkit::registry::DockerRegistry::start() else { return };
    let name = format!("{}/me/busybox:1", registry.address());
    cli.run(&format!("tag {IMAGE} {name}")).ok();
    let pushed = cli.run(&format!("push {name}")).ok();
    assert!(pushed.starts_with("1: digest: sha256:"), "{pushed}");
    cli.run(&format!("rmi {name} {IMAGE}")).ok();
    let pulled = cli.run(&format!("pull {name}")).ok();
    assert!(
        pulled.contains("Status: Downloaded newer image") && pulled.ends_with(&format!("{name}\n")),
        "{pulled}"
    );
    assert!(cli.run(&format!("pull {name}")).ok().contains("Image is up to date"));
    cli.run(&format!("rmi {name}")).ok();
    let run = cli.run(&format!("run --rm {name} echo fetched")).outcome();
    assert_eq!(run.stdout_text(), "fetched\n");
    assert!(run.stderr_text().contains("Unable to find image"), "{run}");
    let missing = cli.run(&format!("pull {}/me/missing:1", registry.address())).fails();
    assert!(missing.contains("missing"), "{missing}");
    cli.finish();
}
