//! What a connection goes over: a socket, or one of several connections that share a socket.

use std::future::Future;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Where the other side's bytes come from.
pub trait Source: Send + 'static {
    /// Reads what there is into `buffer`, waiting for the first byte; 0 is the end. Cancel-safe.
    fn read(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

/// Where frames go.
pub trait Sink: Send + 'static {
    /// Writes one whole frame.
    fn write(&mut self, frame: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;
}

impl Source for OwnedReadHalf {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        AsyncReadExt::read(self, buffer).await
    }
}

impl Sink for OwnedWriteHalf {
    async fn write(&mut self, frame: Vec<u8>) -> io::Result<()> {
        self.write_all(&frame).await
    }
}
