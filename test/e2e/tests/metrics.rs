//! Figures over HTTP, beside containerd's.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use testkit::{Daemon, Kind, Setup, image, wait};

const IMAGE: &str = "berth.test/busybox:1";

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a listener has an address")
}

/// The answer to one request, from its first line to its end; to version 1.0 nobody answers in chunks.
fn request(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket takes a limit");
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("the daemon reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the daemon answers in text");
    answer
}

/// Every figure of a container: its name and labels, without the value and with one word for every namespace, since
/// each daemon of the tests has one of its own.
fn containers(answer: &str, id: &str) -> BTreeSet<String> {
    let of = format!("container_id=\"{id}\"");
    let lines = answer.lines().filter(|line| line.starts_with("container_") && line.contains(&of));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| in_one_namespace(name)).collect()
}

fn in_one_namespace(figure: &str) -> String {
    let Some((before, after)) = figure.split_once("namespace=\"") else { return figure.to_owned() };
    let after = after.split_once('"').map_or("", |(_, after)| after);
    format!("{before}namespace=\"N\"{after}")
}

fn start(kind: Kind) -> Option<(Daemon, SocketAddr)> {
    let address = free_address();
    let config = format!("[metrics]\naddress = \"{address}\"\n");
    let image = image::busybox().ok()?;
    let daemon = Daemon::with(kind, Setup { config, ..Setup::default() }).ok()?;
    let archive = daemon.scratch().file("busybox.tar", image.oci_archive());
    daemon.ctr().ok()?.line("images import --local").arg(archive).ok();
    Some((daemon, address))
}

#[test]
fn a_container_has_every_figure_that_it_has_under_containerd() {
    let mut figures = Vec::new();
    for kind in [Kind::Containerd, Kind::Berth] {
        let Some((daemon, address)) = start(kind) else { return };
        let ctr = |line: &str| daemon.ctr().expect("it was there for the import").line(line);
        ctr(&format!("run -d --null-io --memory-limit 100000000 {IMAGE} one sleep 1000")).ok();
        let found = wait::until("figures of the container", Duration::from_secs(30), || {
            let found = containers(&request(address, "GET", "/v1/metrics"), "one");
            (!found.is_empty()).then_some(found)
        });
        ctr("tasks delete --force one").ok();
        ctr("containers delete one").ok();
        wait::soon("an ended container has no figures", || {
            containers(&request(address, "GET", "/v1/metrics"), "one").is_empty()
        });
        figures.push(found);
        daemon.finish();
    }
    assert_eq!(figures.len(), 2);
    let missing: Vec<_> = figures[0].difference(&figures[1]).collect();
    assert!(missing.is_empty(), "containerd has these and berthd not: {missing:#?}");
    let more: Vec<_> = figures[1].difference(&figures[0]).collect();
    assert!(more.is_empty(), "berthd has these and containerd not: {more:#?}");
}

#[test]
fn only_figures_are_served_and_only_to_read() {
    let Some((daemon, address)) = start(Kind::Berth) else { return };
    let page = request(address, "GET", "/v1/metrics");
    assert!(page.starts_with("HTTP/1.0 200 OK\r\n"), "{page}");
    assert!(page.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{page}");
    for name in ["containerd_build_info_total{", "process_resident_memory_bytes "] {
        assert!(page.contains(&format!("\n{name}")), "{name} is missing: {page}");
    }
    assert!(request(address, "POST", "/v1/metrics").starts_with("HTTP/1.0 405 "));
    for path in ["/", "/debug/pprof/", "/v1/metrics/../debug"] {
        assert!(request(address, "GET", path).starts_with("HTTP/1.0 404 "), "{path}");
    }
    daemon.finish();
}

#[test]
fn an_address_in_use_is_named_and_nothing_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("a listener has an address");
    let scratch = testkit::Scratch::new();
    let Some(program) = testkit::programs::own("berthd") else { return };
    if testkit::need::root().is_err() {
        return;
    }
    let config = scratch.file("config.toml", format!("version = 3\n[metrics]\naddress = \"{address}\"\n"));
    let outcome = testkit::Invocation::new(program)
        .arg("--config")
        .arg(config)
        .args(["--root", &scratch.path("root").display().to_string()])
        .args(["--state", &scratch.path("state").display().to_string()])
        .args(["--address", &scratch.path("d.sock").display().to_string()])
        .outcome();
    assert_eq!(outcome.code(), 1);
    let said = outcome.stderr_text();
    assert!(said.contains(&format!("cannot listen for metrics at {address}")), "{said}");
    assert!(!scratch.path("d.sock").exists(), "the clients' socket is not opened");
}
