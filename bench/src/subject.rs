//! What is measured: a daemon with its own command line, and the same foreign client on both.

use anyhow::{Context, Result};
use testkit::{Daemon, Invocation, Kind, Setup, image, programs};

use crate::machine;

/// The image that every scenario runs.
pub(crate) const IMAGE: &str = "berth.test/busybox:1";

/// A daemon and the command line that its users type.
pub(crate) struct Subject {
    pub(crate) daemon: Daemon,
    kind: Kind,
    pulls: Puller,
}

/// Who pulls, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Puller {
    /// berth.
    Berth,
    /// berth, asked by `ctr`.
    Foreign,
    /// containerd's transfer service as it comes.
    Defaults,
    /// The same with layers in parts and unpacked at once.
    Tuned,
    /// `ctr` itself, through the content and diff services.
    Local,
}

impl Puller {
    /// berth first.
    pub(crate) const ALL: [Self; 5] = [Self::Berth, Self::Foreign, Self::Defaults, Self::Tuned, Self::Local];

    fn kind(self) -> Kind {
        if matches!(self, Self::Berth | Self::Foreign) { Kind::Berth } else { Kind::Containerd }
    }

    fn config(self) -> String {
        match self {
            Self::Tuned => {
                "[plugins.\"io.containerd.transfer.v1.local\"]\n  max_concurrent_downloads = 4\n  \
                            concurrent_layer_fetch_buffer = 4194304\n  max_concurrent_unpacks = 4\n"
                    .to_owned()
            }
            _ => String::new(),
        }
    }
}

/// The two, berth first.
pub(crate) fn both() -> Result<[Subject; 2]> {
    Ok([Subject::start(Kind::Berth)?, Subject::start(Kind::Containerd)?])
}

impl Subject {
    /// A fresh daemon with the image in it.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let subject = Self::empty(kind)?;
        let archive = subject.daemon.scratch().file("busybox.tar", image::busybox()?.oci_archive());
        subject.ctr()?.args(["images", "import", "--local"]).arg(archive).ok();
        Ok(subject)
    }

    /// A fresh daemon.
    pub(crate) fn empty(kind: Kind) -> Result<Self> {
        Self::puller(if kind == Kind::Berth { Puller::Berth } else { Puller::Defaults })
    }

    /// A fresh daemon that pulls in a certain way.
    pub(crate) fn puller(pulls: Puller) -> Result<Self> {
        let setup = Setup { config: pulls.config(), before: Some(machine::fresh_root), ..Setup::default() };
        Ok(Self { pulls, ..Self::set_up(pulls.kind(), setup)? })
    }

    /// A fresh daemon set up in a certain way.
    pub(crate) fn set_up(kind: Kind, setup: Setup) -> Result<Self> {
        let daemon = Daemon::with(kind, Setup { log_level: Some("info".to_owned()), ..setup })?;
        let pulls = if kind == Kind::Berth { Puller::Berth } else { Puller::Defaults };
        Ok(Self { daemon, kind, pulls })
    }

    /// `ctr` 2.3 in the daemon's namespace.
    pub(crate) fn ctr(&self) -> Result<Invocation> {
        Ok(self.daemon.ctr()?)
    }

    /// Runs `words` in a new container, waits for it and removes it.
    pub(crate) fn run(&self, id: &str, words: &[&str]) -> Result<Invocation> {
        Ok(match self.kind {
            Kind::Berth => self.berth()?.args(["run", "--rm", "--network", "none", "--name", id, IMAGE]),
            _ => self.ctr()?.args(["run", "--rm", IMAGE, id]),
        }
        .args(words))
    }

    /// Starts `words` in a new container and leaves it running.
    pub(crate) fn start_container(&self, id: &str, words: &[&str]) -> Result<Invocation> {
        Ok(match self.kind {
            Kind::Berth => self.berth()?.args(["run", "-d", "--network", "none", "--name", id, IMAGE]),
            _ => return self.start_with_ctr(id, words),
        }
        .args(words))
    }

    /// The same with `ctr`, for what `ctr` is to find under that id.
    pub(crate) fn start_with_ctr(&self, id: &str, words: &[&str]) -> Result<Invocation> {
        Ok(self.ctr()?.args(["run", "-d", "--null-io", IMAGE, id]).args(words))
    }

    /// Runs `words` in a running container.
    pub(crate) fn exec(&self, id: &str, words: &[&str]) -> Result<Invocation> {
        Ok(match self.kind {
            Kind::Berth => self.berth()?.args(["exec", id]),
            _ => self.ctr()?.args(["tasks", "exec", "--exec-id", "bench", id]),
        }
        .args(words))
    }

    /// Ends and removes a running container.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        if self.kind == Kind::Berth {
            self.berth()?.args(["rm", "-f", id]).ok();
            return Ok(());
        }
        self.remove_with_ctr(id)
    }

    /// Ends and removes a running container that `ctr` started.
    pub(crate) fn remove_with_ctr(&self, id: &str) -> Result<()> {
        self.ctr()?.args(["tasks", "delete", "--force", id]).ok();
        self.ctr()?.args(["containers", "delete", id]).ok();
        Ok(())
    }

    /// Brings an archive in and unpacks it.
    pub(crate) fn import(&self, archive: &std::path::Path) -> Result<Invocation> {
        Ok(match self.kind {
            Kind::Berth => self.berth()?.args(["load", "--quiet", "--input"]).arg(archive),
            _ => self.ctr()?.args(["images", "import", "--local"]).arg(archive),
        })
    }

    /// The same with a snapshotter that is not the usual one.
    pub(crate) fn import_into(&self, snapshotter: &str, archive: &std::path::Path) -> Result<Invocation> {
        Ok(match self.kind {
            Kind::Berth => {
                self.berth()?.args(["--snapshotter", snapshotter, "load", "--quiet", "--input"]).arg(archive)
            }
            _ => self.ctr()?.args(["images", "import", "--local", "--snapshotter", snapshotter]).arg(archive),
        })
    }

    /// Fetches an image from a registry of this machine and unpacks it.
    pub(crate) fn pull(&self, reference: &str) -> Result<Invocation> {
        Ok(match self.pulls {
            Puller::Berth => self.berth()?.args(["pull", "--quiet", reference]),
            Puller::Local => self.ctr()?.args(["images", "pull", "--local", "--plain-http", reference]),
            _ => self.ctr()?.args(["images", "pull", "--plain-http", reference]),
        })
    }

    /// Makes an image of another form from one (`--zstd`, `--estargz`); berth's alone.
    pub(crate) fn convert(&self, form: &str, from: &str, to: &str) -> Result<Invocation> {
        Ok(self.berth()?.args(["image", "convert", "--oci", form, from, to]))
    }

    /// Sends an image to a registry of this machine; berth's alone.
    pub(crate) fn push(&self, reference: &str) -> Result<Invocation> {
        Ok(self.berth()?.args(["push", "--quiet", reference]))
    }

    fn berth(&self) -> Result<Invocation> {
        let program = programs::own("berth").context("berth is not built")?;
        Ok(self.daemon.client(&program))
    }
}
