//! A SPDY/3.1 connection as the server sees it, without I/O.
//!
//! Windows are kept in both directions, and looked after in ours: a peer that honours them never holds more of its
//! own back than [`WINDOW`] a stream. What the peer has room for is only known from one that says so: neither
//! `kubectl` nor a kubelet ever updates a window, and one that was heeded would be shut after the first 64 KiB. So
//! its windows hold from its first update on.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::frame::{self, Decoder, Encoder, Frame, Reset};
use super::headers::Headers;
use crate::mux::{Broken, Opening, Protocol, Said};

/// How much may be on its way on a stream, and on the connection, when nobody said anything (section 2.6.8).
const WINDOW: i64 = 64 << 10;
/// The longest value of a header that anybody here reads.
const LONGEST: usize = 64;

/// The server's side.
pub(crate) struct Peer {
    decoder: Decoder,
    encoder: Encoder,
    /// The number of the last stream that the peer opened.
    last: u32,
    /// Per stream; 0 is the connection.
    windows: HashMap<u32, Window>,
    /// What a new stream has.
    initial: i64,
    /// The peer updates windows of streams, and of the connection.
    keeps_streams: bool,
    keeps_connection: bool,
}

/// The room of one stream in both directions.
struct Window {
    /// How much more may be sent; below zero when more was sent before the peer showed that it counts.
    left: i64,
    /// What was consumed and not yet told.
    owed: i64,
}

impl Peer {
    pub(crate) fn new() -> Self {
        let connection = Window { left: WINDOW, owed: 0 };
        Self {
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            last: 0,
            windows: HashMap::from([(0, connection)]),
            initial: WINDOW,
            keeps_streams: false,
            keeps_connection: false,
        }
    }

    fn opened(
        &mut self,
        lane: u32,
        headers: &Headers,
        ended: bool,
        out: &mut BytesMut,
    ) -> Result<Said, Broken> {
        if lane.is_multiple_of(2) || lane <= self.last {
            return Err(Broken::OutOfTurn(lane));
        }
        self.last = lane;
        let value = |name| headers.value(name).unwrap_or_default();
        let [kind, port, request] = ["streamtype", "port", "requestid"].map(value);
        if [kind, port, request].iter().any(|text| text.len() > LONGEST) {
            frame::reset(lane, Reset::Refused, out);
            return Ok(Said::Settled);
        }
        let opening = Opening { kind: kind.to_owned(), port: port.to_owned(), request: request.to_owned() };
        Ok(Said::Opened { lane, opening, ended })
    }

    fn resized(&mut self, initial: u32) {
        let change = i64::from(initial) - self.initial;
        self.initial += change;
        for (_, window) in self.windows.iter_mut().filter(|(lane, _)| **lane != 0) {
            window.left += change;
        }
    }

    fn updated(&mut self, lane: u32, delta: u32) {
        match lane {
            0 => self.keeps_connection = true,
            _ => self.keeps_streams = true,
        }
        if let Some(window) = self.windows.get_mut(&lane) {
            window.left = (window.left + i64::from(delta)).min(i64::from(i32::MAX));
        }
    }

    fn owe(&mut self, lane: u32, bytes: usize, out: &mut BytesMut) {
        let Some(window) = self.windows.get_mut(&lane) else { return };
        window.owed += bytes as i64;
        if window.owed >= WINDOW / 2 {
            frame::window_update(lane, window.owed as u32, out);
            window.owed = 0;
        }
    }
}

impl Protocol for Peer {
    fn incoming(&mut self) -> &mut BytesMut {
        self.decoder.buffer()
    }

    fn take(&mut self, out: &mut BytesMut) -> Result<Option<Said>, Broken> {
        let Some(frame) = self.decoder.take()? else { return Ok(None) };
        let ended = |lane| Said::Data { lane, bytes: Bytes::new(), ended: true };
        Ok(Some(match frame {
            Frame::SynStream { stream, headers, fin } => self.opened(stream, &headers, fin, out)?,
            Frame::Data { stream, bytes, fin } => Said::Data { lane: stream, bytes, ended: fin },
            Frame::RstStream { stream } => Said::Reset(stream),
            Frame::Headers { stream, fin: true } => ended(stream),
            Frame::GoAway => Said::Farewell,
            Frame::Settings { initial_window: Some(bytes) } => {
                self.resized(bytes);
                Said::Settled
            }
            Frame::WindowUpdate { stream, delta } => {
                self.updated(stream, delta);
                Said::Settled
            }
            Frame::Ping(number) => {
                // Even ones would be answers to ours, and there are none.
                if !number.is_multiple_of(2) {
                    frame::ping(number, out);
                }
                Said::Settled
            }
            Frame::Settings { .. } | Frame::Headers { .. } | Frame::SynReply { .. } | Frame::Unknown => {
                Said::Settled
            }
        }))
    }

    fn accept(&mut self, lane: u32, out: &mut BytesMut) {
        self.windows.insert(lane, Window { left: self.initial, owed: 0 });
        self.encoder.reply(lane, out);
    }

    fn reset(&mut self, lane: u32, refused: bool, out: &mut BytesMut) {
        frame::reset(lane, if refused { Reset::Refused } else { Reset::Cancel }, out);
    }

    fn room(&self, lane: u32) -> usize {
        let left = |lane, keeps: bool| match self.windows.get(&lane) {
            Some(window) if keeps => usize::try_from(window.left).unwrap_or(0),
            _ => usize::MAX,
        };
        left(lane, self.keeps_streams).min(left(0, self.keeps_connection))
    }

    fn send(&mut self, lane: u32, bytes: &[u8], out: &mut BytesMut) {
        for lane in [lane, 0] {
            if let Some(window) = self.windows.get_mut(&lane) {
                window.left = window.left.saturating_sub(bytes.len() as i64);
            }
        }
        frame::data(lane, bytes, false, out);
    }

    fn end(&mut self, lane: u32, out: &mut BytesMut) {
        frame::data(lane, &[], true, out);
    }

    fn consumed(&mut self, lane: u32, bytes: usize, out: &mut BytesMut) {
        self.owe(lane, bytes, out);
        self.owe(0, bytes, out);
    }

    fn forget(&mut self, lane: u32) {
        self.windows.remove(&lane);
    }

    fn heartbeat(&mut self, _: &mut BytesMut) {}

    fn farewell(&mut self, fault: bool, out: &mut BytesMut) {
        frame::go_away(self.last, u32::from(fault), out);
    }

    fn peer_leaves_first(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(peer: &mut Peer, bytes: &[u8], out: &mut BytesMut) -> Result<Vec<Said>, Broken> {
        peer.incoming().extend_from_slice(bytes);
        let mut all = Vec::new();
        while let Some(said) = peer.take(out)? {
            all.push(said);
        }
        Ok(all)
    }

    fn open(encoder: &mut Encoder, stream: u32, kind: &str) -> BytesMut {
        let mut bytes = BytesMut::new();
        encoder.open(stream, &Headers::new([("streamType", kind)]), &mut bytes);
        bytes
    }

    #[test]
    fn streams_are_opened_in_turn_and_only_by_the_client() {
        let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
        let mut peer = Peer::new();
        let first = said(&mut peer, &open(&mut encoder, 3, "stdin"), &mut out).unwrap();
        assert!(matches!(&first[..], [Said::Opened { lane: 3, opening, .. }] if opening.kind == "stdin"));
        for wrong in [3, 1, 2] {
            let mut peer = Peer::new();
            let mut encoder = Encoder::default();
            said(&mut peer, &open(&mut encoder, 3, "stdin"), &mut out).unwrap();
            said(&mut peer, &open(&mut encoder, wrong, "stdin"), &mut out).unwrap_err();
        }
    }

    #[test]
    fn a_stream_with_a_novel_in_its_headers_is_refused() {
        let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
        let bytes = open(&mut encoder, 1, &"x".repeat(65));
        assert_eq!(said(&mut Peer::new(), &bytes, &mut out).unwrap(), [Said::Settled]);
        let mut expected = BytesMut::new();
        frame::reset(1, Reset::Refused, &mut expected);
        assert_eq!(out, expected);
    }

    #[test]
    fn a_window_holds_once_the_peer_updates_it() {
        let mut out = BytesMut::new();
        let mut peer = Peer::new();
        peer.accept(1, &mut out);
        peer.send(1, &vec![0; 100_000], &mut out);
        assert_eq!(peer.room(1), usize::MAX, "nobody counts");
        let mut update = BytesMut::new();
        frame::window_update(1, 40_000, &mut update);
        said(&mut peer, &update, &mut out).unwrap();
        assert_eq!(peer.room(1), 65_536 + 40_000 - 100_000);
        peer.send(1, &[0; 5536], &mut out);
        assert_eq!(peer.room(1), 0);
        let mut more = BytesMut::new();
        frame::initial_window(70_000, &mut more);
        said(&mut peer, &more, &mut out).unwrap();
        assert_eq!(peer.room(1), 70_000 - 65_536);
    }

    #[test]
    fn what_is_consumed_is_given_back_on_the_stream_and_on_the_connection() {
        let (mut peer, mut out) = (Peer::new(), BytesMut::new());
        peer.accept(1, &mut BytesMut::new());
        peer.consumed(1, 30_000, &mut out);
        assert!(out.is_empty());
        peer.consumed(1, 10_000, &mut out);
        let mut expected = BytesMut::new();
        frame::window_update(1, 40_000, &mut expected);
        frame::window_update(0, 40_000, &mut expected);
        assert_eq!(out, expected);
    }

    #[test]
    fn pings_are_answered_and_answers_are_not() {
        let (mut peer, mut out, mut pings) = (Peer::new(), BytesMut::new(), BytesMut::new());
        frame::ping(1, &mut pings);
        frame::ping(2, &mut pings);
        said(&mut peer, &pings, &mut out).unwrap();
        assert_eq!(out, pings[..12]);
    }
}
