//! Events through the daemon's program, for daemons without a ttrpc socket.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use berth_types::{Error, Result};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::children::Children;

/// Runs `PROGRAM --address A publish --topic T --namespace N` with an encoded `Any` on its standard input. Blocking.
pub(crate) fn run(
    children: &Children,
    program: &Path,
    address: &str,
    topic: &str,
    namespace: &str,
    input: &[u8],
) -> Result<()> {
    let failed = |e| Error::io(format!("cannot publish {topic} with {}", program.display()), e);
    let memory = memfd_create("event", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = File::from(memory);
    file.write_all(input).and_then(|()| file.rewind()).map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["--address", address, "publish", "--topic", topic, "--namespace", namespace]);
    command.stdin(file).stdout(Stdio::null()).stderr(Stdio::piped());
    let finished = children.run(&mut command).map_err(failed)?;
    if finished.status == 0 {
        return Ok(());
    }
    Err(Error::unknown(format!(
        "{} could not publish {topic}: status {}: {}",
        program.display(),
        finished.status,
        finished.stderr
    )))
}
