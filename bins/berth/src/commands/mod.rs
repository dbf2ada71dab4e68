//! A file for each command: its flags, and what it does.

pub(crate) mod attach;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod convert;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod groups;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod lazy;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod manifest;
pub(crate) mod named;
pub(crate) mod namespace;
pub(crate) mod network;
pub(crate) mod optimize;
pub(crate) mod options;
pub(crate) mod pods;
pub(crate) mod port;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod registry;
pub(crate) mod rename;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod snapshot;
pub(crate) mod source;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod version;
pub(crate) mod volume;

use std::process::ExitCode;

use crate::cli::{Cli, Command, Global};
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Runs a command to its end, tells a failure, and gives the exit code.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("berth: cannot begin: {error}");
            return ExitCode::from(crate::failure::ENGINE);
        }
    };
    let outcome = runtime.block_on(dispatch(&cli.global, cli.command));
    // Threads that copy streams may hang in a read that nobody will answer; they end with the process.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("berth: {failure}");
            }
            ExitCode::from(failure.code)
        }
    }
}

async fn dispatch(global: &Global, command: Command) -> Outcome {
    match command {
        Command::Run(command) => command.run(global).await,
        Command::Create(command) => command.run(global).await,
        Command::System(command) => command.run(global).await,
        Command::Version(command) => command.run(global).await,
        Command::Pods(command) => command.run(global).await,
        Command::Registry(command) => command.run().await,
        Command::Login(command) => command.run().await,
        Command::Logout(command) => command.run().await,
        Command::Search(command) => command.run().await,
        Command::Completion(command) => command.run(),
        Command::Lazy(command) => Box::pin(command.run()).await,
        Command::Oci { words } => {
            let code = crate::oci::run(words.into_iter().map(Into::into).collect());
            Ok(u8::from(code != ExitCode::SUCCESS))
        }
        command => {
            let mut context = Context::open(global).await?;
            connected(&mut context, command).await
        }
    }
}

async fn connected(context: &mut Context, command: Command) -> Outcome {
    match command {
        Command::Exec(command) => command.run(context).await,
        Command::Ps(command) => command.run(context).await,
        Command::Start(command) => command.run(context).await,
        Command::Checkpoint(command) => command.run(context).await,
        Command::Stop(command) => command.run(context).await,
        Command::Restart(command) => command.run(context).await,
        Command::Kill(command) => command.run(context).await,
        Command::Pause(command) => command.run(context).await,
        Command::Unpause(command) => command.run(context).await,
        Command::Wait(command) => command.run(context).await,
        Command::Rm(command) => command.run(context).await,
        Command::Attach(command) => command.run(context).await,
        Command::Logs(command) => command.run(context).await,
        Command::Inspect(command) => command.run(context).await,
        Command::Top(command) => command.run(context).await,
        Command::Stats(command) => command.run(context).await,
        Command::Cp(command) => command.run(context).await,
        Command::Diff(command) => command.run(context).await,
        Command::Export(command) => command.run(context).await,
        Command::Commit(command) => command.run(context).await,
        Command::Rename(command) => command.run(context).await,
        Command::Update(command) => command.run(context).await,
        Command::Port(command) => command.run(context).await,
        Command::Images(command) => command.run(context).await,
        Command::Pull(command) => command.run(context).await,
        Command::Push(command) => command.run(context).await,
        Command::Rmi(command) => command.run(context).await,
        Command::Tag(command) => command.run(context).await,
        Command::Load(command) => command.run(context).await,
        Command::Save(command) => command.run(context).await,
        Command::Import(command) => command.run(context).await,
        Command::History(command) => command.run(context).await,
        Command::Events(command) => command.run(context).await,
        Command::Info(command) => command.run(context).await,
        Command::Container(command) => Box::pin(command.run(context)).await,
        Command::Image(command) => Box::pin(command.run(context)).await,
        Command::Manifest(command) => command.run(context).await,
        Command::Volume(command) => command.run(context).await,
        Command::Network(command) => command.run(context).await,
        Command::Namespace(command) => command.run(context).await,
        Command::Snapshot(command) => command.run(context).await,
        Command::InternalReaper => crate::reaper::run(context).await,
        Command::Run(_)
        | Command::Create(_)
        | Command::System(_)
        | Command::Version(_)
        | Command::Pods(_)
        | Command::Registry(_)
        | Command::Login(_)
        | Command::Logout(_)
        | Command::Search(_)
        | Command::Completion(_)
        | Command::Lazy(_)
        | Command::Oci { .. } => Err(Failure::new("this command needs no daemon")),
    }
}

/// Does something to each of several containers; goes on past failures, and tells them all.
pub(crate) async fn each<F>(names: &[String], mut act: impl FnMut(String) -> F) -> Outcome
where
    F: Future<Output = Result<String, Failure>>,
{
    let mut code = 0;
    for name in names {
        match act(name.clone()).await {
            Ok(text) if text.is_empty() => {}
            Ok(text) => crate::output::line(&text)?,
            Err(failure) => {
                eprintln!("berth: {failure}");
                code = 1;
            }
        }
    }
    Ok(code)
}
