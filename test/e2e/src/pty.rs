//! A program on a terminal of the test's.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use testkit::{need, wait};

/// A program whose controlling terminal is ours to type on, to read and to resize.
#[derive(Debug)]
pub struct Pty {
    master: File,
    /// Kept open so that its modes can be looked at when the program has ended.
    slave: OwnedFd,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    /// Starts a program on a terminal of 80 columns and 24 rows.
    #[track_caller]
    pub fn start(words: &[OsString]) -> Result<Self, need::Missing> {
        let setsid = need::program("setsid")?;
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("the machine has terminals");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("a terminal has a name");
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).expect("it was unlocked");
        let copy = || Stdio::from(slave.try_clone().expect("a descriptor can be copied"));
        let mut command = Command::new(setsid);
        command.args(["--ctty", "--wait"]).args(words).env("TERM", "xterm");
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("setsid starts");
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let pty = Self { master, slave, child, seen };
        pty.resize(80, 24);
        pty.listen();
        Ok(pty)
    }

    /// Types.
    pub fn send(&self, text: &str) {
        (&self.master).write_all(text.as_bytes()).expect("the terminal takes what is typed");
    }

    /// Changes the size, as dragging a window's corner does.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a terminal has a size");
    }

    /// Everything that was shown.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until something is shown.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let deadline = std::time::Instant::now() + wait::SOON / 2;
        wait::until(text, wait::SOON, || {
            let shown = self.shown();
            assert!(std::time::Instant::now() < deadline, "{text:?} is not in {shown:?}");
            shown.contains(text).then_some(())
        });
    }

    /// Sends a signal to the program's process.
    pub fn signal(&self, signal: Signal) {
        let parent = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let pid =
            children.ok().and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(parent);
        if let Some(watched) = wait::Watched::open(pid) {
            watched.signal(signal);
        }
    }

    /// Whether the terminal echoes and collects lines, as a shell expects it.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("a terminal has modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn wait(mut self) -> (ExitStatus, String, bool) {
        let ended = wait::Watched::open(self.child.id()).is_none_or(|one| one.ends_within(wait::SOON / 2));
        assert!(ended, "the program goes on; it showed {:?}", self.shown());
        let status = self.child.wait().expect("it is our child");
        let cooked = self.is_cooked();
        (status, self.all_shown(), cooked)
    }

    /// What was shown until now: what the reader still has to read comes before a mark of our own.
    fn all_shown(&self) -> String {
        const MARK: &str = "\u{1}all\u{1}";
        let mark = MARK.as_bytes();
        rustix::io::write(&self.slave, mark).expect("a terminal can be written to");
        wait::until("the mark", wait::SOON, || self.shown().strip_suffix(MARK).map(str::to_owned))
    }

    fn listen(&self) {
        let mut master = self.master.try_clone().expect("a descriptor can be copied");
        let seen = Arc::clone(&self.seen);
        // Ends with the terminal's last user.
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut block) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&block[..count]);
            }
        });
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
