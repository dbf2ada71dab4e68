//! Plugins that the daemon starts: the executables of a folder, each with a socket as its descriptor 3.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as Socket;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::net::UnixStream;

use crate::admission::Launched;
use crate::config::Config;
use crate::name::PluginName;

/// The most that a plugin's configuration may have.
const MAX_CONFIG: u64 = 1 << 20;
/// Where a plugin finds its socket.
const DESCRIPTOR: &str = "3";

/// A plugin that is there to be started.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) name: PluginName,
    pub(crate) path: PathBuf,
}

/// The plugins of the folder, by their indices. What is not called like one is said and left out.
pub(crate) fn installed(folder: &Path) -> io::Result<Vec<Installed>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut plugins = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_program = |kind: fs::Metadata| kind.is_file() && kind.permissions().mode() & 0o111 != 0;
        if !fs::metadata(&path).is_ok_and(is_program) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match PluginName::of_file(&name) {
            Ok(name) => plugins.push(Installed { name, path }),
            Err(error) => tracing::warn!("{} is not started: {error}", path.display()),
        }
    }
    plugins.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(plugins)
}

impl Installed {
    /// Starts it: its process, and our end of its socket. Called within a tokio runtime.
    pub(crate) fn start(self, config: &Config) -> io::Result<(UnixStream, Launched)> {
        let text = self.config(&config.plugin_config_path)?;
        let (ours, its) = Socket::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = std::process::Command::new(&self.path);
        command
            .env_clear()
            .env("NRI_PLUGIN_NAME", &self.name.base)
            .env("NRI_PLUGIN_IDX", &self.name.index)
            .env("NRI_PLUGIN_SOCKET", DESCRIPTOR)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        berth_sys::spawn::with_descriptors(&mut command, [its.as_raw_fd()]);
        let process = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        // Its end is open in the plugin alone from here on, so that its death closes the socket.
        drop(its);
        Ok((UnixStream::from_std(ours)?, Launched { name: self.name, process, config: text }))
    }

    /// `NN-name.conf`, else `name.conf`, else nothing.
    fn config(&self, folder: &Path) -> io::Result<String> {
        for name in [self.name.to_string(), self.name.base.clone()] {
            match fs::File::open(folder.join(format!("{name}.conf"))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => {
                    let mut text = String::new();
                    file?.take(MAX_CONFIG).read_to_string(&mut text)?;
                    return Ok(text);
                }
            }
        }
        Ok(String::new())
    }
}
