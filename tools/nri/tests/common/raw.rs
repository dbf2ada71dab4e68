//! A plugin that speaks by hand, and so can say what no library would.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use berth_nri::proto;
use berth_ttrpc::frame::{Decoder, Event, FrameType, encode};
use berth_ttrpc::wire::{Request, Response};
use berth_ttrpc::{Code, Status};
use prost::Message;

/// How a request is answered.
pub(crate) enum Answer {
    /// As a plugin would that has nothing to say.
    Empty,
    /// That there is no such method.
    Unimplemented,
    /// With bytes that are no message.
    Garbage,
    /// With a frame that no multiplexer makes.
    Torn,
}

/// Connects, registers under this name, and answers as told, in a thread that ends with the connection.
pub(crate) fn connect(
    socket: &Path,
    name: (&str, &str),
    mut answer: impl FnMut(&str, &[u8]) -> Answer + Send + 'static,
) -> thread::JoinHandle<()> {
    let mut socket = UnixStream::connect(socket).unwrap();
    let (plugin_idx, plugin_name) = (name.0.to_owned(), name.1.to_owned());
    let register = proto::RegisterPluginRequest { plugin_idx, plugin_name, nri_version: String::new() };
    let register = Request {
        service: "nri.pkg.api.v1alpha1.Runtime".into(),
        method: "RegisterPlugin".into(),
        payload: register.encode_to_vec(),
        ..Default::default()
    };
    write(&mut socket, 2, &register.into_frame(1).unwrap());
    thread::spawn(move || {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        while let Some((connection, bytes)) = read(&mut socket) {
            if connection == 1 {
                decoder.feed(&bytes, &mut events);
            }
            for event in events.drain(..) {
                let Event::Frame(frame) = event else { continue };
                let request = Request::decode(frame.data.as_slice()).unwrap();
                let reply = match answer(&request.method, &request.payload) {
                    Answer::Empty => Response::frame(frame.stream, Ok(Vec::new())),
                    Answer::Unimplemented => {
                        Response::frame(frame.stream, Err(Status::new(Code::Unimplemented, "no such method")))
                    }
                    Answer::Garbage => encode(frame.stream, FrameType::Response, 0, &[0xff; 100]),
                    Answer::Torn => {
                        // The other side may close at the first half of it.
                        let _ = socket.write_all(&[0xff; 64]);
                        continue;
                    }
                };
                write(&mut socket, 1, &reply);
            }
        }
    })
}

fn write(socket: &mut UnixStream, connection: u32, bytes: &[u8]) {
    let mut frame = connection.to_be_bytes().to_vec();
    frame.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    frame.extend_from_slice(bytes);
    // A runtime that has cut this plugin off reads no more; the next read says so.
    let _ = socket.write_all(&frame);
}

fn read(socket: &mut UnixStream) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; 8];
    socket.read_exact(&mut header).ok()?;
    let (connection, length) = header.split_at(4);
    let mut bytes = vec![0; u32::from_be_bytes(length.try_into().unwrap()) as usize];
    socket.read_exact(&mut bytes).ok()?;
    Some((u32::from_be_bytes(connection.try_into().unwrap()), bytes))
}
