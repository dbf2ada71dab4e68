//! The command line, which is containerd's.

mod oci_hook;
mod publish;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Config;
use crate::daemon;
use crate::identity::Identity;

/// Runs containers, for clients of containerd's API
///
/// Without a command it runs the daemon in the foreground. A config is read if one is given or if there is one in
/// the usual place; `config default` prints what holds without.
#[derive(Parser)]
#[command(disable_version_flag = true, args_conflicts_with_subcommands = false)]
struct CommandLine {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What can be said for every command.
#[derive(Args, Clone)]
pub(crate) struct Flags {
    /// Path to the configuration file
    #[arg(long, short, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Set the logging level [trace, debug, info, warn, error, fatal, panic]
    #[arg(long, short, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Set the logging format [text, json]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Address for the daemon's gRPC server
    #[arg(long, short, global = true, value_name = "PATH")]
    address: Option<String>,
    /// The folder of what survives a reboot
    #[arg(long, global = true, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// The folder of what does not survive a reboot
    #[arg(long, global = true, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Print the version
    #[arg(long, short)]
    version: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Information on the config
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Publish an event, an Any of protobuf on standard input; shims call it
    Publish(publish::Options),
    /// Put values of a container's state into the arguments and the environment of an OCI hook, and run it
    OciHook(oci_hook::Options),
}

#[derive(Clone, Copy, Subcommand)]
enum ConfigCommand {
    /// See the default config
    Default,
    /// See the config with all that it imports
    Dump,
    /// See the config in the form of the newest version
    Migrate,
}

/// Does what the command line says.
pub(crate) fn run(identity: &'static Identity) -> Result<()> {
    let command = CommandLine::command().name(identity.name);
    let line = command.try_get_matches().and_then(|matches| CommandLine::from_arg_matches(&matches));
    let CommandLine { flags, command } = line.unwrap_or_else(|error| error.exit());
    if flags.version {
        println!("{}", identity.version_line());
        return Ok(());
    }
    match command {
        None => daemon::run(&Source { identity, flags }),
        Some(Command::Config { command: ConfigCommand::Default }) => {
            let mut config = Config::defaults(identity);
            config.complete();
            print!("{}", config.to_toml());
            Ok(())
        }
        Some(Command::Config { command: ConfigCommand::Dump | ConfigCommand::Migrate }) => {
            let config = Source { identity, flags }.config()?;
            for warning in &config.warnings {
                eprintln!("{}: {warning}", identity.name);
            }
            print!("{}", config.to_toml());
            Ok(())
        }
        Some(Command::Publish(options)) => {
            let address = flags.address.unwrap_or_else(|| identity.address.to_owned());
            publish::run(&address, options)
        }
        Some(Command::OciHook(options)) => oci_hook::run(options),
    }
}

/// Where the configuration comes from; it can be read again.
pub(crate) struct Source {
    pub(crate) identity: &'static Identity,
    flags: Flags,
}

impl Source {
    /// The file, if there is one or one was named, with the flags over it.
    pub(crate) fn config(&self) -> Result<Config> {
        let Self { identity, flags } = self;
        let usual = Path::new(identity.config);
        let mut config = match &flags.config {
            Some(path) => Config::load(path, identity)?,
            None if usual.exists() => Config::load(usual, identity)?,
            None => Config::defaults(identity),
        };
        if let Some(level) = &flags.log_level {
            config.debug.level.clone_from(level);
        }
        if let Some(format) = &flags.log_format {
            config.debug.format.clone_from(format);
        }
        if let Some(root) = &flags.root {
            config.root = absolute(root)?;
        }
        if let Some(state) = &flags.state {
            config.state = absolute(state)?;
        }
        if let Some(address) = &flags.address {
            let path = address.strip_prefix("unix://").unwrap_or(address);
            config.plugins.grpc.address = absolute(Path::new(path))?.display().to_string();
        }
        config.complete();
        Ok(config)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn the_command_line_holds_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn flags_are_containerds() {
        let line = parse("containerd -c /c -l debug --address /a --root /r --state /s");
        assert_eq!(line.flags.config.as_deref(), Some(Path::new("/c")));
        assert_eq!(line.flags.log_level.as_deref(), Some("debug"));
        assert_eq!(line.flags.address.as_deref(), Some("/a"));
        assert!(line.command.is_none());
    }

    #[test]
    fn shims_call_publish_with_the_address_before_it() {
        let line = parse("containerd --address /a publish --topic /tasks/exit --namespace moby");
        assert_eq!(line.flags.address.as_deref(), Some("/a"));
        assert!(matches!(line.command, Some(Command::Publish(_))));
    }

    #[test]
    fn a_hooks_own_flags_are_its_own() {
        let line = parse("containerd oci-hook -- /bin/hook --config {{id}} -x");
        assert!(line.flags.config.is_none());
        assert!(matches!(line.command, Some(Command::OciHook(_))));
    }
}
