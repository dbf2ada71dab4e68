//! Properties of the codec and of a whole connection: whatever arrives, in whatever pieces.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use berth_ttrpc::frame::{self, Decoder, Event, Frame, FrameType};
use berth_ttrpc::server::{Connection, Gone, Incoming, Intake};
use berth_ttrpc::wire::{Request, Response};
use berth_ttrpc::{Code, Status};
use proptest::prelude::*;
use prost::Message;

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (any::<u32>(), any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..300));
    let frame =
        frame.prop_map(|(stream, kind, flags, data)| Frame { stream, kind: kind.into(), flags, data });
    prop::collection::vec(frame, 0..12)
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|f| frame::encode(f.stream, f.kind, f.flags, &f.data)).collect()
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded_however_it_is_cut(frames in frames(), cuts in prop::collection::vec(1_usize..40, 1..20)) {
        let bytes = bytes_of(&frames);
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let mut rest = bytes.as_slice();
        for size in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (piece, tail) = rest.split_at((*size).min(rest.len()));
            decoder.feed(piece, &mut events);
            rest = tail;
        }
        prop_assert!(decoder.is_at_boundary());
        let expected: Vec<_> = frames.into_iter().map(Event::Frame).collect();
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn rubbish_never_panics_and_is_judged_frame_by_frame(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let mut events = Vec::new();
        Decoder::default().feed(&bytes, &mut events);
        let mut intake = Intake::default();
        for event in events {
            if let Incoming::Call { stream, .. } = intake.take(event) {
                prop_assert!(stream % 2 == 1);
            }
        }
    }

    #[test]
    fn a_server_survives_rubbish_between_calls(rubbish in prop::collection::vec(any::<u8>(), 0..200)) {
        // Whole frames of an unknown kind with arbitrary content do not disturb the call after them.
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(server);
        client.write_all(&frame::encode(1, FrameType::Other(77), 0xff, &rubbish)).unwrap();
        client.write_all(&frame::encode(3, FrameType::Data, 0, &rubbish)).unwrap();
        let request = Request { service: "s".into(), method: "m".into(), ..Default::default() };
        client.write_all(&request.into_frame(5).unwrap()).unwrap();
        let mut calls = Vec::new();
        connection.readable(&mut calls).unwrap();
        prop_assert_eq!(calls.len(), 1);
        calls.pop().unwrap().responder.send(Ok(vec![9]));
        prop_assert_eq!(answer(&mut client), (3, Err(Code::InvalidArgument)));
        prop_assert_eq!(answer(&mut client), (5, Ok(vec![9])));
    }
}

fn answer(client: &mut UnixStream) -> (u32, Result<Vec<u8>, Code>) {
    let mut header = [0; frame::HEADER];
    client.read_exact(&mut header).unwrap();
    let length = u32::from_be_bytes(header[..4].try_into().unwrap());
    let mut data = vec![0; length as usize];
    client.read_exact(&mut data).unwrap();
    let response = Response::decode(data.as_slice()).unwrap();
    let stream = u32::from_be_bytes(header[4..8].try_into().unwrap());
    (stream, response.into_result().map_err(|status| status.code))
}

#[test]
fn an_oversize_message_fails_alone_and_the_connection_goes_on() {
    let (client, server) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(server);
    let length = frame::MAX_DATA + 1;
    let mut header = frame::encode(1, FrameType::Request, 0, &[]);
    header[..4].copy_from_slice(&(length as u32).to_be_bytes());
    let mut writer = client.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        writer.write_all(&header).unwrap();
        writer.write_all(&vec![0xee; length]).unwrap();
        let request = Request { service: "s".into(), method: "m".into(), ..Default::default() };
        writer.write_all(&request.into_frame(3).unwrap()).unwrap();
    });
    let mut calls = Vec::new();
    while calls.is_empty() {
        wait_readable(&connection);
        connection.readable(&mut calls).unwrap();
    }
    sender.join().unwrap();
    calls.pop().unwrap().responder.send(Ok(Vec::new()));
    let mut client = client;
    assert_eq!(answer(&mut client), (1, Err(Code::ResourceExhausted)));
    assert_eq!(answer(&mut client), (3, Ok(Vec::new())));
}

#[test]
fn an_announced_length_takes_no_memory_before_its_data() {
    let mut decoder = Decoder::default();
    let mut header = frame::encode(1, FrameType::Request, 0, &[]);
    header[..4].copy_from_slice(&(frame::MAX_DATA as u32).to_be_bytes());
    let mut events = Vec::new();
    decoder.feed(&header, &mut events);
    assert!(events.is_empty() && !decoder.is_at_boundary());
}

#[test]
fn an_answer_may_come_later_and_from_another_thread() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(server);
    for stream in [1, 3] {
        let request = Request { method: format!("m{stream}"), ..Default::default() };
        client.write_all(&request.into_frame(stream).unwrap()).unwrap();
    }
    let mut calls = Vec::new();
    connection.readable(&mut calls).unwrap();
    assert_eq!(connection.open_calls(), 2);
    let last = calls.pop().unwrap();
    std::thread::spawn(move || last.responder.send(Ok(vec![3]))).join().unwrap();
    assert_eq!(answer(&mut client), (3, Ok(vec![3])));
    calls.pop().unwrap().responder.send(Err(Status::new(Code::NotFound, "gone")));
    assert_eq!(answer(&mut client), (1, Err(Code::NotFound)));
    assert_eq!(connection.open_calls(), 0);
}

#[test]
fn a_dropped_call_is_answered_internal() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(server);
    client.write_all(&Request::default().into_frame(1).unwrap()).unwrap();
    let mut calls = Vec::new();
    connection.readable(&mut calls).unwrap();
    drop(calls);
    assert_eq!(answer(&mut client), (1, Err(Code::Internal)));
}

#[test]
fn a_client_that_vanishes_harms_nobody() {
    let (client, server) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(server);
    let mut writer = client;
    writer.write_all(&Request::default().into_frame(1).unwrap()).unwrap();
    drop(writer);
    let mut calls = Vec::new();
    assert_eq!(connection.readable(&mut calls), Err(Gone));
    drop(connection);
    calls.pop().unwrap().responder.send(Ok(vec![0; 1 << 20]));
}

#[test]
fn a_client_that_never_reads_is_dropped_at_the_limit() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(server);
    let mut calls = Vec::new();
    for index in 0..8 {
        client.write_all(&Request::default().into_frame(2 * index + 1).unwrap()).unwrap();
    }
    connection.readable(&mut calls).unwrap();
    for call in calls.drain(..) {
        call.responder.send(Ok(vec![0; 2 << 20]));
    }
    assert!(!connection.has_unsent(), "the unsent answers are given up");
    assert_eq!(connection.readable(&mut calls), Err(Gone));
}

#[test]
fn an_answer_larger_than_the_socket_takes_continues_when_it_is_writable() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(server);
    client.write_all(&Request::default().into_frame(1).unwrap()).unwrap();
    let mut calls = Vec::new();
    connection.readable(&mut calls).unwrap();
    let payload: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    calls.pop().unwrap().responder.send(Ok(payload.clone()));
    assert!(connection.has_unsent());
    let reader = std::thread::spawn(move || answer(&mut client));
    while connection.has_unsent() {
        let mut fds = [rustix::event::PollFd::new(&connection, rustix::event::PollFlags::OUT)];
        rustix::event::poll(&mut fds, None).unwrap();
        connection.writable().unwrap();
    }
    assert_eq!(reader.join().unwrap(), (1, Ok(payload)));
}

fn wait_readable(connection: &Connection) {
    let mut fds = [rustix::event::PollFd::new(connection, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
}
