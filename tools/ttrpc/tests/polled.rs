//! The client of a poll loop against the poll-driven server, in one thread.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::os::unix::net::{UnixListener, UnixStream};

use berth_ttrpc::polled::{Client, Progress};
use berth_ttrpc::server::{Call, Connection};
use berth_ttrpc::{Code, Error, Metadata, Status};

fn pair() -> (Client, Connection) {
    let (client, server) = UnixStream::pair().unwrap();
    (Client::from_stream(client).with_metadata(Metadata::for_namespace("moby")), Connection::new(server))
}

fn next(server: &mut Connection) -> Call {
    let mut calls = Vec::new();
    server.readable(&mut calls).unwrap();
    assert_eq!(calls.len(), 1);
    calls.remove(0)
}

#[test]
fn calls_go_one_after_the_other() {
    let (mut client, mut server) = pair();
    for round in 0..3 {
        client.call("a.B", "C", vec![round]).unwrap();
        assert!(client.is_busy());
        assert!(matches!(client.ready(), Progress::Waiting));
        let call = next(&mut server);
        assert_eq!((call.service.as_str(), call.method.as_str(), call.payload), ("a.B", "C", vec![round]));
        assert_eq!(call.metadata.namespace(), Some("moby"));
        call.responder.send(Ok(vec![round, round]));
        match client.ready() {
            Progress::Done(Ok(answer)) => assert_eq!(answer, [round, round]),
            other => panic!("{other:?}"),
        }
        assert!(!client.is_busy());
    }
}

#[test]
fn a_refusal_is_an_answer() {
    let (mut client, mut server) = pair();
    client.call("s", "m", Vec::new()).unwrap();
    next(&mut server).responder.send(Err(Status::new(Code::InvalidArgument, "no")));
    match client.ready() {
        Progress::Done(Err(Error::Status(status))) => assert_eq!(status.code, Code::InvalidArgument),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_goes_is_noticed_with_and_without_a_call() {
    let (mut client, server) = pair();
    client.call("s", "m", Vec::new()).unwrap();
    drop(server);
    assert!(matches!(client.ready(), Progress::Lost));
    let (mut client, server) = pair();
    drop(server);
    assert!(matches!(client.ready(), Progress::Lost));
}

#[test]
fn a_long_request_goes_out_as_the_socket_takes_it() {
    let (mut client, mut server) = pair();
    client.call("s", "m", vec![7; 3 << 20]).unwrap();
    let mut calls = Vec::new();
    while calls.is_empty() {
        assert!(matches!(client.ready(), Progress::Waiting));
        server.readable(&mut calls).unwrap();
    }
    assert_eq!(calls[0].payload.len(), 3 << 20);
}

#[test]
fn nobody_at_the_socket_is_an_error_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("s");
    assert!(Client::connect(&path).is_err());
    let listener = UnixListener::bind(&path).unwrap();
    Client::connect(&path).unwrap();
    drop(listener);
    assert!(Client::connect(&path).is_err());
}
