//! The namespaces of a pod, held by files.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use berth_sys::held::{self, Kind, Maps};
use berth_types::{Error, Result};

use super::Pod;

impl Pod {
    /// The file that holds its System V IPC; none for the host's.
    pub(crate) fn ipc(&self) -> Option<PathBuf> {
        (!self.has_host_ipc()).then(|| self.state.join("ns/ipc"))
    }

    /// The file that holds its host name; none on the host's network, where the name is the host's too.
    pub(crate) fn uts(&self) -> Option<PathBuf> {
        (!self.is_on_host_network()).then(|| self.state.join("ns/uts"))
    }

    /// The files that hold its namespaces.
    pub(crate) fn places(&self) -> Vec<(Kind, PathBuf)> {
        let network = self.facts().network;
        let places = [
            (Kind::User, self.user_namespace()),
            (Kind::Ipc, self.ipc()),
            (Kind::Uts, self.uts()),
            (Kind::Network, network),
        ];
        places.into_iter().filter_map(|(kind, path)| Some((kind, path?))).collect()
    }

    /// Makes its namespaces and names it. Blocking.
    pub(super) fn make_namespaces(&self) -> Result<()> {
        let places = self.places();
        let make = || -> io::Result<()> {
            for (_, path) in &places {
                path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            }
            let places: Vec<(Kind, &Path)> =
                places.iter().map(|(kind, path)| (*kind, path.as_path())).collect();
            if !places.is_empty() {
                let users = self.users();
                let maps = users.as_ref().map(|users| Maps { uids: &users.uids, gids: &users.gids });
                held::hold(&places, maps)?;
            }
            if let Some(uts) = self.uts() {
                let (uts, name) = (File::open(uts)?, self.hostname());
                held::inside(&[uts.as_fd()], || Ok(rustix::system::sethostname(name.as_bytes())?))?;
            }
            Ok(())
        };
        make().map_err(|error| Error::io("cannot make the pod's namespaces", error))
    }

    /// Whether all its namespaces are still held: those of before a start of the machine are not.
    pub(super) fn has_namespaces(&self) -> bool {
        self.places().iter().all(|(_, path)| held::is_held(path))
    }

    /// Lets go of its namespaces. Idempotent; blocking.
    pub(super) fn release_namespaces(&self) -> Result<()> {
        for (_, path) in self.places() {
            held::release(&path)
                .map_err(|error| Error::io(format!("cannot let go of {}", path.display()), error))?;
        }
        Ok(())
    }

    /// Its host name: the one asked for, else the host's.
    pub(crate) fn hostname(&self) -> String {
        if self.config.hostname.is_empty() {
            return rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        self.config.hostname.clone()
    }
}
