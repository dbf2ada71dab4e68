//! The daemon that the command line starts by itself, in a machine of its own: fresh folders over the usual ones, which
//! nobody else sees, and a network of its own.

use testkit::{Invocation, Outcome, Scratch, need, programs};

/// Runs a script where no daemon of ours has ever been.
fn fresh(script: &str) -> Option<Outcome> {
    need::root().ok()?;
    let (unshare, berth) = (need::program("unshare").ok()?, need::program("berth").ok()?);
    programs::own("berthd")?;
    let scratch = Scratch::new();
    let whole = format!(
        "set -e; mkdir -p /var/lib/berth /var/log/berth\n\
         for folder in /run /var/lib/berth /var/log/berth; do mount -t tmpfs tmpfs $folder; done\n\
         trap '\"$berth\" system stop >/dev/null' EXIT; set +e\n{script}\n"
    );
    let outcome = Invocation::new(unshare)
        .args(["--mount", "--net", "--propagation", "private", "sh", "-c", &whole])
        .env("berth", berth)
        .env("TMPDIR", scratch.folder())
        .outcome();
    Some(outcome)
}

#[test]
fn the_first_command_starts_the_daemon() {
    let Some(outcome) = fresh("\"$berth\" run --rm hello; echo code $?; \"$berth\" ps -aq | wc -l") else {
        return;
    };
    let text = outcome.stdout_text();
    assert!(text.contains("Hello from inside a container.") && text.ends_with("code 0\n0\n"), "{outcome}");
}

#[test]
fn the_daemon_is_handled_by_name() {
    let script =
        "for word in status start start status stop status; do \"$berth\" system $word; echo code $?; done";
    let Some(outcome) = fresh(script) else { return };
    let text = outcome.stdout_text();
    let lines: Vec<&str> = text.lines().collect();
    let at = |line: usize, words: &str| assert!(lines[line].contains(words), "line {line}: {outcome}");
    at(0, "no daemon runs at /run/berth/berth.sock");
    at(1, "code 3");
    at(2, "berthd runs (pid ");
    at(4, "berthd runs already");
    at(6, "the daemon runs (pid ");
    at(10, "has ended; containers go on");
    at(12, "no daemon runs");
}

#[test]
fn containers_go_on_without_the_daemon() {
    let script = "\"$berth\" run -d --name one hello sh >/dev/null 2>&1\n\
        \"$berth\" create --name two hello >/dev/null; \"$berth\" system stop; \"$berth\" ps -a --format '{{.Names}}'";
    let Some(outcome) = fresh(script) else { return };
    assert!(outcome.stdout_text().ends_with("two\none\n"), "{outcome}");
}

#[test]
fn who_is_not_root_is_told_what_to_do() {
    let Ok(setpriv) = need::program("setpriv") else { return };
    let script = format!(
        "other='{} --reuid 65534 --regid 65534 --clear-groups'\n\
         cp \"$berth\" /run/berth-copy; $other /run/berth-copy ps; echo code $?\n\
         \"$berth\" system start; $other /run/berth-copy ps; echo code $?",
        setpriv.display()
    );
    let Some(outcome) = fresh(&script) else { return };
    let (told, codes) = (outcome.stderr_text(), outcome.stdout_text());
    assert!(
        told.contains("sudo berth ps") && told.contains("you may not use the daemon's socket"),
        "{outcome}"
    );
    assert_eq!(codes.matches("code 125").count(), 2, "{outcome}");
}
