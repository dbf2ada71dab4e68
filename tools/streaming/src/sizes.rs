//! Sizes of a terminal, as JSON documents one after the other.

use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use crate::mux::Reader;
use crate::session::TerminalSize;

/// No document is longer, white space included.
const LONGEST: usize = 1024;

/// Passes sizes on until there are no more. Nonsense is the end of them, as with a kubelet.
pub(crate) async fn follow(reader: Option<Reader>, sizes: watch::Sender<Option<TerminalSize>>) {
    let Some(mut reader) = reader else { return };
    let mut text = Vec::new();
    while text.len() < LONGEST {
        match reader.read_buf(&mut text).await {
            Ok(1..) => {}
            _ => return,
        }
        let Some((read, last)) = parse(&text) else { return };
        text.drain(..read);
        if last.is_some() {
            sizes.send_replace(last);
        }
    }
}

/// How many bytes are whole documents, and the last size in them; none for nonsense.
fn parse(text: &[u8]) -> Option<(usize, Option<TerminalSize>)> {
    let mut documents = serde_json::Deserializer::from_slice(text).into_iter();
    let (mut read, mut last) = (0, None);
    while let Some(size) = documents.next() {
        match size {
            Ok(size) => last = Some(size),
            Err(error) if error.is_eof() => return Some((read, last)),
            Err(_) => return None,
        }
        read = documents.byte_offset();
    }
    Some((text.len(), last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_however_they_are_cut() {
        let size = |width, height| Some(TerminalSize { width, height });
        assert_eq!(parse(b""), Some((0, None)));
        assert_eq!(parse(b"{\"Width\":80,"), Some((0, None)));
        assert_eq!(parse(b"{\"Width\":80,\"Height\":24}\n"), Some((25, size(80, 24))));
        let two = b"{\"Width\":80,\"Height\":24}{\"Width\":1,\"Height\":2}\n{\"Wi";
        assert_eq!(parse(two), Some((46, size(1, 2))));
        for nonsense in [&b"{\"Width\":80000,\"Height\":24}"[..], b"x", b"[]"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
    }
}
