//! The words that are understood.

use std::ffi::OsString;

use clap::{Args, FromArgMatches as _, Parser, Subcommand};

use crate::commands::*;

/// Containers on this machine: Docker's commands, containerd's daemon, in one small engine.
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    disable_version_flag = true,
    args_override_self = true,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Understands the words of a command, the program's name first.
    ///
    /// To know all commands and their flags takes longer than some of them run. So the words are first read by one
    /// that knows only the command which they seem to name; whatever it does not take, the whole one judges.
    pub(crate) fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        Self::read_one(words).map_or_else(|| Self::try_parse_from(words), Ok)
    }

    fn read_one(words: &[OsString]) -> Option<Self> {
        let one = words.iter().find_map(|word| alone(word.to_str()?))?;
        let all = clap::Command::new("berth").version("").disable_version_flag(true);
        let all = all.args_override_self(true).subcommand_required(true);
        let mut matches = Global::augment_args(all).subcommand(one).try_get_matches_from(words).ok()?;
        Self::from_arg_matches_mut(&mut matches).ok()
    }
}

/// A command that scripts call in a hurry, without its words of help.
fn alone(name: &str) -> Option<clap::Command> {
    let command = clap::Command::new;
    Some(match name {
        "run" => run::Run::augment_args(command("run").disable_help_flag(true)),
        "create" => create::Create::augment_args(command("create").disable_help_flag(true)),
        "exec" => exec::Exec::augment_args(command("exec")),
        "ps" => ps::Ps::augment_args(command("ps")),
        "start" => start::Start::augment_args(command("start")),
        "stop" => stop::Stop::augment_args(command("stop")),
        "kill" => stop::Kill::augment_args(command("kill")),
        "wait" => stop::Wait::augment_args(command("wait")),
        "rm" => rm::Rm::augment_args(command("rm")),
        "logs" => logs::Logs::augment_args(command("logs")),
        "inspect" => inspect::Inspect::augment_args(command("inspect")),
        _ => return None,
    })
}

/// Which daemon, which namespace.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// The daemon's socket [default: /run/berth/berth.sock; or BERTH_ADDRESS, CONTAINERD_ADDRESS]
    #[arg(short = 'H', long, visible_alias = "host", short_alias = 'a', value_name = "SOCKET")]
    pub(crate) address: Option<String>,
    /// The namespace [default: default; or BERTH_NAMESPACE, CONTAINERD_NAMESPACE]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The snapshotter [default: overlayfs; or BERTH_SNAPSHOTTER]
    #[arg(long, value_name = "NAME", visible_alias = "storage-driver", global = true)]
    pub(crate) snapshotter: Option<String>,
    /// The folder of names, logs and volumes [default: /var/lib/berth/workload; or BERTH_DATA_ROOT]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_root: Option<String>,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// Everything that can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make and start a container
    #[command(disable_help_flag = true)]
    Run(run::Run),
    /// Run a command in a container that runs
    Exec(exec::Exec),
    /// List containers
    Ps(ps::Ps),
    /// Make a container without starting it
    #[command(disable_help_flag = true)]
    Create(create::Create),
    /// Start containers
    Start(start::Start),
    /// Save containers' processes, to start from them later
    #[command(subcommand)]
    Checkpoint(checkpoint::Checkpoint),
    /// Stop containers
    Stop(stop::Stop),
    /// Stop and start containers
    Restart(stop::Restart),
    /// Send a signal to containers
    Kill(stop::Kill),
    /// Freeze containers
    Pause(stop::Pause),
    /// Let frozen containers go on
    Unpause(stop::Unpause),
    /// Wait for containers to end and print their exit codes
    Wait(stop::Wait),
    /// Remove containers
    Rm(rm::Rm),
    /// Watch and type into a container that runs
    Attach(attach::Attach),
    /// Show the output of a container
    Logs(logs::Logs),
    /// Show details of containers, images and volumes
    Inspect(inspect::Inspect),
    /// Show the processes of a container
    Top(top::Top),
    /// Show what containers use
    Stats(stats::Stats),
    /// Copy files between containers and the host
    Cp(cp::Cp),
    /// Show what a container changed in its image's files
    Diff(diff::Diff),
    /// Write a container's files as a tar
    Export(export::Export),
    /// Make an image of what a container changed
    Commit(commit::Commit),
    /// Give a container another name
    Rename(rename::Rename),
    /// Change limits of containers
    Update(update::Update),
    /// Show the ports of a container
    Port(port::Port),
    /// List images
    Images(images::Images),
    /// Fetch an image from a registry
    Pull(pull::Pull),
    /// Send an image to a registry
    Push(push::Push),
    /// Remove images
    Rmi(rmi::Rmi),
    /// Give an image one more name
    Tag(tag::Tag),
    /// Take in images from an archive
    Load(load::Load),
    /// Write images as an archive
    Save(save::Save),
    /// Make an image of a tar of files
    Import(import::Import),
    /// Tell a registry who you are, from now on
    Login(login::Login),
    /// Forget who you are to a registry
    Logout(login::Logout),
    /// Look for images in a registry
    Search(login::Search),
    /// Show how an image came to be
    History(history::History),
    /// Show what happens in the daemon
    Events(events::Events),
    /// Show facts of the daemon and the host
    Info(info::Info),
    /// Show versions
    Version(version::Version),
    /// The daemon: start, stop, status; the disk: df, prune
    #[command(subcommand)]
    System(system::System),
    /// Containers
    #[command(subcommand)]
    Container(groups::Container),
    /// Images
    #[command(subcommand)]
    Image(groups::Image),
    /// Documents of images, and lists of images of several platforms
    #[command(subcommand)]
    Manifest(manifest::Manifest),
    /// Registries: which hosts are asked for an image, and why they do not answer
    #[command(subcommand)]
    Registry(registry::Registry),
    /// Volumes
    #[command(subcommand)]
    Volume(volume::Volume),
    /// Networks
    #[command(subcommand)]
    Network(network::Network),
    /// What a kubelet has this machine run, and where it hangs
    #[command(subcommand)]
    Pods(pods::Pods),
    /// Namespaces
    #[command(subcommand)]
    Namespace(namespace::Namespace),
    /// Snapshots
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Layers of berth-lazyd, which are used before they have arrived
    #[command(subcommand)]
    Lazy(lazy::Lazy),
    /// Write a script that completes commands in a shell
    Completion(completion::Completion),
    /// The low-level runtime, with runc's commands
    #[command(disable_help_flag = true)]
    Oci {
        /// runc's words
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    #[command(hide = true)]
    InternalReaper,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_words_do_not_contradict_one_another() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_image_is_the_containers() {
        let cli = Cli::parse_from([
            "berth", "-n", "x", "run", "--rm", "-it", "image", "ls", "--rm", "-la", "--", "x",
        ]);
        let text = format!("{:?}", cli.command);
        assert!(text.contains(r#"words: ["image", "ls", "--rm", "-la", "--", "x"]"#), "{text}");
        assert_eq!(cli.global.namespace.as_deref(), Some("x"));
    }

    #[test]
    fn a_command_read_alone_is_what_the_whole_reads() {
        for line in [
            "berth -n x run --rm -it -e A=b image ls --rm -- x",
            "berth --namespace=run exec -w / c true",
            "berth rm -f a b",
            "berth logs --tail 5 run",
            "berth start -n run -a c",
            "berth ps -aq --filter name=exec",
            "berth stop c",
            "berth kill -s HUP c",
            "berth inspect --type image run",
        ] {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let whole = Cli::try_parse_from(&words).map(|cli| format!("{cli:?}")).ok();
            if let Some(alone) = Cli::read_one(&words) {
                assert_eq!(Some(format!("{alone:?}")), whole, "{line}");
            }
            assert_eq!(Cli::read(&words).map(|cli| format!("{cli:?}")).ok(), whole, "{line}");
        }
        let words = |line: &str| line.split(' ').map(Into::into).collect::<Vec<OsString>>();
        assert!(Cli::read_one(&words("berth exec c true")).is_some());
        // Not its to answer.
        for line in
            ["berth run --help", "berth images run", "berth run", "berth -v run", "berth rm --nonsense"]
        {
            assert!(Cli::read_one(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn a_switch_takes_a_word_with_an_equals_sign_only() {
        for (word, proxied) in [("--sig-proxy", "true"), ("--sig-proxy=false", "false")] {
            let cli = Cli::parse_from(["berth", "run", word, "image"]);
            let text = format!("{:?}", cli.command);
            assert!(text.contains(&format!("sig_proxy: {proxied}")), "{text}");
        }
    }
}
