//! Fifos between a shim and us, in a private folder that goes away with them.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_types::Stdio;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};

/// The folder of the fifos of one process.
pub(crate) struct Fifos {
    folder: PathBuf,
    stdin: bool,
    terminal: bool,
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
}

impl Fifos {
    /// Makes them and opens those that we read, so that nothing can be written before somebody reads.
    pub(crate) fn make(stdin: bool, terminal: bool) -> io::Result<Self> {
        let base = if Path::new("/run").is_dir() { "/run/berth/fifo" } else { "/tmp/berth-fifo" };
        let mut folder = PathBuf::from(base);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        folder.push(&berth_workload::names::new_id().as_str()[..24]);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let mut fifos = Self { folder, stdin, terminal, stdout: None, stderr: None };
        if stdin {
            fifos.fifo("stdin")?;
        }
        fifos.stdout = Some(fifos.readable("stdout")?);
        if !terminal {
            fifos.stderr = Some(fifos.readable("stderr")?);
        }
        Ok(fifos)
    }

    /// Their paths, as a task is told.
    pub(crate) fn stdio(&self) -> Stdio {
        let path = |name: &str, there: bool| {
            if there { self.folder.join(name).to_string_lossy().into_owned() } else { String::new() }
        };
        Stdio {
            stdin: path("stdin", self.stdin),
            stdout: path("stdout", true),
            stderr: path("stderr", !self.terminal),
            terminal: self.terminal,
        }
    }

    /// The fifo to write input to, once the shim has opened its end.
    pub(super) fn input(&self) -> io::Result<Option<File>> {
        if !self.stdin {
            return Ok(None);
        }
        writable(&self.folder.join("stdin")).map(Some)
    }

    fn fifo(&self, name: &str) -> io::Result<()> {
        Ok(mknodat(CWD, self.folder.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?)
    }

    fn readable(&self, name: &str) -> io::Result<File> {
        self.fifo(name)?;
        readable(&self.folder.join(name))
    }
}

/// Opens a fifo to read without waiting for a writer.
pub(super) fn readable(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(openat(CWD, path, flags, Mode::empty())?))
}

/// Opens a fifo to write without waiting for a reader; one that is not there yet will come.
pub(super) fn writable(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(CWD, path, flags | OFlags::WRONLY, Mode::empty()) {
        Err(rustix::io::Errno::NXIO) => {
            Ok(File::from(openat(CWD, path, flags | OFlags::RDWR, Mode::empty())?))
        }
        other => Ok(File::from(other?)),
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        // Both ends are open by now, or nobody will ever open them.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
