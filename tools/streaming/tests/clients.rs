//! The server and the library that kubectl is made of.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

mod common;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use berth_streaming::{Config, Tls, Wanted};
use common::{ALL, Host, IN_OUT, OUT, TERMINAL, go, soon};
use testkit::Scratch;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

/// Every way in which a client speaks to a process.
const WAYS: [&[&str]; 6] = [
    &["--transport=spdy"],
    &["--transport=websocket"],
    &["--transport=websocket", "--protocols=v4.channel.k8s.io"],
    &["--transport=spdy", "--protocols=v3.channel.k8s.io"],
    &["--transport=spdy", "--protocols=v2.channel.k8s.io"],
    &["--transport=spdy", "--protocols=channel.k8s.io"],
];
/// Those that can say that stdin has ended.
const WITH_ENDS: [usize; 4] = [0, 1, 3, 4];
/// Those that tell of exit codes.
const WITH_CODES: [usize; 3] = [0, 1, 2];

struct Bed {
    client: PathBuf,
    scratch: Scratch,
    host: Host,
}

struct Ended {
    stdout: Vec<u8>,
    stderr: String,
    result: String,
}

impl Bed {
    async fn new(config: Config) -> Option<Self> {
        let client = go::client()?;
        Some(Self { client, scratch: Scratch::new(), host: Host::start(config).await })
    }

    fn command(&self, way: &[&str], wanted: Wanted, url: &str) -> (Command, PathBuf) {
        let result = self.scratch.path("result");
        let mut command = Command::new(&self.client);
        command.arg("exec").args(way).arg(format!("--result={}", result.display()));
        let flags = [
            ("--stdin", wanted.stdin),
            ("--stdout", wanted.stdout),
            ("--stderr", wanted.stderr),
            ("--tty", wanted.tty),
        ];
        command.args(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| *flag)).arg(url);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        (command, result)
    }

    async fn end(&self, child: Child, result: PathBuf) -> Ended {
        let output = tokio::time::timeout(testkit::wait::SOON, child.wait_with_output()).await;
        let output = output.expect("the client ends").unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        Ended { stdout: output.stdout, stderr, result: fs::read_to_string(result).unwrap() }
    }

    async fn exec(&self, way: &[&str], wanted: Wanted, command: &str) -> Ended {
        let (mut client, result) = self.command(way, wanted, &self.host.exec(command, wanted));
        self.end(client.spawn().unwrap(), result).await
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_as_they_went() {
    let Some(bed) = Bed::new(Config::default()).await else { return };
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let sent: Vec<u8> = (0..10 << 20).map(|_| next()).collect();
    let path = bed.scratch.path("sent");
    fs::write(&path, &sent).unwrap();
    for way in WITH_ENDS.map(|way| WAYS[way]) {
        for url in [bed.host.exec("cat", IN_OUT), bed.host.attach(IN_OUT)] {
            let (mut client, result) = bed.command(way, IN_OUT, &url);
            client.stdin(File::open(&path).unwrap());
            let ended = bed.end(client.spawn().unwrap(), result).await;
            assert!(
                ended.stdout == sent,
                "{way:?}: {} bytes came back: {}",
                ended.stdout.len(),
                ended.stderr
            );
            assert_eq!(ended.result, "ok", "{way:?}");
        }
    }
    bed.host.stop().await;
}

#[tokio::test]
async fn stdout_and_stderr_are_apart() {
    let Some(bed) = Bed::new(Config::default()).await else { return };
    for way in WAYS {
        let ended = bed.exec(way, Wanted { stdin: false, ..ALL }, "both").await;
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "for the one", "{way:?}");
        assert_eq!(ended.stderr, "for the other", "{way:?}");
    }
    bed.host.stop().await;
}

#[tokio::test]
async fn exit_codes_arrive_where_the_protocol_has_them_and_as_text_elsewhere() {
    let Some(bed) = Bed::new(Config::default()).await else { return };
    for (number, way) in WAYS.iter().enumerate() {
        for code in [0, 1, 137, 255] {
            let result = bed.exec(way, OUT, &format!("exit {code}")).await.result;
            // The first version's client does not wait for the error stream.
            if code == 0 || number == 5 {
                assert!(result == "ok" || number == 5, "{way:?}: {result}");
            } else if WITH_CODES.contains(&number) {
                assert_eq!(result, format!("exit {code}"), "{way:?}");
            } else {
                assert!(result.ends_with(&format!("exit status {code}")), "{way:?}: {result}");
            }
        }
    }
    bed.host.stop().await;
}

#[tokio::test]
async fn an_error_comes_with_its_causes() {
    let Some(bed) = Bed::new(Config::default()).await else { return };
    let expected = "Internal error occurred: error executing command in container: \
                    there is no such container: its shim does not answer";
    for way in &WAYS[..5] {
        let result = bed.exec(way, OUT, "fail").await.result;
        assert!(result.starts_with("error ") && result.ends_with(expected), "{way:?}: {result}");
    }
    bed.host.stop().await;
}

#[tokio::test]
async fn the_sizes_of_a_terminal_arrive_and_the_last_one_always() {
    let Some(bed) = Bed::new(Config::default()).await else { return };
    for way in &WAYS[..4] {
        let (mut client, result) = bed.command(way, TERMINAL, &bed.host.exec("sizes 132x50", TERMINAL));
        // What the flags end at is the URL, so this one goes before them.
        client = {
            let std = client.as_std();
            let mut again = Command::new(std.get_program());
            let mut words = std.get_args();
            again.arg(words.next().unwrap()).arg("--sizes=80x24,0x0,132x50").args(words);
            again.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
            again
        };
        let mut child = client.spawn().unwrap();
        // Held open: the end of the session is the end of the process, not of its input.
        let stdin = child.stdin.take();
        let ended = bed.end(child, result).await;
        drop(stdin);
        let text = String::from_utf8(ended.stdout).unwrap();
        assert!(text == "132x50\n" || text == "80x24\n132x50\n", "{way:?}: {text}");
        assert_eq!(ended.result, "ok", "{way:?}");
    }
    bed.host.stop().await;
}

#[tokio::test]
async fn a_process_that_closes_its_input_ends_while_its_peer_types_on() {
    let Some(bed) = Bed::new(Config::default()).await else { return };
    for way in WAYS {
        let (mut client, result) = bed.command(way, IN_OUT, &bed.host.exec("head 5", IN_OUT));
        let mut child = client.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let typing = tokio::spawn(async move { while stdin.write_all(b"hello and more").await.is_ok() {} });
        let ended = bed.end(child, result).await;
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "hello", "{way:?}: {}", ended.result);
        assert_eq!(ended.result, "ok", "{way:?}");
        typing.await.unwrap();
    }
    bed.host.stop().await;
}

struct Forward {
    child: Child,
    port: u16,
    _stdout: BufReader<ChildStdout>,
}

impl Forward {
    async fn start(bed: &Bed, way: &str, url: &str) -> Self {
        let mut command = Command::new(&bed.client);
        command.args(["forward", way, "--insecure", url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).await.unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("{way}: no port but {line:?}"));
        Self { child, port, _stdout: stdout }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    async fn stop(mut self) {
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(testkit::wait::SOON, self.child.wait()).await;
        assert!(ended.expect("the client ends").unwrap().success());
    }
}

async fn echo(tcp: &mut TcpStream, text: &[u8]) {
    tcp.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    tcp.read_exact(&mut back).await.unwrap();
    assert!(back == text);
}

#[tokio::test]
async fn connections_to_a_port_are_forwarded_side_by_side() {
    let Some(bed) = Bed::new(Config::default()).await else { return };
    for way in ["--transport=spdy", "--transport=websocket"] {
        let forward = Forward::start(&bed, way, &bed.host.ports(&[])).await;
        let (mut one, mut other) = (forward.connect().await, forward.connect().await);
        for round in 0..20_u8 {
            echo(&mut one, &[round; 1000]).await;
            echo(&mut other, &[100 + round; 3000]).await;
        }
        let big: Vec<u8> = (0..4 << 20).map(|at: u32| (at % 251) as u8).collect();
        let (mut reader, mut writer) = one.split();
        let sending = async {
            writer.write_all(&big).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let ((), read) = tokio::join!(sending, reader.read_to_end(&mut back));
        read.unwrap();
        assert!(back == big, "{way}: half-close: {} bytes of {} came back", back.len(), big.len());
        echo(&mut other, b"still here").await;
        drop(other);
        // A later connection of the same client.
        echo(&mut forward.connect().await, b"again").await;
        forward.stop().await;
        soon("the connections to end", || {
            bed.host.bench.running.load(std::sync::atomic::Ordering::SeqCst) == 0
        })
        .await;
    }
    bed.host.stop().await;
}

#[tokio::test]
async fn everything_works_over_tls_with_a_certificate_made_here_or_brought() {
    let scratch = Scratch::new();
    let (certificate, key) = (scratch.path("cert.pem"), scratch.path("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).unwrap();
    fs::write(&certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
    fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    for tls in [Tls::SelfSigned, Tls::Files { certificate, key }] {
        let config = Config { tls, ..Config::default() };
        let Some(bed) = Bed::new(config).await else { return };
        for way in &WAYS[..2] {
            let url = bed.host.exec("exit 7", OUT);
            assert!(url.starts_with("https://127.0.0.1:"), "{url}");
            let (client, result) = bed.command(&[way, &["--insecure"][..]].concat(), OUT, &url);
            let mut client = client;
            let ended = bed.end(client.spawn().unwrap(), result).await;
            assert_eq!(ended.result, "exit 7", "{way:?}");
            let forward = Forward::start(&bed, way[0], &bed.host.ports(&[])).await;
            echo(&mut forward.connect().await, &vec![9; 100_000]).await;
            forward.stop().await;
        }
        bed.host.stop().await;
    }
}

fn pem(kind: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}
