//! What takes time says on a terminal how far it is, how fast it goes and how long it will take; and nowhere else.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::{Cli, Pty};
use testkit::image::{self, Image, Layer};
use testkit::registry::{Standin, serve};

/// Size of the one layer: more than the mebibyte between two reports.
const SIZE: u32 = 4 << 20;

fn noise() -> Vec<u8> {
    (0..SIZE / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn noisy(name: &str) -> Image {
    Image::new(name).layer(Layer::new().file("noise", &noise(), 0o644)).cmd(&["/noise"])
}

/// A registry that sends the layer over some two seconds.
fn slow_registry() -> Standin {
    let image = noisy("a/b:1");
    let layer = image::digest(&image.blobs().remove(0));
    Standin::start(move |request| {
        let reply = serve(&image, "a/b", "1", request);
        let slow = request.path().ends_with(&layer);
        if slow { reply.trickle(64 << 10, Duration::from_millis(30)) } else { reply }
    })
}

/// A fifo into which the file's bytes come slowly until somebody hurries, as from a slow disk.
struct SlowFile {
    path: PathBuf,
    hurry: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

impl SlowFile {
    fn new(path: &Path, bytes: Vec<u8>) -> Self {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("the scratch folder takes a fifo");
        let (own, hurry) = (path.to_owned(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&hurry);
        let writer = std::thread::spawn(move || {
            let mut fifo = File::options().write(true).open(own).expect("somebody reads the fifo");
            for block in bytes.chunks(64 << 10) {
                if !told.load(Ordering::Relaxed) {
                    // It is the slowness that is tested; nothing is waited for.
                    std::thread::park_timeout(Duration::from_millis(30));
                }
                if fifo.write_all(block).is_err() {
                    return;
                }
            }
        });
        Self { path: path.to_owned(), hurry, writer }
    }

    fn finish(self) {
        self.hurry.store(true, Ordering::Relaxed);
        self.writer.join().expect("all bytes were taken");
    }
}

/// Whether a line says how fast something goes: `1.23 MiB/s`.
fn has_rate(shown: &str) -> bool {
    shown.split("iB/s").next().is_some_and(|before| before.len() < shown.len())
}

#[test]
fn a_pull_on_a_terminal_shows_rate_and_time_left() {
    let Ok(cli) = Cli::start() else { return };
    let registry = slow_registry();
    let name = format!("{}/a/b:1", registry.address());
    let Ok(pty) = Pty::start(&cli.words(&format!("pull {name}"))) else { return };
    pty.expect("transferring");
    pty.expect("iB/s, ");
    pty.expect("s left");
    let (status, shown, cooked) = pty.wait();
    assert!(status.success() && cooked, "{shown}");
    let last = shown.rsplit('\r').next().unwrap_or_default();
    assert!(shown.contains("Digest: sha256:") && !last.contains("iB/s"), "{shown:?}");
    cli.finish();
}

#[test]
fn a_quiet_pull_and_one_without_a_terminal_show_nothing_of_it() {
    let Ok(cli) = Cli::start() else { return };
    let registry = slow_registry();
    let name = format!("{}/a/b:1", registry.address());
    let Ok(pty) = Pty::start(&cli.words(&format!("pull -q {name}"))) else { return };
    let (status, shown, _) = pty.wait();
    assert!(status.success() && shown.trim() == name, "{shown:?}");
    cli.run(&format!("rmi {name}")).ok();

    let piped = cli.run(&format!("pull {name}")).outcome();
    let text = piped.stdout_text() + &piped.stderr_text();
    assert!(text.contains("Digest: sha256:"), "{piped}");
    assert!(!has_rate(&text) && !text.contains("transferring") && !text.contains('\u{1b}'), "{piped}");
    cli.finish();
}

#[test]
fn a_load_shows_rate_and_time_left_unless_it_is_quiet() {
    let Ok(cli) = Cli::start() else { return };
    let image = noisy("berth.test/noise:1");
    for quiet in [false, true] {
        let file = SlowFile::new(&cli.path(&format!("slow-{quiet}")), image.docker_archive());
        let flag = if quiet { "-q" } else { "" };
        let line = format!("load {flag} -i {}", file.path.display());
        let Ok(pty) = Pty::start(&cli.words(&line)) else { return };
        if !quiet {
            pty.expect("iB/s, ");
            pty.expect("s left");
        }
        file.finish();
        let (status, shown, _) = pty.wait();
        assert!(status.success() && shown.contains("Loaded image: berth.test/noise:1"), "{shown:?}");
        assert_eq!(has_rate(&shown), !quiet, "{shown:?}");
    }
    let outcome = cli.run("load").input(image.docker_archive()).outcome();
    assert_eq!(outcome.stdout_text(), "Loaded image: berth.test/noise:1\n");
    assert_eq!(outcome.stderr_text(), "");
    cli.finish();
}

#[test]
fn an_import_shows_its_rate_and_for_a_file_the_time_left() {
    let Ok(cli) = Cli::start() else { return };
    let tar = Layer::new().file("noise", &noise(), 0o644).tar();
    let slow = SlowFile::new(&cli.path("slow.tar"), tar.clone());
    let Ok(pty) = Pty::start(&cli.words(&format!("import {} a/slow", slow.path.display()))) else { return };
    pty.expect("slow.tar");
    pty.expect("iB/s");
    slow.finish();
    let (status, shown, _) = pty.wait();
    assert!(status.success() && !shown.contains(" left"), "nobody knows a fifo's length: {shown:?}");

    let long = cli.path("long.tar");
    std::fs::write(&long, Layer::new().file("zeros", &vec![0; 96 << 20], 0o644).tar())
        .expect("there is room");
    let Ok(pty) = Pty::start(&cli.words(&format!("import {} a/long", long.display()))) else { return };
    let (status, shown, _) = pty.wait();
    assert!(status.success() && has_rate(&shown) && shown.contains("s left"), "{shown:?}");

    let outcome = cli.run("import - a/piped").input(tar).outcome();
    assert!(outcome.stdout_text().starts_with("sha256:"), "{outcome}");
    assert_eq!(outcome.stderr_text(), "");
    cli.finish();
}
