//! The commands of a shim: `start`, `delete` and `-info`, with all that a shim of containerd 1.6 to 2.3
//! reads of its flags, its environment and its standard input.

use std::ffi::{CString, OsString};
use std::path::Path;
use std::sync::Arc;

use berth_proto as proto;
use berth_sys::launch::{Ended, c_string};
use berth_types::{Any, Error, ErrorKind, Exit, Result};
use prost::Message;
use proto::containerd::runtime::bootstrap::v1 as bootstrap;

use super::answer::Answer;
use super::command::{Command, CommandError, Inherited, Outcome, flag, reap, shown, watched};
use super::dialect::{Dialect, Dialects};
use super::direct;
use crate::blocking::blocking;
use crate::bundle::Bundle;
use crate::config::{Config, ShimLog};
use crate::nursery::Nursery;

/// The version that shims are told they were started by.
const CONTAINERD_VERSION: &str = "2.3.4";

/// Runs shims' commands.
pub(crate) struct Launcher {
    config: Arc<Config>,
    dialects: Dialects,
    nursery: Nursery,
}

/// A command of a shim.
#[derive(Clone, Copy)]
enum Action {
    /// No command at all: the shim itself, on the socket that it is given.
    Serve,
    Start,
    Delete,
}

/// Why a shim did not start.
pub(crate) enum StartError {
    /// It ended by itself, and said why.
    Refused(Error),
    /// It did not get so far, or further.
    Other(Error),
}

impl Launcher {
    pub(crate) fn new(config: Arc<Config>, nursery: Nursery) -> Self {
        Self { config, dialects: Dialects::default(), nursery }
    }

    /// Makes the bundle around `spec` and starts the shim in it. When it fails the bundle may be there.
    pub(crate) async fn start(
        &self,
        bundle: &Bundle,
        spec: Option<Vec<u8>>,
        program: &Path,
        options: Option<&Any>,
    ) -> Result<Answer, StartError> {
        if program == self.config.own_shim
            && direct::applies(spec.as_deref(), options, &self.config.shim_environment)
        {
            return self.serve(bundle, spec, program).await;
        }
        let dialect = if program == self.config.own_shim {
            Some(Dialect::Bootstrap)
        } else {
            self.dialects.of(program)
        };
        let create = move |bundle: &Bundle| bundle.create(spec.as_deref());
        let stdin = self.stdin(bundle, options, dialect.unwrap_or(Dialect::Bootstrap));
        match self.attempt(bundle, program, stdin, create).await {
            Ok(answer) => {
                self.dialects.learn(program, dialect.unwrap_or(Dialect::Bootstrap));
                Ok(answer)
            }
            Err(StartError::Refused(refusal)) if dialect.is_none() => {
                tracing::debug!(program = %program.display(), "the shim may be older than the bootstrap");
                let stdin = self.stdin(bundle, options, Dialect::Options);
                // When it fails either way, the first complaint is about what was meant.
                let answer = self
                    .attempt(bundle, program, stdin, |_| Ok(()))
                    .await
                    .map_err(|_| StartError::Refused(refusal))?;
                self.dialects.learn(program, Dialect::Options);
                Ok(answer)
            }
            Err(error) => Err(error),
        }
    }

    /// Executes our own shim on a socket of ours.
    async fn serve(
        &self,
        bundle: &Bundle,
        spec: Option<Vec<u8>>,
        program: &Path,
    ) -> Result<Answer, StartError> {
        let (arguments, inherited) = self.call(bundle, Action::Serve).map_err(StartError::Refused)?;
        let (bundle, program) = (bundle.clone(), program.to_owned());
        let started = blocking(move || {
            bundle.create(spec.as_deref())?;
            direct::spawn(&bundle, &program, &arguments, &inherited)
        });
        let (answer, child) = started.await.map_err(StartError::Refused)?;
        match watched(child) {
            Ok(child) => self.nursery.spawn(reap(child)),
            Err(error) => {
                return Err(StartError::Other(Error::io("cannot watch the shim that has started", error)));
            }
        };
        Ok(answer)
    }

    async fn attempt(
        &self,
        bundle: &Bundle,
        program: &Path,
        stdin: Vec<u8>,
        prepare: impl FnOnce(&Bundle) -> Result<()> + Send + 'static,
    ) -> Result<Answer, StartError> {
        let (arguments, inherited) = self.call(bundle, Action::Start).map_err(StartError::Other)?;
        let bundle = bundle.clone();
        let named = format!("shim {}", program.display());
        let (preparing, path) = (bundle.clone(), program.to_owned());
        let running = blocking(move || {
            let (bundle, program) = (preparing, path);
            prepare(&bundle)?;
            let folder = bundle.path();
            let command =
                Command { program: &program, arguments, inherited: &inherited, folder, stdin: &stdin };
            command.spawn().map_err(|error| described("start", &program, error))
        });
        let mut running = running.await.map_err(StartError::Other)?;
        let limit = self.config.timeouts.start;
        let outcome = running
            .answer(limit)
            .await
            .map_err(|error| StartError::Other(described("start", Path::new(&named), error)))?;
        if let Outcome { ended: Some(ended), .. } = &outcome
            && *ended != Ended::Status(0)
        {
            let error = format!("{named} failed to start ({}): {}", how(*ended), complaint(&outcome));
            return Err(StartError::Refused(Error::unknown(error)));
        }
        let answer = Answer::parse(&outcome.stdout).map_err(|error| {
            let said = shown(&outcome.stderr);
            StartError::Other(
                error.context(format!("{named} started but cannot be reached (it also said: {said})")),
            )
        })?;
        if let Some(child) = running.let_go() {
            self.nursery.spawn(reap(child));
        }
        let (path, json) = (program.as_os_str().as_encoded_bytes().to_vec(), answer.to_json());
        let written = blocking(move || {
            bundle.write("shim-binary-path", &path)?;
            bundle.write("bootstrap.json", &json)
        });
        written.await.map_err(StartError::Other)?;
        Ok(answer)
    }

    fn stdin(&self, bundle: &Bundle, options: Option<&Any>, dialect: Dialect) -> Vec<u8> {
        let options = options.cloned().map(proto::convert::any);
        if dialect == Dialect::Options {
            return options.map(|options| options.encode_to_vec()).unwrap_or_default();
        }
        let text = |path: &Path| path.display().to_string();
        bootstrap::BootstrapParams {
            instance_id: bundle.key().id.to_string(),
            namespace: bundle.key().namespace.to_string(),
            log_level: match self.config.shim_log {
                ShimLog::Info => bootstrap::LogLevel::Info,
                ShimLog::Debug => bootstrap::LogLevel::Debug,
            } as i32,
            containerd_version: CONTAINERD_VERSION.to_owned(),
            containerd_ttrpc_address: text(&self.config.ttrpc_address),
            containerd_grpc_address: text(&self.config.address),
            containerd_binary: text(&self.config.publish_binary),
            extensions: options
                .map(|value| bootstrap::Extension { value: Some(value) })
                .into_iter()
                .collect(),
            socket_dir: Some(text(&self.config.socket_folder)),
        }
        .encode_to_vec()
    }

    /// The arguments of a command, and what it inherits.
    fn call(&self, bundle: &Bundle, action: Action) -> Result<(Vec<OsString>, Inherited)> {
        let config = &*self.config;
        let mut arguments = Vec::with_capacity(12);
        arguments.extend(flag("-namespace", bundle.key().namespace.as_str()));
        arguments.extend(flag("-address", &config.address));
        arguments.extend(flag("-publish-binary", &config.publish_binary));
        arguments.extend(flag("-id", bundle.key().id.as_str()));
        if matches!(action, Action::Delete) {
            arguments.extend(flag("-bundle", bundle.path()));
        }
        if config.shim_log == ShimLog::Debug {
            arguments.push("-debug".into());
        }
        match action {
            Action::Serve => {}
            Action::Start => arguments.push("start".into()),
            Action::Delete => arguments.push("delete".into()),
        }
        Ok((arguments, inherited(config, bundle.key().namespace.as_str())?))
    }

    /// Has the shim's program clean up after a shim that cannot be reached: it kills what runs, unmounts
    /// and says how the task ended. The bundle stays.
    pub(crate) async fn delete(&self, bundle: &Bundle, program: &Path) -> Result<Exit> {
        let (arguments, inherited) = self.call(bundle, Action::Delete)?;
        let (bundle, program) = (bundle.clone(), program.to_owned());
        let limit = self.config.timeouts.cleanup;
        let outcome = run(&program, arguments, inherited, bundle.path(), Vec::new(), limit).await?;
        if !outcome.stderr.is_empty() {
            tracing::warn!(task = %bundle.key(), "cleaning up after a shim: {}", shown(&outcome.stderr));
        }
        let answer = proto::containerd::task::v3::DeleteResponse::decode(outcome.stdout.as_slice());
        let answer = answer.map_err(|source| {
            Error::unknown(format!("the answer of {} delete is malformed", program.display()))
                .caused_by(source)
        })?;
        Ok(Exit { pid: answer.pid, status: answer.exit_status, at: proto::convert::time(answer.exited_at) })
    }

    /// Asks a shim's program what its runtime can do; answers the encoded `containerd.types.RuntimeInfo`.
    pub(crate) async fn info(&self, program: &Path, options: Option<&Any>) -> Result<Vec<u8>> {
        let stdin = options.cloned().map(|options| proto::convert::any(options).encode_to_vec());
        let inherited = inherited(&self.config, "")?;
        let (folder, limit) = (Path::new("/"), self.config.timeouts.call);
        let arguments = vec!["-info".into()];
        Ok(run(program, arguments, inherited, folder, stdin.unwrap_or_default(), limit).await?.stdout)
    }
}

/// Runs a command to its end; one that fails is an error with its complaint.
async fn run(
    program: &Path,
    arguments: Vec<OsString>,
    inherited: Inherited,
    folder: &Path,
    stdin: Vec<u8>,
    limit: std::time::Duration,
) -> Result<Outcome> {
    let what = arguments.last().map(|one| one.display().to_string()).unwrap_or_default();
    let (owned, folder) = (program.to_owned(), folder.to_owned());
    let called = what.clone();
    let running = blocking(move || {
        let command =
            Command { program: &owned, arguments, inherited: &inherited, folder: &folder, stdin: &stdin };
        command.spawn().map_err(|error| described(&called, &owned, error))
    });
    let mut running = running.await?;
    let outcome = running.end(limit).await.map_err(|error| described(&what, program, error))?;
    match outcome.ended {
        Some(ended) if ended != Ended::Status(0) => Err(Error::unknown(format!(
            "{} {what} failed ({}): {}",
            program.display(),
            how(ended),
            complaint(&outcome)
        ))),
        _ => Ok(outcome),
    }
}

/// What every program of a shim has from the daemon.
fn inherited(config: &Config, namespace: &str) -> Result<Inherited> {
    let environment = environment(config, namespace).map_err(|source| {
        Error::invalid_argument("a variable for shims has a zero byte in it").caused_by(source)
    })?;
    Ok(Inherited { environment, open_files: config.open_files })
}

/// The daemon's environment for shims, with what older ones read there.
fn environment(config: &Config, namespace: &str) -> std::io::Result<Vec<CString>> {
    let mut variables = Vec::with_capacity(config.shim_environment.len() + 7);
    let mut add = |name: &std::ffi::OsStr, value: &std::ffi::OsStr| {
        let mut variable = name.to_owned();
        variable.push("=");
        variable.push(value);
        c_string(variable).map(|variable| variables.push(variable))
    };
    for (name, value) in &config.shim_environment {
        add(name, value)?;
    }
    add("GOMAXPROCS".as_ref(), "2".as_ref())?;
    add("MAX_SHIM_VERSION".as_ref(), "2".as_ref())?;
    add("TTRPC_ADDRESS".as_ref(), config.ttrpc_address.as_os_str())?;
    add("GRPC_ADDRESS".as_ref(), config.address.as_os_str())?;
    add("NAMESPACE".as_ref(), namespace.as_ref())?;
    // Our own shim's low-level runtime keeps its records there.
    add("BERTH_RUNTIME_ROOT".as_ref(), config.state.join("runc").as_os_str())?;
    Ok(variables)
}

fn described(what: &str, program: &Path, error: CommandError) -> Error {
    let kind = match &error {
        CommandError::Late(..) => ErrorKind::DeadlineExceeded,
        CommandError::Spawn { .. } | CommandError::Flood | CommandError::Read(_) => ErrorKind::Unknown,
    };
    Error::new(kind, format!("the shim's command `{} {what}` failed", program.display())).caused_by(error)
}

fn how(ended: Ended) -> String {
    match ended {
        Ended::Status(status) => format!("status {status}"),
        Ended::Signal(signal) => format!("signal {signal}"),
    }
}

/// Some shims complain on their standard output.
fn complaint(outcome: &Outcome) -> String {
    if outcome.stderr.trim_ascii().is_empty() { shown(&outcome.stdout) } else { shown(&outcome.stderr) }
}
