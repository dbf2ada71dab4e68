//! Where output goes and input comes from.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use berth_types::attach::{self, Pace, Stream};
use serde_json::Value;
use testkit::{Leftovers, wait};

use crate::lifecycle::for_both;
use crate::pod::{Kind, Pod, Streams};

for_both!(
    standard_input_ends_with_close_io,
    input_may_end_before_its_process_starts,
    a_reader_that_leaves_ends_nothing,
    much_output_arrives_whole,
    a_terminal_can_be_resized_and_typed_into,
    a_file_takes_both_outputs,
    a_logger_gets_both_outputs,
    a_logger_that_dies_ends_nothing,
    a_json_log_is_dockers_and_rotates,
    attached_clients_see_and_type,
    a_foreground_client_holds_the_container_up_and_loses_nothing,
    a_slow_onlooker_is_cut_off,
    a_terminal_can_be_attached_to,
    the_foreground_clients_end_is_the_inputs_end,
    a_full_disk_holds_nothing_up,
    a_user_can_open_its_own_output,
);

/// Both ends of a fifo, so that opening never waits.
fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn standard_input_ends_with_close_io(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let (stdin, stdout) = (pod.fifo("in"), pod.fifo("out"));
    let mut reader = open(&stdout);
    let streams = Streams { stdin: text(&stdin), stdout: text(&stdout), ..Streams::default() };
    let mut task = pod.launch("a", "cat; echo end", &streams);
    let mut writer = File::options().write(true).open(&stdin).unwrap();
    writer.write_all(b"typed\n").unwrap();
    let mut line = [0; 6];
    reader.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"typed\n");
    drop(writer);
    // Another client may come: only CloseIO ends it.
    assert_eq!(task.state("").unwrap().status, 2);
    task.close_io("");
    assert_eq!(task.wait(""), 0);
    let mut rest = [0; 4];
    reader.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"end\n");
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn input_may_end_before_its_process_starts(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &Streams::default());
    let stdin = pod.fifo("in");
    task.exec("e", "cat; exit 3", &Streams { stdin: text(&stdin), ..Streams::default() }).unwrap();
    task.close_io("e");
    task.start("e").unwrap();
    assert_eq!(task.wait("e"), 3);
    task.kill("", 9, false).unwrap();
    task.wait("");
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_reader_that_leaves_ends_nothing(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let stdout = pod.fifo("out");
    let streams = Streams { stdout: text(&stdout), ..Streams::default() };
    let script = "trap 'exit 99' PIPE; while :; do echo x || exit 98; sleep 0.02; done";
    let mut task = pod.launch("a", script, &streams);
    for _ in 0..2 {
        let mut reader = File::open(&stdout).unwrap();
        reader.read_exact(&mut [0; 4]).unwrap();
    }
    assert_eq!(task.state("").unwrap().status, 2);
    task.kill("", 9, false).unwrap();
    assert_eq!(task.wait(""), 137);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn much_output_arrives_whole(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let (stdout, stderr) = (pod.fifo("out"), pod.fifo("err"));
    // Held open for reading alone, so that the end of the stream is seen.
    let keeper = open(&stdout);
    let reader = File::open(&stdout).unwrap();
    drop(keeper);
    let counting = std::thread::spawn(move || {
        let mut reader = reader;
        let mut buffer = vec![0; 1 << 16];
        let (mut count, mut started) = (0, false);
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 if started => return count,
                0 => std::thread::yield_now(),
                read => {
                    started = true;
                    count += read;
                }
            }
        }
    });
    let streams = Streams { stdout: text(&stdout), stderr: text(&stderr), ..Streams::default() };
    let mut task = pod.launch("a", "yes 0123456789 | head -c 20000000; exit 3", &streams);
    assert_eq!(task.wait(""), 3);
    task.finish();
    assert_eq!(counting.join().unwrap(), 20_000_000);
    Leftovers::none(&pod.scratch);
}

fn a_terminal_can_be_resized_and_typed_into(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let (stdin, stdout) = (pod.fifo("in"), pod.fifo("out"));
    let mut reader = open(&stdout);
    let streams =
        Streams { stdin: text(&stdin), stdout: text(&stdout), terminal: true, ..Streams::default() };
    let mut task = pod.launch("a", "read x; stty size; tty; read y; exit 4", &streams);
    let request = berth_proto::containerd::task::v3::ResizePtyRequest {
        id: "a".into(),
        exec_id: String::new(),
        width: 91,
        height: 37,
    };
    task.call::<_, ()>("ResizePty", &request).unwrap();
    let mut writer = open(&stdin);
    writer.write_all(b"one\n").unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains("/dev/") {
        let count = reader.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(seen.contains("37 91\r\n"), "{seen:?}");
    writer.write_all(b"two\n").unwrap();
    assert_eq!(task.wait(""), 4);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_file_takes_both_outputs(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let file = pod.scratch.path("logs/a.log");
    let uri = format!("file://{}", file.display());
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let mut task = pod.launch("a", "echo out; echo err >&2; : > /dev/stdout; echo more", &streams);
    assert_eq!(task.wait(""), 0);
    task.finish();
    let mut lines: Vec<String> = std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "more", "out"]);
    Leftovers::none(&pod.scratch);
}

fn logger(pod: &Pod, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let program = pod.scratch.file("logger.sh", format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("binary://{}?one=1&two=b%20c", program.display())
}

fn a_logger_gets_both_outputs(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let folder = pod.scratch.folder().display().to_string();
    let script = format!(
        "exec 5>&-; PATH=/bin:/usr/bin; echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\" > {folder}/told\n\
         cat <&4 > {folder}/err & cat <&3 > {folder}/out; wait"
    );
    let uri = logger(&pod, &script);
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let mut task = pod.launch("a", "echo out; echo err >&2", &streams);
    assert_eq!(task.wait(""), 0);
    task.finish();
    let read = |name: &str| std::fs::read_to_string(pod.scratch.path(name)).unwrap();
    assert_eq!(read("out"), "out\n");
    assert_eq!(read("err"), "err\n");
    assert_eq!(read("told"), format!("a {} one 1 two b c\n", pod.scratch.tag()));
    Leftovers::none(&pod.scratch);
}

fn a_logger_that_dies_ends_nothing(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let uri = logger(&pod, "exec 5>&-; exit 1");
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let mut task = pod.launch("a", "yes 0123456789 | head -c 1000000; exit 6", &streams);
    assert_eq!(task.wait(""), 6);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn records(path: &Path) -> Vec<(String, String)> {
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| value[name].as_str().unwrap().to_owned();
        assert!(field("time").ends_with('Z'));
        (field("stream"), field("log"))
    };
    std::fs::read_to_string(path).unwrap().lines().map(parse).collect()
}

fn a_json_log_is_dockers_and_rotates(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let log = pod.scratch.path("log/a-json.log");
    let uri = format!("berth-json://{}?max-size=1k&max-file=2", log.display());
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); done; echo bad >&2; echo -n end";
    let mut task = pod.launch("a", script, &streams);
    assert_eq!(task.wait(""), 0);
    task.finish();
    let mut all = records(&log.with_extension("log.1"));
    all.extend(records(&log));
    assert!(all.contains(&("stderr".into(), "bad\n".into())), "{all:?}");
    let out: Vec<&str> =
        all.iter().filter(|(stream, _)| stream == "stdout").map(|(_, text)| text.as_str()).collect();
    assert_eq!(out[out.len() - 2..], ["line 39\n", "end"]);
    assert_eq!(std::fs::read_dir(log.parent().unwrap()).unwrap().count(), 2);
    Leftovers::none(&pod.scratch);
}

/// A client on the attach socket.
struct Attached {
    socket: std::os::unix::net::UnixStream,
    decoder: attach::Decoder,
    frames: Vec<attach::Frame>,
}

impl Attached {
    fn to(bundle: &Path, pace: Pace) -> Self {
        let mut socket = berth_sys::local_socket::connect(bundle, attach::SOCKET).unwrap();
        socket.write_all(&attach::encode(Stream::Open, &[pace as u8])).unwrap();
        let mut client = Self { socket, decoder: attach::Decoder::default(), frames: Vec::new() };
        // Only from the answer on is nothing missed.
        client.read(|client| !client.frames.is_empty());
        client
    }

    fn type_in(&mut self, bytes: &[u8]) {
        self.socket.write_all(&attach::encode(Stream::Stdin, bytes)).unwrap();
    }

    /// Reads until the other side closes, or `enough` says so.
    fn read(&mut self, enough: impl Fn(&Self) -> bool) {
        let mut buffer = [0; 4096];
        while !enough(self) {
            let count = self.socket.read(&mut buffer).unwrap();
            if count == 0 {
                return;
            }
            self.decoder.feed(&buffer[..count], &mut self.frames).unwrap();
        }
    }

    fn stream(&self, stream: Stream) -> Vec<u8> {
        let theirs = self.frames.iter().filter(|frame| frame.stream == stream);
        theirs.flat_map(|frame| frame.payload.clone()).collect()
    }
}

fn attached_clients_see_and_type(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let log = pod.scratch.path("a-json.log");
    let uri = format!("berth-json://{}", log.display());
    let streams =
        Streams { stdin: attach::STDIN_ONCE.into(), stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let bundle = pod.bundle("a", "echo begin; echo err >&2; cat; echo end");
    let mut task = pod.start("a", &bundle);
    task.create(&pod, &streams).unwrap();
    let mut first = Attached::to(&bundle, Pace::Wait);
    let mut second = Attached::to(&bundle, Pace::CutOff);
    task.start("").unwrap();
    first.read(|client| client.stream(Stream::Stdout).ends_with(b"begin\n"));
    second.type_in(b"hello\n");
    first.read(|client| client.stream(Stream::Stdout).ends_with(b"hello\n"));
    first.type_in(b"");
    for client in [&mut first, &mut second] {
        client.read(|_| false);
        assert_eq!(client.stream(Stream::Stdout), b"begin\nhello\nend\n");
        assert_eq!(client.stream(Stream::Stderr), b"err\n");
    }
    assert_eq!(task.wait(""), 0);
    // One that comes late hears that there is nothing more.
    let mut late = Attached::to(&bundle, Pace::CutOff);
    late.read(|_| false);
    assert_eq!(late.frames.len(), 3, "the opening and two ends");
    task.finish();
    assert!(!bundle.join(attach::SOCKET).exists());
    assert_eq!(records(&log).len(), 4);
    Leftovers::none(&pod.scratch);
}

fn a_foreground_client_holds_the_container_up_and_loses_nothing(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let uri = format!("berth-json://{}?max-size=64k", pod.scratch.path("a-json.log").display());
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let bundle = pod.bundle("a", "yes 0123456789 | head -c 5000000; exit 5");
    let mut task = pod.start("a", &bundle);
    task.create(&pod, &streams).unwrap();
    let mut client = Attached::to(&bundle, Pace::Wait);
    task.start("").unwrap();
    // It is still there while nobody reads: more is to come than all buffers hold.
    client.read(|client| client.stream(Stream::Stdout).len() > 1000);
    assert_eq!(task.state("").unwrap().status, 2);
    client.read(|_| false);
    assert_eq!(client.stream(Stream::Stdout).len(), 5_000_000);
    assert_eq!(task.wait(""), 5);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_slow_onlooker_is_cut_off(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let uri = format!("berth-json://{}?max-size=64k", pod.scratch.path("a-json.log").display());
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    // Four times what may wait, in lines so long that it is the waiting that takes time and not their encoding.
    let bundle = pod.bundle("a", &format!("yes {:0>1000} | head -c 4000000; exit 5", 7));
    let mut task = pod.start("a", &bundle);
    task.create(&pod, &streams).unwrap();
    let mut client = Attached::to(&bundle, Pace::CutOff);
    // Heard before the container starts: a second client's late answer shows it.
    task.start("").unwrap();
    assert_eq!(task.wait(""), 5);
    client.read(|_| false);
    let last = client.frames.last().expect("it got something");
    assert_eq!(last.stream, Stream::CutOff, "{}", client.stream(Stream::Stdout).len());
    assert!(client.stream(Stream::Stdout).len() < 4_000_000);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_terminal_can_be_attached_to(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let uri = format!("berth-json://{}", pod.scratch.path("a-json.log").display());
    let streams =
        Streams { stdin: attach::STDIN_KEPT.into(), stdout: uri, stderr: String::new(), terminal: true };
    let mut task = pod.launch("a", "read x; echo got $x; tty", &streams);
    let mut client = Attached::to(&task.bundle.clone(), Pace::Wait);
    client.type_in(b"word\n");
    client.read(|_| false);
    let seen = String::from_utf8_lossy(&client.stream(Stream::Stdout)).into_owned();
    assert!(seen.contains("got word\r\n") && seen.contains("/dev/"), "{seen:?}");
    assert_eq!(task.wait(""), 0);
    wait::soon("the log", || pod.scratch.path("a-json.log").metadata().unwrap().len() > 0);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn the_foreground_clients_end_is_the_inputs_end(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let uri = format!("berth-json://{}", pod.scratch.path("a-json.log").display());
    let streams =
        Streams { stdin: attach::STDIN_ONCE.into(), stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let mut task = pod.launch("a", "cat; exit 4", &streams);
    let onlooker = Attached::to(&task.bundle.clone(), Pace::CutOff);
    let mut client = Attached::to(&task.bundle.clone(), Pace::Wait);
    client.type_in(b"typed\n");
    client.read(|client| client.stream(Stream::Stdout).ends_with(b"typed\n"));
    drop(onlooker);
    assert_eq!(task.state("").unwrap().status, 2);
    drop(client);
    assert_eq!(task.wait(""), 4);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_full_disk_holds_nothing_up(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let disk = pod.scratch.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let size = c"size=64k";
    rustix::mount::mount("tmpfs", &disk, "tmpfs", rustix::mount::MountFlags::empty(), size).unwrap();
    for (id, scheme) in [("a", "file"), ("b", "berth-json")] {
        let uri = format!("{scheme}://{}/{id}.log", disk.display());
        let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
        let mut task = pod.launch(id, "yes 0123456789 | head -c 1000000; exit 3", &streams);
        assert_eq!(task.wait(""), 3);
        task.finish();
        let written = disk.join(format!("{id}.log"));
        assert!(written.metadata().unwrap().len() > 0);
        std::fs::remove_file(written).unwrap();
    }
    rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::empty()).unwrap();
    Leftovers::none(&pod.scratch);
}

fn a_user_can_open_its_own_output(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let stdout = pod.fifo("out");
    let mut reader = open(&stdout);
    let streams = Streams { stdout: text(&stdout), ..Streams::default() };
    let bundle = pod.bundle_with("a", "echo mine > /proc/self/fd/1", |spec| {
        spec["process"]["user"] = serde_json::json!({"uid": 1234, "gid": 1234});
    });
    let mut task = pod.start("a", &bundle);
    task.create(&pod, &streams).unwrap();
    task.start("").unwrap();
    assert_eq!(task.wait(""), 0);
    let mut line = [0; 5];
    reader.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"mine\n");
    task.finish();
    Leftovers::none(&pod.scratch);
}
