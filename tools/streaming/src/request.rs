//! What a URL is handed out for.

use berth_types::{ContainerId, Error, Result, SandboxId};

/// Which streams of a process the peer wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A terminal in front of it, on its standard output.
    pub tty: bool,
    /// Its standard input.
    pub stdin: bool,
    /// Its standard output.
    pub stdout: bool,
    /// Its standard error, which does not go with a terminal.
    pub stderr: bool,
}

impl Wanted {
    /// Says what is wrong with it, in words that a kubelet's users know from containerd.
    fn check(self) -> Result<()> {
        if self.tty && self.stderr {
            return Err(Error::invalid_argument("tty and stderr cannot both be true"));
        }
        if !(self.stdin || self.stdout || self.stderr) {
            return Err(Error::invalid_argument("one of stdin, stdout, or stderr must be set"));
        }
        Ok(())
    }
}

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Where.
    pub container: ContainerId,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Its streams.
    pub wanted: Wanted,
}

/// A container whose first process is to be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Which.
    pub container: ContainerId,
    /// Its streams.
    pub wanted: Wanted,
}

/// A pod whose ports are to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// Which.
    pub pod: SandboxId,
    /// The ports, for peers that do not name one with each connection (WebSockets without SPDY); may be empty.
    pub ports: Vec<u16>,
}

/// Any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Process(Process),
    PortForward(PortForwardRequest),
}

/// What has the streams of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

impl Process {
    pub(crate) fn wanted(&self) -> Wanted {
        match self {
            Self::Exec(request) => request.wanted,
            Self::Attach(request) => request.wanted,
        }
    }
}

impl Request {
    /// The first part of its URL's path.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Process(Process::Exec(_)) => "exec",
            Self::Process(Process::Attach(_)) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Process(process) => process.wanted().check(),
            Self::PortForward(request) if request.ports.contains(&0) => {
                Err(Error::invalid_argument(format!("port 0 of pod {} cannot be forwarded", request.pod)))
            }
            Self::PortForward(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_no_stream_or_for_what_cannot_be_is_refused() {
        let exec = |wanted| {
            let container = "c".parse().unwrap();
            let exec = ExecRequest { container, command: vec!["true".into()], wanted };
            Request::Process(Process::Exec(exec)).check()
        };
        exec(Wanted { stdout: true, ..Wanted::default() }).unwrap();
        assert!(exec(Wanted::default()).is_err());
        assert!(exec(Wanted { tty: true, stderr: true, ..Wanted::default() }).is_err());
        let ports = PortForwardRequest { pod: "p".parse().unwrap(), ports: vec![80, 0] };
        assert!(Request::PortForward(ports).check().is_err());
    }
}
