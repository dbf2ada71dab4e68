//! Peers that leave: a thousand of them, in every way, and nothing is left of them.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

mod common;

use std::process::Stdio;
use std::sync::atomic::Ordering;

use berth_streaming::Config;
use common::raw::{self, Spdy};
use common::{ALL, Host, IN_OUT, go, soon};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::runtime::Handle;

/// Of each kind.
const TIMES: usize = 250;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// One test, because descriptors are counted.
#[tokio::test]
async fn a_thousand_peers_that_leave_are_forgotten() {
    let host = Host::start(Config::default()).await;
    let _ = go::client();
    let (before, alone) = (descriptors(), tasks());
    by_kubectl(&host, "spdy").await;
    by_kubectl(&host, "websocket").await;
    without_a_word(&host).await;
    in_the_middle(&host).await;
    soon("every session to end", || host.bench.running.load(Ordering::SeqCst) == 0).await;
    soon("every task to end", || tasks() <= alone).await;
    soon("every descriptor to be closed", || descriptors() <= before).await;
    host.stop().await;
}

/// Waits until all sessions since `left` know that their peers are gone.
async fn heard(host: &Host, left: usize, how: &str) {
    let what = format!("sessions to hear that their peers left by {how}");
    soon(&what, || host.bench.left.load(Ordering::SeqCst) == left + TIMES).await;
}

/// By giving up a session that waits.
async fn by_kubectl(host: &Host, transport: &str) {
    let Some(client) = go::client() else { return };
    let left = host.bench.left.load(Ordering::SeqCst);
    let mut command = Command::new(client);
    command.args(["leave", &format!("--transport={transport}"), "--stdin", "--stdout", "--stderr"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A URL is good for a minute, so they are handed out as they are used.
    for _ in 0..TIMES {
        let url = host.exec("wait", ALL);
        stdin.write_all(format!("{url}\n").as_bytes()).await.unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{transport}: {}", String::from_utf8_lossy(&output.stderr));
    heard(host, left, transport).await;
}

/// By closing the socket under a session that waits, that floods, or that reads nothing of much.
async fn without_a_word(host: &Host) {
    let left = host.bench.left.load(Ordering::SeqCst);
    for time in 0..TIMES {
        let command = if time % 2 == 0 { "wait" } else { "yes" };
        let mut spdy = Spdy::process(&host.exec(command, IN_OUT), &["error", "stdin", "stdout"]).await;
        spdy.said().await.expect("the session begins");
        if time % 50 == 0 {
            // More than is taken from a peer whose bytes nobody reads.
            spdy.data(3, &vec![0; 264 << 10], false).await;
        }
    }
    heard(host, left, "closing").await;
}

/// Before there is a session: after the request, between the streams, and within a frame.
async fn in_the_middle(host: &Host) {
    for time in 0..TIMES {
        let url = host.exec("wait", IN_OUT);
        match time % 4 {
            0 => drop(Spdy::process(&url, &["error", "stdin"]).await),
            1 => drop(raw::request("GET", &url, &raw::websocket("v9")).await),
            2 => Spdy::process(&url, &[]).await.write(&[0x80, 3, 0, 1]).await,
            _ => drop(raw::request("GET", &url, &raw::websocket("v5.channel.k8s.io")).await),
        }
    }
}
