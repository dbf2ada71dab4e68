//! The blocking client against the poll-driven server.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use berth_ttrpc::client::Client;
use berth_ttrpc::server::{Call, Connection};
use berth_ttrpc::{Code, Error, Metadata, Status};

const PLENTY: Duration = Duration::from_secs(20);

/// Serves one connection until its client goes.
fn serve(mut handle: impl FnMut(Call) + Send + 'static) -> (UnixStream, JoinHandle<()>) {
    let (client, server) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut connection = Connection::new(server);
        let mut calls = Vec::new();
        loop {
            let mut fds = [rustix::event::PollFd::new(&connection, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
            let state = connection.readable(&mut calls);
            calls.drain(..).for_each(&mut handle);
            if state.is_err() {
                return;
            }
        }
    });
    (client, thread)
}

#[test]
fn a_call_brings_its_answer_and_its_headers() {
    let (socket, server) = serve(|call| {
        let text = format!("{}/{} {:?}", call.service, call.method, call.metadata.namespace());
        call.responder.send_message(Ok(text));
    });
    let mut client = Client::from_stream(socket).with_metadata(Metadata::for_namespace("moby"));
    let answer: String = client.call("a.B", "C", &(), PLENTY).unwrap();
    assert_eq!(answer, "a.B/C Some(\"moby\")");
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_failure_arrives_with_its_code() {
    let (socket, _server) = serve(|call| call.responder.send(Err(Status::new(Code::AlreadyExists, "twice"))));
    let error = Client::from_stream(socket).call::<_, ()>("s", "m", &(), PLENTY).unwrap_err();
    assert!(matches!(error, Error::Status(Status { code: Code::AlreadyExists, .. })), "{error}");
}

#[test]
fn a_deadline_keeps_the_connection_and_the_late_answer_is_passed_over() {
    let (sender, kept) = std::sync::mpsc::channel();
    let (socket, _server) = serve(move |call| {
        if call.method == "late" {
            sender.send(call.responder).unwrap();
        } else {
            let late = kept.recv().unwrap();
            late.send_message(Ok("late".to_owned()));
            call.responder.send_message(Ok("now".to_owned()));
        }
    });
    let mut client = Client::from_stream(socket);
    let error = client.call::<_, String>("s", "late", &(), Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, Error::Timeout), "{error}");
    assert_eq!(client.call::<_, String>("s", "now", &(), PLENTY).unwrap(), "now");
}

#[test]
fn a_server_that_goes_is_closed_at_once_and_ever_after() {
    let (client, server) = UnixStream::pair().unwrap();
    drop(server);
    let mut client = Client::from_stream(client);
    for _ in 0..2 {
        let error = client.call::<_, ()>("s", "m", &(), PLENTY).unwrap_err();
        assert!(matches!(error, Error::Closed), "{error:?}");
    }
}

#[test]
fn a_request_too_long_is_refused_before_it_is_sent() {
    let (client, _server) = UnixStream::pair().unwrap();
    let error = Client::from_stream(client).call_raw("s", "m", vec![0; 5 << 20], PLENTY).unwrap_err();
    assert!(matches!(error, Error::Status(Status { code: Code::ResourceExhausted, .. })));
}
