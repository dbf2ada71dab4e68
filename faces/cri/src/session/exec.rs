//! A command with its streams.

use std::sync::Arc;

use berth_streaming::{ExecRequest, ProcessStreams};
use berth_types::{Error, Result, TerminalSize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;

use crate::Cri;
use crate::container::exec::{Command, Streams, Wanted, hold};

impl Cri {
    /// Runs a command to its end, and answers its exit code. A peer that leaves ends it.
    pub(super) async fn exec_session(
        self: &Arc<Self>,
        request: ExecRequest,
        streams: ProcessStreams,
    ) -> Result<i32> {
        let container = self.container(request.container.as_str())?;
        let wanted = Wanted {
            arguments: request.command,
            streams: Streams {
                terminal: request.wanted.tty,
                stdin: streams.stdin.is_some(),
                // A terminal is there even if nobody looks at it.
                stdout: streams.stdout.is_some() || request.wanted.tty,
                stderr: streams.stderr.is_some(),
            },
        };
        let command = self.make_command(&container, &wanted).await?;
        let ended = self.stream_command(&command, streams).await;
        self.forget_command(&command).await;
        ended
    }

    async fn stream_command(&self, command: &Command, streams: ProcessStreams) -> Result<i32> {
        let ProcessStreams { stdin, stdout, stderr, mut sizes, mut gone } = streams;
        let receiver = |name: &str| {
            let path = command.path(name);
            path.exists()
                .then(|| pipe::OpenOptions::new().open_receiver(&path))
                .transpose()
                .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))
        };
        let (from_stdout, from_stderr) = (receiver("stdout")?, receiver("stderr")?);
        let there: Vec<&str> = [("stdout", from_stdout.is_some()), ("stderr", from_stderr.is_some())]
            .into_iter()
            .filter_map(|(name, is_there)| is_there.then_some(name))
            .collect();
        // A fifo that nobody writes yet would look as if it had ended.
        let held = hold(&command.folder, &there)?;
        let tasks = self.tasks();
        tasks.start(&command.process).await?;
        drop(held);

        let output = async {
            let out = async {
                if let Some(from) = from_stdout {
                    pour(from, stdout).await;
                }
            };
            let err = async {
                if let Some(from) = from_stderr {
                    pour(from, stderr).await;
                }
            };
            tokio::join!(out, err);
        };
        let input = async {
            if let Some(mut stdin) = stdin {
                let sender = pipe::OpenOptions::new().open_sender(command.path("stdin"));
                if let Ok(mut sender) = sender {
                    // A command that reads no more is no failure.
                    let _ = tokio::io::copy(&mut stdin, &mut sender).await;
                }
                // The shim holds a writing end of its own until it is told.
                let _ = self.tasks().close_stdin(&command.process).await;
            }
            std::future::pending::<()>().await;
        };
        let resizes = async {
            while let Some(size) = sizes.next().await {
                let size = TerminalSize { width: size.width.into(), height: size.height.into() };
                // One that has ended in this moment has no size.
                let _ = self.tasks().resize(&command.process, size).await;
            }
            std::future::pending::<()>().await;
        };
        // Output is moved while it runs, or a full pipe would stop it.
        let ended = async {
            let (exit, ()) = tokio::join!(tasks.wait(&command.process), output);
            exit.map(|exit| exit.status as i32)
        };
        tokio::select! {
            biased;
            ended = ended => ended,
            () = input => Err(Error::internal("input does not end a command")),
            () = resizes => Err(Error::internal("a size does not end a command")),
            () = gone.wait() => Err(Error::cancelled("the client has gone before the command's end")),
        }
    }
}

/// Moves output to whoever wants it; what nobody wants is dropped, so that the command goes on.
async fn pour(mut from: pipe::Receiver, to: Option<berth_streaming::Output>) {
    let copied = match to {
        Some(mut to) => {
            let copied = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
            copied
        }
        None => tokio::io::copy(&mut from, &mut tokio::io::sink()).await,
    };
    if copied.is_err() {
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
}
