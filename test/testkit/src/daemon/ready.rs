//! Whether a gRPC server answers at a socket: it does once it returns an HTTP/2 SETTINGS frame.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The client's preface followed by an empty SETTINGS frame (RFC 9113, section 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The type of a SETTINGS frame.
const SETTINGS: u8 = 4;

/// Connects, greets and reads the head of the first frame.
pub(super) fn answers(socket: &Path) -> bool {
    greet(socket).is_ok_and(|kind| kind == SETTINGS)
}

fn greet(socket: &Path) -> std::io::Result<u8> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(HELLO)?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    Ok(head[3])
}
