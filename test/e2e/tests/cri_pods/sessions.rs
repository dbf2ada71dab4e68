//! Streams of commands, containers and ports whose peers hang up.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Instant;

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, pod};
use testkit::wait;

/// How many hang up.
const CALLERS: usize = 1000;
/// Descriptors that come and go with the daemon's own work.
const SLACK: usize = 8;

/// Who hangs up, and in which moment.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Before the connection is a stream.
    Asking,
    /// Once it is one.
    Answered,
}

/// How a command's or a container's streams are asked for, and how a port's.
const COMMAND: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
const PORT: &str = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n";

/// Begins a stream at a URL, and hangs up.
fn hang_up(url: &str, headers: &str, moment: Moment) {
    let rest = url.strip_prefix("http://").expect("the server speaks plain HTTP on loopback");
    let (address, path) = rest.split_once('/').expect("a URL has a path");
    let mut socket = TcpStream::connect(address).expect("the server listens");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).expect("the server takes a request");
    if matches!(moment, Moment::Answered) {
        let mut block = [0; 12];
        socket.read_exact(&mut block).expect("the server answers");
        assert_eq!(&block, b"HTTP/1.1 101");
    }
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// What a thousand of them must not add to.
struct Account {
    daemon: u32,
    shim: u32,
    /// The folders of commands' streams.
    execs: PathBuf,
    before: (usize, usize),
}

impl Account {
    fn open(node: &Node, container: &str) -> Self {
        let daemon = node.daemon.pid().expect("it runs");
        let bundle = node.daemon.state().join("io.containerd.runtime.v2.task/k8s.io").join(container);
        let shim = std::fs::read_to_string(bundle.join("shim.pid")).expect("the shim says who it is");
        let shim = shim.trim().parse().expect("a number");
        let execs = node.daemon.state().join("io.containerd.grpc.v1.cri/execs");
        Self { daemon, shim, execs, before: (descriptors(daemon), descriptors(shim)) }
    }

    /// What is there beyond what was; nothing when it is as before.
    fn difference(&self, node: &Node, container: &str) -> Option<String> {
        let processes = node.ctr(&format!("task ps {container}")).ok().lines().count() - 1;
        let now = (descriptors(self.daemon), descriptors(self.shim));
        let folders = std::fs::read_dir(&self.execs).map_or(0, Iterator::count);
        let is_fine = processes == 1
            && folders == 0
            && now.0 <= self.before.0 + SLACK
            && now.1 <= self.before.1 + SLACK;
        let told = format!(
            "{processes} processes, {folders} folders, descriptors {:?} and before {:?}",
            now, self.before
        );
        (!is_fine).then_some(told)
    }
}

#[test]
fn a_thousand_who_hang_up_leave_no_process_and_no_descriptor() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let config = proto::ContainerConfig { stdin: true, ..container("c", &["sleep", "100000"]) };
        let id = node.started(&pod, &of, &config).expect("it starts");
        // The first of each kind opens what stays open.
        call(node, &id, &pod, 0);
        call(node, &id, &pod, 1);
        call(node, &id, &pod, 2);
        wait::soon("the first commands' end", || {
            node.ctr(&format!("task ps {id}")).ok().lines().count() == 2
        });
        let account = Account::open(node, &id);
        for number in 0..CALLERS {
            call(node, &id, &pod, number);
        }
        let deadline = Instant::now() + wait::SOON;
        while let Some(difference) = account.difference(node, &id) {
            assert!(Instant::now() < deadline, "what is left after {:?}: {difference}", wait::SOON);
        }
        assert_eq!(node.sh(&id, "echo works").trim(), "works");
        node.away(&pod);
    });
}

/// One who hangs up: of a command, of a container, of a port.
fn call(node: &Node, container: &str, pod: &str, number: usize) {
    let moment = if number.is_multiple_of(2) { Moment::Asking } else { Moment::Answered };
    let url = match number % 3 {
        0 => {
            let request = proto::ExecRequest {
                container_id: container.to_owned(),
                cmd: vec!["cat".to_owned()],
                stdin: true,
                stdout: true,
                stderr: true,
                tty: false,
            };
            node.ask(|mut client| async move { client.exec(request).await }).expect("a URL").url
        }
        1 => {
            let request = proto::AttachRequest {
                container_id: container.to_owned(),
                stdin: true,
                stdout: true,
                stderr: true,
                tty: false,
            };
            node.ask(|mut client| async move { client.attach(request).await }).expect("a URL").url
        }
        _ => {
            let request = proto::PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: vec![80] };
            node.ask(|mut client| async move { client.port_forward(request).await }).expect("a URL").url
        }
    };
    hang_up(&url, if number % 3 == 2 { PORT } else { COMMAND }, moment);
}
