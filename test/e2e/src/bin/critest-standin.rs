//! What the images of critest hold in place of nginx, httpd and a program that tells its rights: one static file, which
//! does what its name says.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What the server shows itself as, once it is ready to serve.
const MASTER: &str = "master process";
const PAGE: &str = "<html><body><h1>It works!</h1></body></html>\n";

fn main() -> ExitCode {
    let mut words = std::env::args();
    let called = words.next().unwrap_or_default();
    if called.ends_with("nonewprivs") {
        println!("Effective uid: {}", rustix::process::geteuid().as_raw());
        return ExitCode::SUCCESS;
    }
    let port = words.next().unwrap_or_else(|| "80".to_owned());
    let failed = match called.split_once(": ") {
        Some((name, _)) => serve(name, &port),
        None => show_as_master(&called, &port),
    };
    eprintln!("{called}: {failed:?}");
    ExitCode::FAILURE
}

/// Runs the same file again under the title that nginx gives itself.
fn show_as_master(path: &str, port: &str) -> io::Result<()> {
    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(Command::new(path).arg0(format!("{name}: {MASTER} {name}")).arg(port).exec())
}

/// Greets every caller, one after the other.
fn serve(name: &str, port: &str) -> io::Result<()> {
    let listener = TcpListener::bind(format!("[::]:{port}"))
        .or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}")))?;
    std::fs::create_dir_all("/var/run")?;
    std::fs::write(format!("/var/run/{name}.pid"), std::process::id().to_string())?;
    eprintln!("{name}: serving on {port}");
    for caller in listener.incoming() {
        // One that hangs up early is no reason to end.
        let _ = greet(caller?);
    }
    Ok(())
}

fn greet(mut caller: TcpStream) -> io::Result<()> {
    let request = BufReader::new(caller.try_clone()?);
    let head = request.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let _ = head.count();
    let length = PAGE.len();
    write!(
        caller,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PAGE}"
    )
}
