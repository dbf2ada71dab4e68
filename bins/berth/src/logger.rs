//! `berth internal-logger URI`: writes the log of a container whose shim cannot (`binary://` log URIs).
//!
//! A shim of containerd starts it with standard output and error of the container as descriptors 3 and 4, and waits
//! until descriptor 5 is closed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use berth_sys::given;
use berth_workload::logs::{Limits, Stream, Writer};

/// Runs until both streams have ended.
pub(crate) fn run(uri: Option<OsString>) -> ExitCode {
    let uri = uri.unwrap_or_default().to_string_lossy().into_owned();
    match log(&uri) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth internal-logger: {error}");
            ExitCode::from(1)
        }
    }
}

fn log(uri: &str) -> io::Result<()> {
    let (path, limits) = parse(uri)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri:?} is no log URI")))?;
    let (out, err) = (File::from(given::descriptor(3)?), File::from(given::descriptor(4)?));
    let writer = Arc::new(Mutex::new(Writer::open(&path, limits)?));
    // The streams have copies of ours now; the end of the last of the three tells that we are ready.
    given::close(3, 5)?;
    let other = Arc::clone(&writer);
    let errors = std::thread::spawn(move || copy(err, Stream::Stderr, &other));
    copy(out, Stream::Stdout, &writer)?;
    errors.join().map_err(|_| io::Error::other("the copy of standard error panicked"))?
}

fn copy(mut from: File, stream: Stream, writer: &Mutex<Writer>) -> io::Result<()> {
    let mut block = vec![0_u8; 32 << 10];
    loop {
        let count = match from.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // A full disk must not stop the container: its output is lost, as with Docker.
        let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).write(stream, &block[..count]);
    }
    writer.lock().unwrap_or_else(PoisonError::into_inner).finish(stream)
}

/// The path and the limits of a `berth-json://` URI.
fn parse(uri: &str) -> Option<(PathBuf, Limits)> {
    let rest = uri.strip_prefix("berth-json://")?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut limits = Limits::default();
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "max-size" => limits.max_size = berth_workload::parse::bytes(value).ok(),
            "max-file" => limits.max_files = value.parse().ok().filter(|files| *files > 0)?,
            _ => return None,
        }
    }
    let path = unescape(path)?;
    path.is_absolute().then_some((path, limits))
}

fn unescape(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    Some(Path::new(&OsString::from_vec(bytes)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_has_a_path_and_limits() {
        let (path, limits) = parse("berth-json:///a%20b/c.log?max-size=10m&max-file=3").unwrap();
        assert_eq!(path, Path::new("/a b/c.log"));
        assert_eq!(limits, Limits { max_size: Some(10 << 20), max_files: 3 });
        for bad in ["", "file:///x", "berth-json://x", "berth-json:///x?max-file=0", "berth-json:///x?a=b"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
