//! The machine: its start, its one shared instance, and commands in it.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use testkit::need::{self, Missing};
use testkit::programs;

use crate::disk;
use crate::port::{Port, Reply};

/// The folder of the peers that holds the guest.
const PEER: &str = "guest-12.1";
/// How long the boot may take on a busy machine.
const BOOT: Duration = Duration::from_secs(180);
/// How long a command may take unless it says otherwise.
const LIMIT: Duration = Duration::from_secs(180);
/// The seconds after which the machine is ended whatever happens.
const LIFE: &str = "2400";
/// What the kernel is told: cgroup v2 alone, AppArmor, no waiting for anything.
const WORDS: &str = "root=/dev/nvme0n1 rw console=ttyS0 quiet apparmor=1 security=apparmor \
                     systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 mitigations=off panic=-1";

/// What begins a script of which every command has to succeed. (A shell forgives a command behind `!`.)
const STRICT: &str = "set -euo pipefail
not() { if \"$@\"; then echo \"it worked: $*\" >&2; exit 1; fi; }
detached() { local said; said=$(mktemp); berth oci --log $said \"$@\" </dev/null >/dev/null 2>&1 || { cat $said >&2; exit 1; }; rm $said; }
";

static SHARED: OnceLock<Result<Guest, Missing>> = OnceLock::new();

/// A Debian that runs.
#[derive(Debug)]
pub struct Guest {
    port: Port,
    console: File,
}

/// What a command in the guest came to.
#[derive(Debug, Clone)]
pub struct Answer {
    script: String,
    /// The exit code as a shell gives it; 124 when it took too long.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Guest {
    /// The guest that all tests of this executable share, booted by the first that asks. `Err` where the programs for
    /// it are missing.
    pub fn shared() -> Result<&'static Self, Missing> {
        SHARED.get_or_init(Self::boot).as_ref().map_err(Clone::clone)
    }

    fn boot() -> Result<Self, Missing> {
        let qemu = need::program("qemu-system-x86_64")?;
        let peer = programs::peers().join(PEER);
        need::that(peer.is_dir(), &format!("{} (cargo xtask peers)", peer.display()))?;
        // Nothing in it is needed by name once the machine has it open, and a shared guest is never dropped.
        let folder = tempfile::tempdir().expect("the temp folder takes a folder");
        let disk = disk::make(folder.path())?;
        let console = folder.path().join("console.log");
        let log = File::create(&console).expect("the folder takes a file");
        let mut command = machine(&qemu, &peer, &disk, &console);
        // What is written to the disks goes into a file without a name there.
        command.env("TMPDIR", folder.path()).stderr(log.try_clone().expect("a descriptor can be copied"));
        let (stdin, stdout) = start(command);
        let (port, ready) = Port::open(stdin, stdout);
        let console = File::open(&console).expect("it was made above");
        let guest = Self { port, console };
        assert!(ready.recv_timeout(BOOT).is_ok(), "the guest did not boot\n{}", guest.console());
        Ok(guest)
    }

    /// Runs a shell script in the guest, whatever it comes to.
    #[track_caller]
    pub fn run(&self, script: &str) -> Answer {
        self.run_within(script, LIMIT)
    }

    /// The same with another deadline.
    #[track_caller]
    pub fn run_within(&self, script: &str, limit: Duration) -> Answer {
        let Reply { status, stdout, stderr } = self
            .port
            .run(script, limit)
            .unwrap_or_else(|error| panic!("`{script}` in the guest: {error}\n{}", self.console()));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Answer { script: script.to_owned(), code: status, stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs a script that has to succeed, each command of it, and gives its standard output. In it `not COMMAND` is what
    /// has to fail, and `detached WORDS` is `berth oci WORDS` where it leaves processes that would hold the script's streams.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let answer = self.run(&format!("{STRICT}{script}"));
        assert_eq!(answer.code, 0, "{answer}");
        answer.stdout
    }

    /// Runs a script that has to fail, and gives its standard error.
    #[track_caller]
    pub fn fails(&self, script: &str) -> String {
        let answer = self.run(script);
        assert!(answer.code != 0 && answer.code != 124, "{answer}");
        answer.stderr
    }

    /// The last that the kernel and the emulator have said.
    fn console(&self) -> String {
        const ENOUGH: u64 = 4096;
        let length = self.console.metadata().map_or(0, |data| data.len());
        let mut text = vec![0; ENOUGH.min(length) as usize];
        let read = self.console.read_at(&mut text, length.saturating_sub(ENOUGH)).unwrap_or_default();
        String::from_utf8_lossy(&text[..read]).into_owned()
    }
}

/// The command that is the machine.
fn machine(qemu: &Path, peer: &Path, disk: &Path, console: &Path) -> Command {
    // Its end comes with ours: the kernel sends the first signal when the thread that started it has gone.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "timeout", "--signal=KILL", LIFE]).arg(qemu);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-append", WORDS]);
    command.arg("-kernel").arg(peer.join("vmlinuz"));
    command.args(["-chardev", &format!("file,id=console,append=on,path={}", console.display())]);
    command.args(["-serial", "chardev:console", "-chardev", "stdio,id=line,signal=off"]);
    command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=line,name=berth"]);
    for (name, file) in [("root", &peer.join("root.ext4")), ("berth", &disk.to_owned())] {
        let drive = format!("file={},format=raw,if=none,id={name},snapshot=on", file.display());
        command.args(["-drive", &drive, "-device", &format!("nvme,drive={name},serial={name}")]);
    }
    command
}

/// Starts it in a thread that lives as long as it does.
fn start(mut command: Command) -> (ChildStdin, ChildStdout) {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("setpriv is part of every Debian");
        let streams = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        // Taken: the other side waits for nothing else.
        let _ = sender.send(streams);
        child.wait()
    });
    receiver.recv().expect("the thread sends before it waits")
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in the guest ended with {}", self.script, self.code)?;
        write!(f, "\nstdout: {}\nstderr: {}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}
