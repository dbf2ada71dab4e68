//! The line to the agent in the guest: scripts go in, status and output come out, in any order.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a command in the guest came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Who waits for which answer.
type Waiting = Arc<Mutex<HashMap<u64, Sender<Reply>>>>;

/// The host's end of the line.
#[derive(Debug)]
pub(crate) struct Port {
    /// The next command's number, and where commands go.
    requests: Mutex<(u64, ChildStdin)>,
    waiting: Waiting,
}

impl Port {
    /// Takes the streams that are the line, and gives what tells that the agent is there.
    pub(crate) fn open(requests: ChildStdin, answers: ChildStdout) -> (Self, Receiver<Reply>) {
        let (sender, ready) = channel();
        let waiting: Waiting = Arc::new(Mutex::new(HashMap::from([(0, sender)])));
        let to = waiting.clone();
        std::thread::spawn(move || {
            // Ends with the machine; whoever still waits then is told by its sender's end.
            let _ = hear(&mut BufReader::new(answers), &to);
            to.lock().expect("no holder panics").clear();
        });
        (Self { requests: Mutex::new((1, requests)), waiting }, ready)
    }

    /// Runs a script. The agent ends it after `limit`; an agent that says nothing for longer is an error.
    pub(crate) fn run(&self, script: &str, limit: Duration) -> io::Result<Reply> {
        let (sender, answer) = channel();
        {
            let mut requests = self.requests.lock().expect("no holder panics");
            let number = requests.0;
            requests.0 += 1;
            self.waiting.lock().expect("no holder panics").insert(number, sender);
            let head = format!("{number} {} {}\n", limit.as_secs().max(1), script.len());
            requests.1.write_all(head.as_bytes())?;
            requests.1.write_all(script.as_bytes())?;
            requests.1.flush()?;
        }
        match answer.recv_timeout(limit + Duration::from_secs(30)) {
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => Err(io::Error::other("the guest's agent does not answer")),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the guest has gone")),
        }
    }
}

/// Hands answers to whom they are for, until the line breaks.
fn hear(answers: &mut BufReader<impl Read>, waiting: &Mutex<HashMap<u64, Sender<Reply>>>) -> io::Result<()> {
    loop {
        let mut head = String::new();
        if answers.read_line(&mut head)? == 0 {
            return Ok(());
        }
        let numbers: Vec<u64> = head.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [number, status, stdout, stderr] = numbers[..] else {
            return Err(io::Error::other(format!("the agent said {head:?}")));
        };
        let mut reply = Reply {
            status: status as i32,
            stdout: vec![0; stdout as usize],
            stderr: vec![0; stderr as usize],
        };
        answers.read_exact(&mut reply.stdout)?;
        answers.read_exact(&mut reply.stderr)?;
        if let Some(sender) = waiting.lock().expect("no holder panics").remove(&number) {
            // A test that has given up is told nothing.
            let _ = sender.send(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_whom_they_are_for_in_any_order() {
        let (first, one) = channel();
        let (second, two) = channel();
        let waiting = Mutex::new(HashMap::from([(1, first), (2, second)]));
        let line = b"2 7 3 0\nabc1 0 0 2\nxy".as_slice();
        hear(&mut BufReader::new(line), &waiting).unwrap();
        let reply = two.recv().unwrap();
        assert_eq!((reply.status, reply.stdout.as_slice()), (7, b"abc".as_slice()));
        assert_eq!(one.recv().unwrap().stderr, b"xy");
        assert!(hear(&mut BufReader::new(b"nonsense\n".as_slice()), &waiting).is_err());
    }
}
