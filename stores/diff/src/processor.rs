//! Programs that make a layer of one type from one of another, such as a plain one from an encrypted one: containerd's
//! stream processors.
//!
//! ```text
//!   blob ─▶ [program] ─▶ [another one, if need be] ─▶ a layer that can be unpacked
//!     standard input: the bytes · standard output: the others · descriptor 3: the options of the request, if any
//!     STREAM_PROCESSOR_MEDIATYPE: the type of what comes in · status 0 at the end
//! ```
//! A program that stands still is killed, and one that fails fails the layer with the end of what it said.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_sys::launch::Ended;
use berth_sys::piped::{Patience, Piped, find_program};
use berth_types::{Any, Error, Result};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::walking::check_layer;

/// How long a program may neither take nor give anything, nor end once it has given all.
const IDLE: Duration = Duration::from_mins(1);
/// Programs one after the other for one layer.
const CHAIN: usize = 4;
/// Bytes given out at a time.
const PART: usize = 128 << 10;

/// A program of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its name, under which requests have options for it.
    pub id: String,
    /// The types that it takes.
    pub accepts: Vec<String>,
    /// The type that it gives.
    pub returns: String,
    /// Its path, or its name in `PATH`.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment beside the daemon's, `NAME=VALUE`.
    pub env: Vec<String>,
    /// How long it may stand still.
    pub idle: Duration,
}

impl Processor {
    /// A program without arguments.
    pub fn new(id: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            accepts: Vec::new(),
            returns: String::new(),
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            idle: IDLE,
        }
    }
}

/// The programs that a layer goes through, each with the type that it gets. None for one that can be unpacked as it is
/// and that no program asks for.
pub(crate) fn chain<'a>(all: &'a [Processor], media_type: &'a str) -> Result<Vec<(&'a Processor, &'a str)>> {
    let (mut kind, mut chain) = (media_type, Vec::new());
    // As in containerd, what is configured comes before what is built in, and the last one of two.
    while let Some(found) = all.iter().rev().find(|one| one.accepts.iter().any(|accepted| accepted == kind)) {
        if chain.len() == CHAIN {
            let text =
                format!("layers of type {media_type:?} go through more than {CHAIN} stream_processors");
            return Err(Error::invalid_argument(text));
        }
        chain.push((found, kind));
        kind = &found.returns;
        if kind == berth_oci::image::media::OCI_LAYER {
            break;
        }
    }
    check_layer(kind)?;
    Ok(chain)
}

/// Puts a layer through its programs.
pub(crate) fn through(
    source: impl BufRead + Send + 'static,
    chain: &[(&Processor, &str)],
    payloads: &BTreeMap<String, Any>,
) -> Result<Box<dyn BufRead + Send>> {
    let mut stream: Box<dyn BufRead + Send> = Box::new(source);
    for (processor, kind) in chain {
        let processed = Processed::start(processor, kind, payloads.get(&processor.id), stream)
            .map_err(|source| Error::failed_precondition(named(processor)).caused_by(source))?;
        stream = Box::new(processed);
    }
    Ok(stream)
}

fn named(processor: &Processor) -> String {
    format!("cannot start the stream processor {:?} ({})", processor.id, processor.path.display())
}

/// What a program makes of a stream.
struct Processed {
    id: String,
    idle: Duration,
    piped: Piped,
    source: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    filled: usize,
    taken: usize,
    ended: bool,
}

impl Processed {
    fn start(
        processor: &Processor,
        kind: &str,
        payload: Option<&Any>,
        source: Box<dyn BufRead + Send>,
    ) -> io::Result<Self> {
        let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let added = processor.env.iter().filter_map(|pair| pair.split_once('='));
        for (name, value) in added.chain([("STREAM_PROCESSOR_MEDIATYPE", kind)]) {
            environment.retain(|(known, _)| known != name);
            environment.push((name.into(), value.into()));
        }
        let search = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let program = find_program(Path::new(&processor.path), search.as_deref().map(OsStr::new))?;
        let given = payload.map(payload_file).transpose()?;
        let given = given.as_ref().map(AsFd::as_fd);
        let piped = Piped::start(&program, &processor.args, environment, given)?;
        Ok(Self {
            id: processor.id.clone(),
            idle: processor.idle,
            piped,
            source,
            buffer: vec![0; PART],
            filled: 0,
            taken: 0,
            ended: false,
        })
    }

    fn next(&mut self) -> io::Result<usize> {
        let patience = Patience::Idle(self.idle);
        let failed = match self.piped.read(&mut self.source, &mut self.buffer, patience) {
            Ok(0) => match self.piped.finish(patience) {
                Ok(Ended::Status(0)) => return Ok(0),
                Ok(Ended::Status(code)) => format!("failed with status {code}"),
                Ok(Ended::Signal(signal)) => format!("was killed by signal {signal}"),
                Err(error) => self.why(&error),
            },
            Ok(length) => return Ok(length),
            Err(error) => self.why(&error),
        };
        let said = self.piped.said();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        Err(io::Error::other(format!("the stream processor {:?} {failed}{said}", self.id)))
    }

    fn why(&self, error: &io::Error) -> String {
        if error.kind() == io::ErrorKind::TimedOut {
            return format!("stood still for {:?} and was killed", self.idle);
        }
        format!("broke off: {error}")
    }
}

impl BufRead for Processed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.filled && !self.ended {
            (self.filled, self.taken) = (self.next()?, 0);
            self.ended = self.filled == 0;
        }
        Ok(&self.buffer[self.taken..self.filled])
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount;
    }
}

impl Read for Processed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}

/// The options of a request as a file in memory: a `google.protobuf.Any` on the wire.
fn payload_file(payload: &Any) -> io::Result<File> {
    let mut file = File::from(memfd_create("stream-processor-payload", MemfdFlags::CLOEXEC)?);
    file.write_all(&encoded(payload))?;
    file.rewind()?;
    Ok(file)
}

/// Field 1 is the type's address, field 2 the value; both are prefixed with their length.
fn encoded(payload: &Any) -> Vec<u8> {
    let mut wire = Vec::new();
    for (tag, bytes) in [(0x0a, payload.type_url.as_bytes()), (0x12, &payload.value[..])] {
        if bytes.is_empty() {
            continue;
        }
        wire.push(tag);
        let mut length = bytes.len();
        while length >= 0x80 {
            wire.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        wire.push(length as u8);
        wire.extend_from_slice(bytes);
    }
    wire
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use berth_oci::image::media;

    use super::*;

    const LOCKED: &str = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";

    fn shell(script: &str) -> Processor {
        Processor {
            accepts: vec![LOCKED.into()],
            returns: media::OCI_LAYER_GZIP.into(),
            args: vec!["-c".into(), script.into()],
            ..Processor::new("test", "sh")
        }
    }

    fn run(processor: &Processor, input: &[u8], payload: Option<Any>) -> io::Result<Vec<u8>> {
        let payloads = payload.map(|payload| ("test".to_owned(), payload)).into_iter().collect();
        let all = [processor.clone()];
        let chain = chain(&all, LOCKED).unwrap();
        let mut output = Vec::new();
        through(Cursor::new(input.to_vec()), &chain, &payloads).unwrap().read_to_end(&mut output)?;
        Ok(output)
    }

    #[test]
    fn a_layer_goes_through_its_program() {
        let input: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 253) as u8).collect();
        let wanted: Vec<u8> = input.iter().map(|byte| if *byte == 1 { 2 } else { *byte }).collect();
        assert!(run(&shell(r"tr '\001' '\002'"), &input, None).unwrap() == wanted);
        let mut named = shell("printf '%s %s' $STREAM_PROCESSOR_MEDIATYPE $KEY");
        named.env = vec!["KEY=k".into()];
        assert_eq!(run(&named, b"", None).unwrap(), format!("{LOCKED} k").as_bytes());
    }

    #[test]
    fn options_of_the_request_are_its_third_descriptor() {
        let payload = Any { type_url: "type.test/Keys".into(), value: vec![7; 200] };
        let found = run(&shell("cat <&3"), b"", Some(payload)).unwrap();
        let mut wanted = b"\x0a\x0etype.test/Keys\x12\xc8\x01".to_vec();
        wanted.extend([7; 200]);
        assert_eq!(found, wanted);
        let without = run(&shell("[ -e /proc/self/fd/3 ] || echo none"), b"", None).unwrap();
        assert_eq!(without, b"none\n");
    }

    #[test]
    fn a_program_that_fails_hangs_or_is_not_there_says_so() {
        let error = run(&shell("cat >/dev/null; echo no key >&2; exit 5"), b"x", None).unwrap_err();
        assert_eq!(error.to_string(), "the stream processor \"test\" failed with status 5: no key");
        let hanging = Processor { idle: Duration::from_millis(30), ..shell("echo a; sleep 1000") };
        let error = run(&hanging, b"x", None).unwrap_err();
        assert!(error.to_string().contains("stood still for 30ms and was killed"), "{error}");
        let missing = [Processor { path: "berth-no-such-program".into(), ..shell("") }];
        let chain = chain(&missing, LOCKED).unwrap();
        let Err(error) = through(Cursor::new(b""), &chain, &BTreeMap::new()) else {
            panic!("it is not there")
        };
        assert!(error.chain().contains("berth-no-such-program"), "{error:?}");
    }

    #[test]
    fn programs_follow_one_another_and_end() {
        let step = |from: &str, to: &str| {
            let returns = to.to_owned();
            Processor { accepts: vec![from.to_owned()], returns, ..Processor::new(from, "true") }
        };
        let two = [step("a", "b"), step("b", media::OCI_LAYER_ZSTD), step("x", "y"), step("l", "l")];
        let ids = |kind| chain(&two, kind).map(|chain| chain.iter().map(|(one, _)| one.id.clone()).collect());
        assert_eq!(ids("a").unwrap(), ["a".to_owned(), "b".to_owned()] as [String; 2]);
        let none: Vec<String> = ids(media::OCI_LAYER_GZIP).unwrap();
        assert!(none.is_empty());
        assert_eq!(ids("x").unwrap_err().kind(), berth_types::ErrorKind::NotImplemented);
        assert_eq!(ids("l").unwrap_err().kind(), berth_types::ErrorKind::InvalidArgument);
    }
}
