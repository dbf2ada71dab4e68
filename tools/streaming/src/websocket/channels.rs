//! Numbered channels: the first byte of a message says to which one it belongs.
//!
//! ```text
//!   channel.k8s.io, v4, v5     |channel 1| bytes …
//!   base64.channel.k8s.io, v4  |'0' + channel| base64 …      in text messages
//!   v5 only                    |255|channel 1|               nothing more comes on it
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use super::frame::{self, Decoder, Frame, Kind};
use crate::mux::{Broken, Protocol, Said};

/// What v5 sends before the number of a channel that it closes.
const CLOSE: u8 = 255;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Raw,
    /// Raw, with the close signal.
    RawWithClose,
    Base64,
}

/// The server's side.
pub(crate) struct Channels {
    decoder: Decoder,
    codec: Codec,
    message: Message,
    /// The peer asks whether we are there.
    asked: bool,
    closed: bool,
}

/// The message that is coming.
enum Message {
    /// Its channel is not known yet.
    Start,
    /// It belongs to a channel; with what does not make up a byte of base64 yet.
    Of { channel: u8, carry: Carry },
    /// It closes a channel.
    Closes(Option<u8>),
}

/// Up to three characters of base64.
#[derive(Default)]
struct Carry(Vec<u8>);

impl Carry {
    fn decode(&mut self, bytes: &[u8], last: bool) -> Result<Bytes, Broken> {
        self.0.extend_from_slice(bytes);
        let whole = if last { self.0.len() } else { self.0.len() / 4 * 4 };
        let decoded = STANDARD.decode(&self.0[..whole]).map_err(|_| Broken::Base64)?;
        self.0.drain(..whole);
        Ok(decoded.into())
    }
}

impl Channels {
    pub(crate) fn new(codec: Codec) -> Self {
        Self { decoder: Decoder::default(), codec, message: Message::Start, asked: false, closed: false }
    }

    fn piece(&mut self, mut bytes: Bytes, last: bool) -> Result<Said, Broken> {
        if let Message::Start = self.message {
            if bytes.is_empty() {
                return Ok(Said::Settled);
            }
            let number = bytes.split_to(1)[0];
            self.message = match self.codec {
                Codec::RawWithClose if number == CLOSE => Message::Closes(None),
                Codec::Raw | Codec::RawWithClose => Message::Of { channel: number, carry: Carry::default() },
                Codec::Base64 => Message::Of { channel: number.wrapping_sub(b'0'), carry: Carry::default() },
            };
        }
        let said = self.of_message(bytes, last)?;
        if last {
            self.message = Message::Start;
        }
        Ok(said)
    }

    fn of_message(&mut self, bytes: Bytes, last: bool) -> Result<Said, Broken> {
        match &mut self.message {
            Message::Start => Ok(Said::Settled),
            Message::Of { channel, carry } => {
                let bytes = if self.codec == Codec::Base64 { carry.decode(&bytes, last)? } else { bytes };
                Ok(Said::Data { lane: u32::from(*channel), bytes, ended: false })
            }
            Message::Closes(channel) => {
                match (&channel, &bytes[..]) {
                    (None, [number]) => *channel = Some(*number),
                    (_, []) => {}
                    _ => return Err(Broken::CloseSignal),
                }
                match *channel {
                    Some(number) if last => {
                        Ok(Said::Data { lane: u32::from(number), bytes: Bytes::new(), ended: true })
                    }
                    None if last => Err(Broken::CloseSignal),
                    _ => Ok(Said::Settled),
                }
            }
        }
    }
}

impl Protocol for Channels {
    fn incoming(&mut self) -> &mut BytesMut {
        self.decoder.buffer()
    }

    fn take(&mut self, out: &mut BytesMut) -> Result<Option<Said>, Broken> {
        Ok(match self.decoder.take()? {
            None => None,
            Some(Frame::Piece { bytes, last, .. }) => Some(self.piece(bytes, last)?),
            Some(Frame::Ping(bytes)) => {
                self.asked = true;
                frame::pong(&bytes, out);
                Some(Said::Settled)
            }
            Some(Frame::Pong) => Some(Said::Settled),
            Some(Frame::Close) => {
                self.farewell(false, out);
                Some(Said::Farewell)
            }
        })
    }

    fn accept(&mut self, _: u32, _: &mut BytesMut) {}

    fn reset(&mut self, _: u32, _: bool, _: &mut BytesMut) {}

    fn room(&self, _: u32) -> usize {
        usize::MAX
    }

    fn send(&mut self, lane: u32, bytes: &[u8], out: &mut BytesMut) {
        let number = lane as u8;
        match self.codec {
            Codec::Raw | Codec::RawWithClose => frame::message(Kind::Binary, [&[number], bytes], out),
            Codec::Base64 => {
                let text = STANDARD.encode(bytes);
                frame::message(Kind::Text, [&[b'0'.wrapping_add(number)], text.as_bytes()], out);
            }
        }
    }

    /// No client knows of channels that the server closes; they end with the connection.
    fn end(&mut self, _: u32, _: &mut BytesMut) {}

    fn consumed(&mut self, _: u32, _: usize, _: &mut BytesMut) {}

    fn forget(&mut self, _: u32) {}

    /// client-go leaves after a minute without an answer to its pings, which may wait behind bytes that nobody
    /// reads yet. An answer that nobody asked for counts as well (section 5.5.3).
    fn heartbeat(&mut self, out: &mut BytesMut) {
        if self.asked {
            frame::pong(&[], out);
        }
    }

    fn farewell(&mut self, fault: bool, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.closed, true) {
            frame::close(fault, out);
        }
    }

    fn peer_leaves_first(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame whose key is zero.
    fn client(opcode: u8, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() < 126);
        [&[opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    }

    fn said(codec: Codec, bytes: &[u8], step: usize) -> Result<Vec<Said>, Broken> {
        let (mut channels, mut out, mut all) = (Channels::new(codec), BytesMut::new(), Vec::new());
        for part in bytes.chunks(step) {
            channels.incoming().extend_from_slice(part);
            while let Some(said) = channels.take(&mut out)? {
                all.push(said);
            }
        }
        Ok(all)
    }

    /// Joins the pieces of lanes.
    fn joined(all: Vec<Said>) -> Vec<(u32, Vec<u8>, bool)> {
        let mut joined: Vec<(u32, Vec<u8>, bool)> = Vec::new();
        for said in all {
            let Said::Data { lane, bytes, ended } = said else { continue };
            match joined.last_mut() {
                Some((last, text, end)) if *last == lane && !ended => {
                    text.extend_from_slice(&bytes);
                    *end = ended;
                }
                _ => joined.push((lane, bytes.to_vec(), ended)),
            }
        }
        joined
    }

    #[test]
    fn messages_go_to_their_channels_however_they_are_cut() {
        let bytes = [
            client(0x82, b"\x00hel"),
            client(0x02, b""),
            client(0x00, b"\x00l"),
            client(0x80, b"o"),
            client(0x82, b"\x04{}"),
            client(0x82, b"\xff\x00"),
        ]
        .concat();
        let expected = vec![(0, b"hello".to_vec(), false), (4, b"{}".to_vec(), false), (0, Vec::new(), true)];
        for step in 1..=bytes.len() {
            assert_eq!(joined(said(Codec::RawWithClose, &bytes, step).unwrap()), expected, "steps of {step}");
        }
        let plain = joined(said(Codec::Raw, &bytes, 99).unwrap());
        assert_eq!(plain.last(), Some(&(255, vec![0], false)), "only v5 knows the close signal");
    }

    #[test]
    fn base64_is_decoded_however_it_is_cut() {
        let bytes = [client(0x01, b"0aGVs"), client(0x80, b"bG8="), client(0x81, b"4e30=")].concat();
        let expected = vec![(0, b"hello".to_vec(), false), (4, b"{}".to_vec(), false)];
        for step in 1..=bytes.len() {
            assert_eq!(joined(said(Codec::Base64, &bytes, step).unwrap()), expected, "steps of {step}");
        }
        let wrong = said(Codec::Base64, &client(0x81, b"0a"), 99);
        assert!(matches!(wrong, Err(Broken::Base64)));
    }

    #[test]
    fn a_close_signal_names_one_channel() {
        for wrong in [&b"\xff"[..], b"\xff\x00\x01"] {
            let got = said(Codec::RawWithClose, &client(0x82, wrong), 99);
            assert!(matches!(got, Err(Broken::CloseSignal)), "{wrong:?}");
        }
    }

    #[test]
    fn pings_are_answered_and_a_farewell_is_returned_once() {
        let (mut channels, mut out) = (Channels::new(Codec::Raw), BytesMut::new());
        channels.heartbeat(&mut out);
        assert!(out.is_empty(), "nobody asked");
        channels.incoming().extend_from_slice(&client(0x89, b"x"));
        channels.incoming().extend_from_slice(&client(0x88, &[3, 232]));
        assert_eq!(channels.take(&mut out).unwrap(), Some(Said::Settled));
        assert_eq!(channels.take(&mut out).unwrap(), Some(Said::Farewell));
        channels.farewell(true, &mut out);
        assert_eq!(out, &[0x8a, 1, b'x', 0x88, 2, 3, 232][..]);
    }
}
