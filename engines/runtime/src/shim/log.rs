//! What shims have to say besides answers: lines from the fifo `log` of a bundle.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use crate::key::Key;

/// A line beyond this is told in pieces.
const LINE_MAX: u64 = 16 << 10;
/// Most shims say nothing; a buffer a shim is memory a container.
const BUFFER: usize = 256;

/// Opens a bundle's fifo so that a shim's open never waits. Tells the shim's lines until it is dropped.
pub(crate) fn follow(fifo: &Path, key: Key) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    // Opened for both, it has no end while nobody writes.
    let receiver = OpenOptions::new().read_write(true).open_receiver(fifo)?;
    Ok(tell(receiver, key))
}

async fn tell(receiver: Receiver, key: Key) {
    let mut lines = BufReader::with_capacity(BUFFER, receiver);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tell_line(String::from_utf8_lossy(&line).trim_end(), &key),
        }
        if line.capacity() > BUFFER {
            line = Vec::new();
        }
    }
}

/// Passes a line on under the level that its writer gave it. Its text is a stranger's: control characters
/// are shown as escapes.
fn tell_line(line: &str, key: &Key) {
    if line.is_empty() {
        return;
    }
    let text: String = line.chars().flat_map(escaped).collect();
    match level(line) {
        "error" | "fatal" | "panic" => tracing::error!(target: "shim", task = %key, "{text}"),
        "warning" | "warn" => tracing::warn!(target: "shim", task = %key, "{text}"),
        "debug" | "trace" => tracing::debug!(target: "shim", task = %key, "{text}"),
        _ => tracing::info!(target: "shim", task = %key, "{text}"),
    }
}

fn escaped(character: char) -> impl Iterator<Item = char> {
    let escape = character.is_control() && character != '\t';
    let (escape, plain) =
        if escape { (Some(character.escape_default()), None) } else { (None, Some(character)) };
    escape.into_iter().flatten().chain(plain)
}

/// The level in a line of logrus' text form or of JSON, which is what shims write.
fn level(line: &str) -> &str {
    for mark in ["level=", "\"level\":\""] {
        if let Some((_, rest)) = line.split_once(mark) {
            return rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_a_line_is_found_in_both_forms() {
        assert_eq!(level(r#"time="x" level=warning msg="y""#), "warning");
        assert_eq!(level(r#"{"level":"error","msg":"y"}"#), "error");
        assert_eq!(level("plain"), "");
    }

    #[test]
    fn control_characters_are_shown() {
        let text: String = "a\u{1b}[31mb".chars().flat_map(escaped).collect();
        assert_eq!(text, "a\\u{1b}[31mb");
    }
}
