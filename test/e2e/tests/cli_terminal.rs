//! `-it`: the terminal.

use e2e::{Cli, IMAGE, Pty};
use rustix::process::Signal;
use testkit::wait;

#[test]
fn a_shell_on_a_terminal_sees_its_size_and_its_changes() {
    let Ok(cli) = Cli::start() else { return };
    let Ok(pty) = Pty::start(&cli.words(&format!("run --rm -it {IMAGE} sh"))) else { return };
    pty.expect("#");
    assert!(!pty.is_cooked(), "the terminal is raw while the shell has it");
    pty.send("stty size; tty\r");
    pty.expect("24 80");
    pty.expect("/dev/pts/");
    pty.resize(100, 30);
    wait::soon("the new size", || {
        pty.send("stty size\r");
        pty.shown().contains("30 100")
    });
    pty.send("exit 5\r");
    let (status, _, cooked) = pty.wait();
    assert_eq!(status.code(), Some(5));
    assert!(cooked, "the terminal is as it was");
    cli.finish();
}

#[test]
fn keys_detach_and_attach_comes_back() {
    let Ok(cli) = Cli::start() else { return };
    let Ok(pty) = Pty::start(&cli.words(&format!("run -it --name shell {IMAGE} sh"))) else { return };
    pty.expect("#");
    pty.send("echo be''fore\r");
    pty.expect("before");
    pty.send("\u{10}\u{11}");
    let (status, _, cooked) = pty.wait();
    assert_eq!(status.code(), Some(0));
    assert!(cooked, "the terminal is as it was");
    cli.reaches("shell", "running");
    let Ok(pty) = Pty::start(&cli.words("attach shell")) else { return };
    wait::soon("an answer", || {
        pty.send("echo af''ter\r");
        pty.shown().contains("after")
    });
    pty.send("exit 3\r");
    assert_eq!(pty.wait().0.code(), Some(3));
    let Ok(pty) = Pty::start(&cli.words(&format!("run --rm -it --detach-keys a,b --name other {IMAGE} sh")))
    else {
        return;
    };
    pty.expect("#");
    pty.send("ab");
    assert_eq!(pty.wait().0.code(), Some(0));
    cli.reaches("other", "running");
    cli.finish();
}

#[test]
fn the_terminal_is_restored_when_a_signal_ends_the_command() {
    let Ok(cli) = Cli::start() else { return };
    cli.sleeper("one", "");
    let Ok(pty) = Pty::start(&cli.words("exec -it one sh")) else { return };
    pty.expect("#");
    assert!(!pty.is_cooked());
    pty.signal(Signal::TERM);
    let (_, _, cooked) = pty.wait();
    assert!(cooked, "the terminal is as it was");
    cli.finish();
}

#[test]
fn the_terminal_is_restored_when_no_password_is_given() {
    let Ok(cli) = Cli::start() else { return };
    let Ok(pty) = Pty::start(&cli.words("login -u somebody 127.0.0.1:1")) else { return };
    pty.expect("Password: ");
    pty.send("secret\u{3}");
    let (status, shown, cooked) = pty.wait();
    assert!(!status.success() && shown.contains("no password was given"), "{shown}");
    assert!(cooked && !shown.contains("secret"), "{shown}");
    cli.finish();
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    let Ok(cli) = Cli::start() else { return };
    cli.sleeper("one", "");
    let Ok(pty) = Pty::start(&cli.words("exec -it one sh")) else { return };
    pty.expect("#");
    pty.send("echo $TERM; stty size; exit 4\r");
    let (status, shown, cooked) = pty.wait();
    assert!(shown.contains("xterm") && shown.contains("24 80"), "{shown}");
    assert_eq!(status.code(), Some(4));
    assert!(cooked);
    cli.finish();
}

#[test]
fn signals_are_passed_on_to_the_process() {
    let Ok(cli) = Cli::start() else { return };
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let running = cli.sh(&format!("run --rm {IMAGE}"), script).start();
    wait::soon("the trap", || running.stdout_so_far() == "ready\n");
    running.signal(Signal::TERM);
    let outcome = running.wait();
    assert_eq!((outcome.code(), outcome.stdout_text().as_str()), (9, "ready\ncaught\n"));
    cli.finish();
}

#[test]
fn a_terminal_is_demanded_where_there_is_none() {
    let Ok(cli) = Cli::start() else { return };
    let outcome = cli.run(&format!("run --rm -it {IMAGE} sh")).outcome();
    assert_eq!(outcome.code(), 1);
    assert!(outcome.stderr_text().contains("not a TTY"), "{outcome}");
    cli.finish();
}

#[test]
fn an_init_gives_the_terminal_to_its_program() {
    let Ok(cli) = Cli::start() else { return };
    let Ok(pty) = Pty::start(&cli.words(&format!("run --rm -it --init {IMAGE} sh"))) else { return };
    pty.expect("#");
    // What speaks is the job in the foreground already, not the shell before it.
    pty.send("sh -c \"echo g''o; sleep 100\"\r");
    pty.expect("go\r\n");
    pty.send("\u{3}");
    pty.send("echo st''ill; exit 2\r");
    pty.expect("still");
    assert!(!pty.shown().contains("job control turned off"), "{}", pty.shown());
    assert_eq!(pty.wait().0.code(), Some(2));
    cli.finish();
}
