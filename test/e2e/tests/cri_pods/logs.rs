//! The logs of containers, in the form that kubelets read.

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, pod};
use testkit::wait;

/// The longest piece of a line.
const PIECE: usize = 16 << 10;

fn reopen(node: &Node, id: &str) {
    let request = proto::ReopenContainerLogRequest { container_id: id.to_owned() };
    let answer = node.ask(|mut client| async move { client.reopen_container_log(request).await });
    answer.expect("a log can be opened again");
}

/// Time, stream and tag of each line, and what it says.
fn lines(log: &str) -> Vec<(&str, &str, &str)> {
    log.lines()
        .map(|line| {
            let mut words = line.splitn(4, ' ');
            let time = words.next().expect("a line begins with its time");
            assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "{line}");
            let (stream, tag) = (words.next().expect("a stream"), words.next().expect("a tag"));
            (stream, tag, words.next().unwrap_or_default())
        })
        .collect()
}

#[test]
fn long_lines_come_in_pieces_and_a_line_without_end_is_a_piece() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        // 40,000 bytes, 16,384 bytes, nothing at all, and three without an end.
        let script = "head -c 40000 /dev/zero | tr '\\0' a; echo; head -c 16384 /dev/zero | tr '\\0' b; echo; echo; \
                      echo bad >&2; printf end";
        let id = node.started(&pod, &of, &container("c", &["sh", "-c", script])).expect("it starts");
        node.ended(&id);
        let log = node.log("pod", "c");
        let all = lines(&log);
        let out: Vec<_> = all.iter().filter(|(stream, ..)| *stream == "stdout").collect();
        let shape: Vec<(&str, usize)> = out.iter().map(|(_, tag, text)| (*tag, text.len())).collect();
        assert_eq!(
            shape,
            [("P", PIECE), ("P", PIECE), ("F", 40_000 - 2 * PIECE), ("F", PIECE), ("F", 0), ("P", 3)],
            "{shape:?}"
        );
        let bad: Vec<_> = all.iter().filter(|(stream, ..)| *stream == "stderr").collect();
        assert_eq!(bad, [&("stderr", "F", "bad")]);
        node.away(&pod);
    });
}

#[test]
fn no_line_is_lost_when_the_log_is_renamed_or_the_daemon_is_killed() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let script = "n=0; while [ $n -lt 3000 ]; do echo $n; n=$((n+1)); done; sleep 1000";
        let id = node.started(&pod, &of, &container("c", &["sh", "-c", script])).expect("it starts");
        let folder = node.path("logs/pod");
        let mut parts = Vec::new();
        for part in 0..3 {
            let old = folder.join(format!("c.log.{part}"));
            wait::soon("a log", || folder.join("c.log").exists());
            std::fs::rename(folder.join("c.log"), &old).expect("a log can be renamed");
            reopen(node, &id);
            parts.push(old);
            if part == 1 {
                node.daemon.kill();
                node.daemon.restart();
            }
        }
        parts.push(folder.join("c.log"));
        let whole = || parts.iter().filter_map(|part| std::fs::read_to_string(part).ok()).collect::<String>();
        wait::soon("the last line", || whole().ends_with(" 2999\n"));
        let whole = whole();
        let numbers: Vec<usize> =
            lines(&whole).iter().map(|(.., text)| text.parse().expect("a number")).collect();
        assert!(numbers.iter().copied().eq(0..3000), "a line is missing, doubled or out of order");
        node.away(&pod);
    });
}

#[test]
fn a_log_that_cannot_be_written_holds_nobody_up() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        // A full device takes no byte; the workload writes more than a pipe holds.
        let folder = node.path("logs/pod");
        std::os::unix::fs::symlink("/dev/full", folder.join("full"))
            .expect("the scratch folder takes a link");
        let script = "head -c 1000000 /dev/zero | tr '\\0' '\\n'; echo done > /tmp/done; sleep 1000";
        let id = node.started(&pod, &of, &container("c", &["sh", "-c", script])).expect("it starts");
        std::fs::rename(folder.join("full"), folder.join("c.log")).expect("a log can be replaced");
        // Through the link, or not at all: both are fine for the workload.
        let request = proto::ReopenContainerLogRequest { container_id: id.clone() };
        let _ = node.ask(|mut client| async move { client.reopen_container_log(request).await });
        wait::soon("the end of its writing", || {
            node.exec(&id, &["cat", "/tmp/done"]).is_ok_and(|answer| answer.exit_code == 0)
        });
        node.away(&pod);
    });
}
