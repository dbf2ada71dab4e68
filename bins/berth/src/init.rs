//! The first process of a container with `--init`: starts the program, passes signals on to it, and takes in every
//! process that loses its parent.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{CANNOT_RUN, NOT_THERE};

/// Everything that can be caught and is not this process's own business.
const PASSED_ON: [i32; 14] = [1, 2, 3, 10, 12, 14, 15, 16, 18, 20, 23, 24, 28, 30];

/// Runs `-- PROGRAM ARGUMENTS` and ends with its exit code.
pub(crate) fn run(words: Vec<OsString>) -> ExitCode {
    let mut words = words.into_iter().skip_while(|word| word == "--");
    let Some(program) = words.next() else {
        eprintln!("docker-init: a program to run is needed");
        return ExitCode::from(1);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.and_then(|runtime| runtime.block_on(supervise(&program, words.collect())));
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("docker-init: {}: {error}", program.display());
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            ExitCode::from(if missing { NOT_THERE } else { CANNOT_RUN })
        }
    }
}

async fn supervise(program: &OsString, words: Vec<OsString>) -> std::io::Result<u8> {
    let mut children = signal(SignalKind::child())?;
    let (passed, mut heard) = tokio::sync::mpsc::unbounded_channel();
    for number in PASSED_ON {
        let mut stream = signal(SignalKind::from_raw(number))?;
        let passed = passed.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && passed.send(number).is_ok() {} });
    }
    let child = Command::new(program).args(words).process_group(0).spawn()?;
    let Some(pid) = Pid::from_raw(child.id() as i32) else { return Ok(1) };
    // With a terminal, the program has to be in its foreground; SIGTTOU does not stop the first process.
    let _ = rustix::termios::tcsetpgrp(std::io::stdin(), pid);
    loop {
        tokio::select! {
            _ = children.recv() => {
                if let Some(code) = reap(pid) {
                    return Ok(code);
                }
            }
            Some(number) = heard.recv() => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    // One that has ended in this moment is told by SIGCHLD.
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
    }
}

/// Takes in everything that has ended; the exit code if the program is among it.
fn reap(program: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
        if pid != program {
            continue;
        }
        match status.stopping_signal() {
            None => code = Some(exit_code(status)),
            Some(signal) => go_on(program, signal),
        }
    }
    code
}

/// Wakes a program that used the terminal before it was given it, and was stopped for that.
fn go_on(program: Pid, signal: i32) {
    let terminal = [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(&signal);
    if terminal && rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == program) {
        let _ = rustix::process::kill_process(program, Signal::CONT);
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => 1,
    }
}
