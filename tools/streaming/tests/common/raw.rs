//! A peer that writes its frames itself.

use berth_streaming::spdy::Headers;
use berth_streaming::spdy::frame::{Decoder, Encoder, Frame, data};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The head of an answer, in lower case, and what came after it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) tcp: TcpStream,
    pub(crate) rest: BytesMut,
}

/// Sends a request; `headers` are lines.
pub(crate) async fn request(method: &str, url: &str, headers: &str) -> Answer {
    let url = url.strip_prefix("http://").unwrap();
    let (host, path) = url.split_once('/').unwrap();
    let mut tcp = TcpStream::connect(host).await.unwrap();
    let text = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    tcp.write_all(text.as_bytes()).await.unwrap();
    let mut rest = BytesMut::new();
    let end = loop {
        if let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(tcp.read_buf(&mut rest).await.unwrap() > 0, "no answer");
    };
    let head = String::from_utf8(rest.split_to(end).to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, tcp, rest }
}

pub(crate) const SPDY4: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
pub(crate) const SPDY_PORTS: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n";

/// The headers that open a WebSocket.
pub(crate) fn websocket(protocol: &str) -> String {
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n"
    )
}

/// A SPDY client.
pub(crate) struct Spdy {
    pub(crate) tcp: TcpStream,
    decoder: Decoder,
    encoder: Encoder,
    next: u32,
}

impl Spdy {
    pub(crate) async fn connect(url: &str, headers: &str) -> Self {
        let Answer { status, head, tcp, rest } = request("POST", url, headers).await;
        assert_eq!(status, 101, "{head}");
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&rest);
        Self { tcp, decoder, encoder: Encoder::default(), next: 1 }
    }

    /// A session of a process, all of whose streams are open.
    pub(crate) async fn process(url: &str, kinds: &[&str]) -> Self {
        let mut spdy = Self::connect(url, SPDY4).await;
        for kind in kinds {
            spdy.open(&[("streamType", kind)]).await;
        }
        spdy
    }

    /// Opens a stream; gives its number.
    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let (stream, mut bytes) = (self.next, BytesMut::new());
        self.next += 2;
        self.encoder.open(stream, &Headers::new(headers.iter().copied()), &mut bytes);
        self.write(&bytes).await;
        stream
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        let mut frame = BytesMut::new();
        data(stream, bytes, fin, &mut frame);
        self.write(&frame).await;
    }

    /// The next frame; none when the server has closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.take().unwrap() {
                return Some(frame);
            }
            let read = timeout(testkit::wait::SOON, self.tcp.read_buf(self.decoder.buffer()));
            match read.await.expect("the server says something") {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    /// Reads until something is said that is no acceptance and no window.
    pub(crate) async fn said(&mut self) -> Option<Frame> {
        loop {
            match self.next().await {
                Some(Frame::SynReply { .. } | Frame::WindowUpdate { .. }) => {}
                other => return other,
            }
        }
    }
}

/// A client's frame whose key is zero, so that it is what it says.
pub(crate) fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let head = match payload.len() {
        length @ 0..126 => vec![0x80 | opcode, 0x80 | length as u8],
        length => [&[0x80 | opcode, 0x80 | 0x7e][..], &(length as u16).to_be_bytes()].concat(),
    };
    [&head[..], &[0; 4], payload].concat()
}

/// The next frame of a server: its opcode and payload.
pub(crate) async fn receive(tcp: &mut TcpStream, buffer: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    loop {
        if buffer.len() >= 2 {
            let (size, length) = match buffer[1] {
                126 if buffer.len() >= 4 => (4, usize::from(u16::from_be_bytes([buffer[2], buffer[3]]))),
                length @ 0..126 => (2, usize::from(length)),
                _ => (2, usize::MAX - 2),
            };
            if buffer.len() >= size + length {
                let frame = buffer.split_to(size + length);
                return Some((frame[0] & 0xf, frame[size..].to_vec()));
            }
        }
        let read = timeout(testkit::wait::SOON, tcp.read_buf(buffer)).await;
        match read.expect("the server says something") {
            Ok(1..) => {}
            _ => return None,
        }
    }
}
