//! A new filesystem in a file, made by the machine's own `mkfs`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Only for its owner and their group.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFilesystem {
    /// `ext2`, `ext3`, `ext4` or `xfs`.
    pub kind: String,
    /// Bytes of the file; only what is written of them takes room.
    pub size: u64,
    /// Its identifier, if it is not to be a random one.
    pub uuid: Option<String>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Of a kind that is not known here.
    #[error("unsupported filesystem {0:?}: ext2, ext3, ext4 and xfs can be made")]
    Kind(String),
    /// The program is not there.
    #[error("{0} is not on this machine, and a filesystem is to be made with it: install it")]
    Missing(String),
    /// The program refused.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// The kernel refused.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
}

impl NewFilesystem {
    /// Makes it in the file `name` of an open folder, which must not be there. The file gets its name when it is whole and
    /// on disk. Blocking.
    pub fn make(&self, folder: impl AsFd, name: &OsStr) -> Result<(), MakeError> {
        let (program, arguments) = self.command()?;
        let mut unfinished = name.to_owned();
        unfinished.push(".new");
        let made = self.make_unfinished(&folder, &unfinished, &program, &arguments).and_then(|()| {
            rustix::fs::renameat(&folder, &unfinished, &folder, name)
                .map_err(|error| MakeError::Io("name the file", error.into()))
        });
        if made.is_err() {
            // The first error is the one to tell, and the next attempt removes it as well.
            let _ = rustix::fs::unlinkat(&folder, &unfinished, AtFlags::empty());
        }
        made
    }

    fn make_unfinished(
        &self,
        folder: impl AsFd,
        name: &OsStr,
        program: &str,
        arguments: &[OsString],
    ) -> Result<(), MakeError> {
        // Left by a process that ended here.
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(MakeError::Io("remove what was begun before", error.into())),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, MODE)
            .map_err(|error| MakeError::Io("make the file", error.into()))?;
        let file = File::from(file);
        file.set_len(self.size).map_err(|error| MakeError::Io("size the file", error))?;
        run(program, arguments, &folder, name)?;
        file.sync_all().map_err(|error| MakeError::Io("flush the file", error))
    }

    /// The program and its arguments before the file's name.
    fn command(&self) -> Result<(String, Vec<OsString>), MakeError> {
        let uuid = self.uuid.as_ref();
        let more = match self.kind.as_str() {
            "ext2" | "ext3" | "ext4" => uuid.map(|uuid| ["-U".to_owned(), uuid.clone()]),
            "xfs" => uuid.map(|uuid| ["-m".to_owned(), format!("uuid={uuid}")]),
            other => return Err(MakeError::Kind(other.to_owned())),
        };
        let arguments = ["-q".to_owned()].into_iter().chain(more.into_iter().flatten());
        Ok((format!("mkfs.{}", self.kind), arguments.map(OsString::from).collect()))
    }
}

/// Runs the program on a file of an open folder.
fn run(program: &str, arguments: &[OsString], folder: impl AsFd, file: &OsStr) -> Result<(), MakeError> {
    let failed = |error: io::Error| MakeError::Io("run mkfs", error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder =
        rustix::fs::openat(folder, c".", flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let output = Command::new(program)
        .args(arguments)
        .arg(Path::new(".").join(file))
        // In the child the descriptor is still open when it changes there.
        .current_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MakeError::Missing(program.to_owned()));
        }
        other => other.map_err(failed)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MakeError::Failed { program: program.to_owned(), status: output.status, said })
}
