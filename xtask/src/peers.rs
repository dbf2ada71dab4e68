//! The programs that berth is compared with, brought into one cache folder.
//!
//! Each piece is a folder that appears in one rename, so an interrupted run leaves nothing that
//! looks complete. Nothing is installed system-wide and no service starts, save two libraries
//! that runc and dockerd link to, a C compiler and zlib, to which soci-tool links, and the tools
//! that make and boot the virtual machine. The test kit finds the programs through `BERTH_PEERS`.

mod crates;
pub(crate) mod debian;
mod golang;
mod guest;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

/// Which pieces, and where to.
#[derive(Args)]
#[group(id = "peers-options")]
pub(crate) struct Options {
    /// The cache folder.
    #[arg(long, env = "BERTH_PEERS", default_value = "/var/cache/berth-peers")]
    peers: PathBuf,
    /// The pieces to bring; by default those that the tests use.
    #[arg(long = "peer", value_delimiter = ',', default_values = ["debian", "containerd", "nerdctl", "crictl", "critest", "busybox", "cni", "plugins", "filters", "erofs", "btrfs", "stargz", "soci", "guest"])]
    pieces: Vec<Piece>,
}

/// One thing that can be brought.
#[derive(Clone, Copy, ValueEnum)]
enum Piece {
    /// Debian 12's containerd 1.6, runc 1.1, dockerd and docker 20.10, registry 2.8, busybox.
    Debian,
    /// containerd, ctr and the runc shim 2.3.4, built from their Go module.
    Containerd,
    /// nerdctl 2.3.5, built from its Go module.
    Nerdctl,
    /// Debian 12's CNI plugins 1.1.
    Cni,
    /// The reference CNI plugins 1.9.1, built from their Go module.
    Plugins,
    /// Debian 12's nft and iptables (iptables-nft), which those call.
    Filters,
    /// Debian 12's fsck.erofs and its kin 1.5.
    Erofs,
    /// Debian 12's mkfs.btrfs 6.2.
    Btrfs,
    /// A tool of ours around stargz-snapshotter's package estargz 0.19.1, built from its Go module.
    Stargz,
    /// stargz-snapshotter 0.19.1, built from its Go module: only figures of lazy pulling want it.
    StargzSnapshotter,
    /// A tool of ours around soci-snapshotter's packages 0.16.1, built from its Go module with cgo and zlib.
    Soci,
    /// crictl, built from its Go module.
    Crictl,
    /// Debian 12's busybox that links to its libraries: its shell looks programs up, where that of busybox-static does
    /// itself what busybox can do.
    Busybox,
    /// critest, the suite for runtimes of Kubernetes' developers, built from its Go module.
    Critest,
    /// youki 0.7.0, built from its crate, which takes minutes: only ignored tests want it.
    Youki,
    /// A Debian 12 with systemd for the tests' virtual machine: its kernel and its disk.
    Guest,
}

impl Piece {
    /// The folder of the piece in the cache; the versions are in it so that a new one is a new folder.
    fn folder(self) -> &'static str {
        match self {
            Self::Debian => "debian-12",
            Self::Containerd => "containerd-2.3.4",
            Self::Nerdctl => "nerdctl-2.3.5",
            Self::Cni => "cni-1.1.1",
            Self::Plugins => "cni-1.9.1",
            Self::Filters => "filters-12",
            Self::Erofs => "erofs-1.5",
            Self::Btrfs => "btrfs-6.2",
            Self::Stargz => "stargz-0.19.1",
            Self::StargzSnapshotter => "stargz-snapshotter-0.19.1",
            Self::Soci => "soci-0.16.1",
            Self::Crictl => "crictl-1.36.0",
            Self::Busybox => "busybox-12",
            Self::Critest => "critest-1.36.0",
            Self::Youki => "youki-0.7.0",
            Self::Guest => "guest-12.1",
        }
    }

    fn make(self, cache: &Path, into: &Path) -> Result<()> {
        match self {
            Self::Debian => debian::unpack(into),
            Self::Containerd => golang::containerd(cache, into),
            Self::Nerdctl => golang::nerdctl(cache, into),
            Self::Cni => debian::plugins(into),
            Self::Plugins => golang::plugins(cache, into),
            Self::Filters => debian::filters(into),
            Self::Erofs => debian::erofs(into),
            Self::Btrfs => debian::btrfs(into),
            Self::Stargz => golang::stargz(cache, into),
            Self::StargzSnapshotter => golang::stargz_snapshotter(cache, into),
            Self::Soci => golang::soci(cache, into),
            Self::Crictl => golang::crictl(cache, into),
            Self::Busybox => debian::packages(&["busybox"], into),
            Self::Critest => golang::critest(cache, into),
            Self::Youki => crates::youki(into),
            Self::Guest => guest::make(into),
        }
    }
}

/// Brings what is not there yet, and gives the cache folder.
pub(crate) fn bring(options: &Options) -> Result<PathBuf> {
    let cache = &options.peers;
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    for piece in &options.pieces {
        let done = cache.join(piece.folder());
        if done.exists() {
            eprintln!("peers: {} is there", done.display());
            continue;
        }
        let partial = cache.join(format!("{}.partial", piece.folder()));
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("cannot clear {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)?;
        piece.make(cache, &partial).with_context(|| format!("cannot bring {}", piece.folder()))?;
        fs::rename(&partial, &done).with_context(|| format!("cannot publish {}", done.display()))?;
    }
    Ok(cache.clone())
}
