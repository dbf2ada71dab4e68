//! A daemon that only hears events.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth_proto as proto;
use berth_ttrpc::server::Connection;
use prost::Message as _;
use proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use proto::containerd::types::Envelope;
use rustix::event::{PollFd, PollFlags, poll};

/// Hears events on a socket until it is dropped.
pub(crate) struct Daemon {
    path: PathBuf,
    stop: std::io::PipeWriter,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    /// Listens at `path` and adds what comes to `heard`.
    pub(crate) fn listen(path: &Path, heard: Arc<Mutex<Vec<Envelope>>>) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("the scratch folder takes a socket");
        let (stopped, stop) = std::io::pipe().expect("a pipe");
        let sink = heard;
        let thread = std::thread::spawn(move || serve(&listener, &stopped, &sink));
        Self { path: path.to_owned(), stop, thread: Some(thread) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        use std::io::Write as _;
        let _ = std::fs::remove_file(&self.path);
        self.stop.write_all(b"x").expect("the thread reads");
        let _ = self.thread.take().expect("only taken here").join();
    }
}

fn serve(listener: &UnixListener, stopped: &std::io::PipeReader, heard: &Mutex<Vec<Envelope>>) {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let mut fds = vec![PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        fds.extend(connections.iter().map(|connection| PollFd::new(connection, PollFlags::IN)));
        poll(&mut fds, None).expect("poll");
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[1] {
            return;
        }
        let mut number = 1;
        connections.retain_mut(|connection| {
            number += 1;
            if !ready[number] {
                return true;
            }
            let mut calls = Vec::new();
            let gone = connection.readable(&mut calls).is_err();
            for call in calls {
                let request = ForwardRequest::decode(call.payload.as_slice()).expect("an event");
                heard.lock().unwrap().extend(request.envelope);
                call.responder.send_message(Ok(()));
            }
            !gone
        });
        if ready[0] {
            connections.push(Connection::new(listener.accept().expect("accept").0));
        }
    }
}
