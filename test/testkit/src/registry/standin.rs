//! A registry whose answers a test scripts: honest ones from an image, and every fault that a wire can have.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::image::Image;

/// A request as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status; 0 for no answer.
    pub status: u16,
    /// Headers; the length is added.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// The length to claim, when it is to lie.
    pub claimed: Option<usize>,
    /// After how many bytes of the body the connection breaks.
    pub cut: Option<usize>,
    /// After how many bytes of the body nothing more comes, although the connection stays.
    pub stall: Option<usize>,
    /// So many bytes of the body at a time, and how long until the next ones.
    pub trickle: Option<(usize, Duration)>,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            claimed: None,
            cut: None,
            stall: None,
            trickle: None,
        }
    }

    /// No answer: the connection is closed.
    pub fn hang_up() -> Self {
        Self::new(0, "")
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, but the connection breaks after so many bytes of the body.
    #[must_use]
    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

impl Reply {
    /// The same, but after so many bytes of the body nothing more comes.
    #[must_use]
    pub fn stall(mut self, after: usize) -> Self {
        self.stall = Some(after);
        self
    }

    /// The same, but the body comes in drops.
    #[must_use]
    pub fn trickle(mut self, bytes: usize, every: Duration) -> Self {
        self.trickle = Some((bytes, every));
        self
    }
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on a loopback port. Dropping it stops it.
pub struct Standin {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Standin {
    /// Serves what `script` answers.
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (Arc::clone(&requests), Arc::clone(&stopped));
        let script: Arc<Script> = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || converse(&stream, &*script, &seen));
            }
        });
        Self { address, requests, stopped }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers request after request until one side has had enough.
fn converse(stream: &TcpStream, script: &Script, seen: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        let reply = script(&request);
        let cut = reply.cut.is_some();
        if reply.status == 0 || write(stream, &reply, request.method == "HEAD").is_err() || cut {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace();
    let mut request =
        Request { method: words.next()?.to_owned(), target: words.next()?.to_owned(), ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(length) = request.header("content-length").and_then(|length| length.parse().ok()) {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        request.body = body;
    } else if request.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            request.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Some(request)
}

fn write(mut stream: &TcpStream, reply: &Reply, head: bool) -> std::io::Result<()> {
    let length = reply.claimed.unwrap_or(reply.body.len());
    write!(stream, "HTTP/1.1 {} Scripted\r\nContent-Length: {length}\r\n", reply.status)?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if !head {
        let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len()).min(reply.body.len());
        let (step, every) = reply.trickle.unwrap_or((end, Duration::ZERO));
        for drop in reply.body[..end].chunks(step.max(1)) {
            stream.write_all(drop)?;
            if !every.is_zero() && gives_up(stream, every) {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
        }
        if reply.stall.is_some() {
            stream.flush()?;
            gives_up(stream, crate::wait::SOON);
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
    }
    stream.flush()
}

/// Waits; says whether the other side closed the connection meanwhile.
fn gives_up(stream: &TcpStream, limit: Duration) -> bool {
    let mut closed = [PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)];
    crate::wait::pause(&mut closed, limit) > 0
}

/// What an honest registry that has this image as `REPOSITORY:TAG` answers to a request to read; ranges are heeded.
pub fn serve(image: &Image, repository: &str, tag: &str, request: &Request) -> Reply {
    let blobs: Vec<_> = image.blobs().into_iter().chain([image.config()]).collect();
    serve_blobs(&image.manifest(), &blobs, (repository, tag), request)
}

/// The same of an image that somebody else made: its manifest and everything that the manifest names.
pub fn serve_blobs(
    manifest: &[u8],
    blobs: &[Vec<u8>],
    (repository, tag): (&str, &str),
    request: &Request,
) -> Reply {
    let missing = || Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#);
    let Some(rest) = request.path().strip_prefix("/v2/") else { return missing() };
    if rest.is_empty() {
        return Reply::new(200, "{}");
    }
    let Some(rest) = rest.strip_prefix(repository).and_then(|rest| rest.strip_prefix('/')) else {
        return missing();
    };
    let digest = crate::image::digest(manifest);
    if let Some(name) = rest.strip_prefix("manifests/") {
        if name != tag && name != digest {
            return missing();
        }
        return Reply::new(200, manifest)
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .header("Docker-Content-Digest", &digest);
    }
    let wanted = rest.strip_prefix("blobs/").unwrap_or_default();
    let Some(blob) = blobs.iter().find(|blob| crate::image::digest(blob) == wanted) else {
        return missing();
    };
    match request.header("range").and_then(range) {
        Some((from, last)) if from < blob.len() => {
            let last = last.unwrap_or(usize::MAX).min(blob.len() - 1);
            let range = format!("bytes {from}-{last}/{}", blob.len());
            Reply::new(206, &blob[from..=last]).header("Content-Range", &range)
        }
        Some(_) => Reply::new(416, ""),
        None => Reply::new(200, blob.clone()),
    }
}

/// `bytes=FROM-` or `bytes=FROM-LAST`.
fn range(text: &str) -> Option<(usize, Option<usize>)> {
    let (from, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
    Some((from.parse().ok()?, last.filter(|last| from.parse::<usize>().is_ok_and(|from| from <= *last))))
}
