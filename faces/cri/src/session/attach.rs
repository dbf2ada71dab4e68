//! The first process of a container, over the socket on which its shim takes in whoever attaches
//! ([`berth_types::attach`]).

use std::sync::Arc;

use berth_streaming::{AttachRequest, Input, Output, ProcessStreams};
use berth_types::attach::{Decoder, Pace, SOCKET, Stream, encode};
use berth_types::{Error, Result, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::Cri;
use crate::blocking::blocking;
use crate::container::Container;

/// Bytes that are moved at once.
const BLOCK: usize = 32 << 10;

impl Cri {
    /// Connects to a container until its output ends or the peer leaves.
    pub(super) async fn attach_session(
        self: &Arc<Self>,
        request: AttachRequest,
        streams: ProcessStreams,
    ) -> Result<()> {
        let container = self.container(request.container.as_str())?;
        container.must_run()?;
        let folder = self.attach_folder(&container)?;
        let socket = blocking(move || {
            let socket = berth_sys::local_socket::connect(&folder, SOCKET);
            let socket = socket.and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
            socket.map_err(|error| Error::io("its shim takes in nobody who attaches", error))
        })
        .await?;
        let failed = |error| Error::io(format!("cannot attach to container {}", container.id), error);
        let (from, mut to) = UnixStream::from_std(socket).map_err(failed)?.into_split();
        let ProcessStreams { stdin, stdout, stderr, mut sizes, mut gone } = streams;
        // Whoever types is waited for, as at a terminal; who only looks on holds nobody up.
        let pace = if stdin.is_some() { Pace::Wait } else { Pace::CutOff };
        to.write_all(&encode(Stream::Open, &[pace as u8])).await.map_err(failed)?;

        let is_typing = stdin.is_some();
        let typed = async {
            // The container's end is told by its output.
            let _ = type_in(stdin, &mut to).await;
            if is_typing {
                self.end_input(&container).await;
            }
            std::future::pending::<()>().await;
        };
        let resizes = async {
            while let Some(size) = sizes.next().await {
                let size = TerminalSize { width: size.width.into(), height: size.height.into() };
                // One that has ended in this moment has no size.
                let _ = self.tasks().resize(&container.process(), size).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            shown = show(from, stdout, stderr) => return shown.map_err(failed),
            () = typed => {}
            () = resizes => {}
            () = gone.wait() => {}
        }
        if is_typing {
            self.end_input(&container).await;
        }
        Ok(())
    }

    /// Lets the shim of a container whose input ends with the one who types let go of it. berth's own does so by itself;
    /// another holds the fifo until it is told.
    async fn end_input(&self, container: &Container) {
        let is_own = self.pod(&container.pod).is_ok_and(|pod| pod.handler.is_own);
        if container.config.stdin_once && !container.config.tty && !is_own {
            // One that has ended in this moment has no input.
            let _ = self.tasks().close_stdin(&container.process()).await;
        }
    }
}

/// Sends what is typed, and at its end that nothing more will be.
async fn type_in(stdin: Option<Input>, to: &mut OwnedWriteHalf) -> std::io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    let mut block = vec![0; BLOCK];
    loop {
        let count = stdin.read(&mut block).await?;
        to.write_all(&encode(Stream::Stdin, &block[..count])).await?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Shows output until it ends.
async fn show(
    mut from: OwnedReadHalf,
    mut stdout: Option<Output>,
    mut stderr: Option<Output>,
) -> std::io::Result<()> {
    let (mut decoder, mut frames, mut block) = (Decoder::default(), Vec::new(), vec![0; BLOCK]);
    loop {
        let count = from.read(&mut block).await?;
        if count == 0 {
            return Ok(());
        }
        decoder.feed(&block[..count], &mut frames).map_err(std::io::Error::other)?;
        for frame in frames.drain(..) {
            let to = match frame.stream {
                Stream::Stdout => &mut stdout,
                Stream::Stderr => &mut stderr,
                Stream::CutOff => {
                    return Err(std::io::Error::other(String::from_utf8_lossy(&frame.payload).into_owned()));
                }
                Stream::Stdin | Stream::Open | Stream::Reopen => continue,
            };
            if let Some(to) = to {
                to.write_all(&frame.payload).await?;
                to.flush().await?;
            }
        }
    }
}
