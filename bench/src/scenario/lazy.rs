//! From the command to the first answer of a container whose image has not come, over links that are slower than this
//! machine: `berth-lazyd` beside stargz-snapshotter, and beside pulling all of it first.
//!
//! The image is 300 MB of files like programs, of which its first process reads a sixteenth and then says a word. That it
//! says it is what is timed: the pull, the container and the reads. Every round begins with empty folders on both sides.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use testkit::image::{self, Image, Layer};
use testkit::{Daemon, Invocation, Kind, Setup, programs, wait};

use super::import::Noise;
use super::link::shape;
use super::pull::{LONG, put};
use crate::machine;
use crate::measure::{Samples, time};
use crate::table::{Better, Table};

/// Megabits a second.
const LINKS: [u32; 2] = [100, 1000];
/// Of the image, and of which one of how many is read, as a program reads the folders of what it needs.
const FOLDERS: usize = 160;
const ONE_OF: usize = 16;
/// In each folder, and their size.
const FILES: usize = 15;
const SIZE: usize = 128 << 10;

/// How an image is brought so far that a container of it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// containerd, all of it first.
    Full,
    /// berth, all of it first.
    OwnFull,
    /// containerd with stargz-snapshotter.
    Stargz,
    /// containerd with berth-lazyd.
    LazydElsewhere,
    /// berth with berth-lazyd.
    Lazyd,
    /// The same where an index of each layer is there already: a node's second time.
    Indexed,
}

/// The forms of the image in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Estargz,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Estargz => "estargz",
        }
    }
}

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    for rate in LINKS {
        // A namespace is a thread's, and what the thread starts is in it.
        let measured = thread::spawn(move || measure(rounds, rate)).join();
        let measured = measured.map_err(|_| anyhow!("the measuring thread panicked"))??;
        let of = |way, form| {
            let found = measured.iter().find(|(measured, _)| *measured == (way, form));
            found.map(|(_, samples)| samples.clone()).unwrap_or_default()
        };
        let full = of(Way::Full, Form::Plain);
        let mut add = |what: &str, own: Samples, other: Samples| {
            table.add(("lazy", &format!("{what}, {rate} Mbit/s"), "ms"), Better::Less, [own, other]);
        };
        let (lazyd, stargz) = (of(Way::Lazyd, Form::Estargz), of(Way::Stargz, Form::Estargz));
        add("eStargz to the first answer, beside stargz-snapshotter", lazyd.clone(), stargz.clone());
        add("the same, berth-lazyd under containerd", of(Way::LazydElsewhere, Form::Estargz), stargz);
        add("eStargz, beside a full pull", lazyd, full.clone());
        add("a plain image, first time, beside a full pull", of(Way::Lazyd, Form::Plain), full.clone());
        add("a plain image with indexes, beside a full pull", of(Way::Indexed, Form::Plain), full.clone());
        add("full pulls on both", of(Way::OwnFull, Form::Plain), full);
    }
    Ok(())
}

type Measured = Vec<((Way, Form), Samples)>;

fn measure(rounds: usize, rate: u32) -> Result<Measured> {
    let registry = shape(rate)?;
    let name = |form: Form| format!("{}/bench/app:{}", registry.address(), form.name());
    publish(&name)?;
    let indexes = testkit::Scratch::new();
    let mut measured: Measured = [
        (Way::Full, Form::Plain),
        (Way::OwnFull, Form::Plain),
        (Way::Stargz, Form::Estargz),
        (Way::LazydElsewhere, Form::Estargz),
        (Way::Lazyd, Form::Estargz),
        (Way::Lazyd, Form::Plain),
        (Way::Indexed, Form::Plain),
    ]
    .map(|case| (case, Samples::default()))
    .into();
    if programs::find("containerd-stargz-grpc").is_none() {
        eprintln!("stargz-snapshotter is not there (cargo xtask peers --peer stargz-snapshotter)");
        measured.retain(|((way, _), _)| *way != Way::Stargz);
    }
    for _ in 0..rounds.div_ceil(7) {
        for ((way, form), samples) in &mut measured {
            samples.push_time(first_answer(*way, &name(*form), indexes.path("indexes").as_path())?);
        }
    }
    Ok(measured)
}

fn publish(name: &impl Fn(Form) -> String) -> Result<()> {
    let (plain, estargz) = (name(Form::Plain), name(Form::Estargz));
    // As most tools compress: what the test kit makes has one block for all, in which nobody can begin.
    put(&app(&plain)?, &plain, |subject| {
        subject.convert("--uncompress", &plain, &plain)?.within(LONG).ok();
        subject.convert("--gzip", &plain, &plain)?.within(LONG).ok();
        Ok(())
    })?;
    put(&app(&plain)?, &estargz, |subject| {
        subject.convert("--estargz", &plain, &estargz)?.within(LONG).ok();
        Ok(())
    })
}

fn app(name: &str) -> Result<Image> {
    let mut noise = Noise(4);
    let mut layer = Layer::new().dir("app", 0o755);
    for folder in 0..FOLDERS {
        let needed = if folder % ONE_OF == 0 { "needed" } else { "more" };
        let folder = format!("app/{needed}-{folder}");
        layer = layer.dir(&folder, 0o755);
        for number in 0..FILES {
            layer = layer.file(&format!("{folder}/{number}"), &noise.bytes(SIZE), 0o644);
        }
    }
    let words = ["sh", "-c", "cat /app/needed-*/* | md5sum"];
    Ok(image::busybox()?.named(name).layer(layer).cmd(&words))
}

/// How long it takes on machines without anything.
fn first_answer(way: Way, reference: &str, indexes: &Path) -> Result<Duration> {
    let kind = if matches!(way, Way::Full | Way::Stargz | Way::LazydElsewhere) {
        Kind::Containerd
    } else {
        Kind::Berth
    };
    let setup = Setup {
        config: if way.is_lazy() { PROXY.replace("\"linux\"", &platform()) } else { String::new() },
        log_level: Some("info".to_owned()),
        before: Some(|scratch| {
            machine::fresh_root(scratch);
            let lazy = scratch.path("lazy");
            fs::create_dir(&lazy).and_then(|()| machine::fresh_disk(&lazy)).expect("a fresh filesystem");
        }),
        ..Setup::default()
    };
    let daemon = Daemon::with(kind, setup)?;
    let _server = way.is_lazy().then(|| Server::start(way, &daemon, indexes)).transpose()?;
    let snapshotter = way.is_lazy().then_some(["--snapshotter", "lazy"]);
    let flags = || snapshotter.into_iter().flatten();
    let (took, ()) = if kind == Kind::Berth {
        let program = programs::own("berth").context("berth is not built")?;
        let berth = || daemon.client(&program).within(LONG);
        let pull = berth().args(["pull", "--quiet"]).args(flags()).arg(reference);
        let run = berth().args(["run", "--rm", "--network", "none"]).args(flags()).arg(reference);
        time(|| answered(pull, run))
    } else {
        let ctr = || Ok::<_, anyhow::Error>(daemon.ctr()?.within(LONG));
        let pull = ctr()?.args(["images", "pull", "--plain-http"]).args(flags()).arg(reference);
        let run = ctr()?.args(["run", "--rm"]).args(flags()).args([reference, "app"]);
        time(|| answered(pull, run))
    };
    if way == Way::Lazyd {
        keep_indexes(&daemon.scratch().path("lazy/indexes"), indexes)?;
    }
    Ok(took)
}

fn answered(pull: Invocation, run: Invocation) {
    pull.ok();
    run.first_byte();
}

/// Keeps what a first time has learned for a second one.
fn keep_indexes(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

impl Way {
    fn is_lazy(self) -> bool {
        !matches!(self, Self::Full | Self::OwnFull)
    }
}

fn platform() -> String {
    format!("\"linux/{}\"", image::architecture())
}

/// How a daemon is told of the snapshotter.
const PROXY: &str = r#"
[proxy_plugins.lazy]
  type = "snapshot"
  address = "SCRATCH/lazy.sock"
  [proxy_plugins.lazy.exports]
    enable_remote_snapshot_annotations = "true"

[plugins."io.containerd.transfer.v1.local"]
  [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "linux"
    snapshotter = "lazy"
"#;

/// The lazy snapshotter's process, which ends with this.
struct Server(Child);

impl Server {
    fn start(way: Way, daemon: &Daemon, indexes: &Path) -> Result<Self> {
        let scratch = daemon.scratch();
        let (root, socket) = (scratch.path("lazy"), scratch.path("lazy.sock"));
        let mut command = if way == Way::Stargz {
            let program =
                programs::find("containerd-stargz-grpc").context("stargz-snapshotter is not there")?;
            Command::new(program)
        } else {
            if way == Way::Indexed {
                keep_indexes(indexes, &root.join("indexes"))?;
            }
            let mut command = Command::new(programs::own("berth-lazyd").context("berth-lazyd is not built")?);
            command.arg("--config").arg(scratch.file("lazyd.toml", "[lazy]\nplain = true\n"));
            command
        };
        command.arg("--address").arg(&socket).arg("--root").arg(&root).args(["--log-level", "warn"]);
        let log = fs::File::create(scratch.path("lazy.log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let server = Self(child);
        wait::soon("the snapshotter's socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
