//! Waiting for a log to grow.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Watches the folder of a log for writes and rotations.
#[derive(Debug)]
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Begins to watch. Open it before the first read, so that nothing that comes between is missed.
    pub fn open(log: &Path) -> io::Result<Self> {
        let folder = log.parent().unwrap_or(Path::new("/"));
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE;
        inotify::add_watch(&fd, folder, what)?;
        #[expect(
            deprecated,
            reason = "the other constructor is unsafe; an OwnedFd that we keep cannot be closed"
        )]
        let registered = AsyncFd::new(fd)?;
        Ok(Self(registered))
    }

    /// Waits until something changed. Cancel-safe.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [const { MaybeUninit::uninit() }; 4096];
            let drained = ready.try_io(|fd| {
                let mut events = inotify::Reader::new(fd.get_ref(), &mut buffer);
                events.next().map(drop).map_err(io::Error::from)
            });
            match drained {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}
