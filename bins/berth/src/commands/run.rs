//! `run`: make a container, start it, and stay with it until it ends.

use std::path::PathBuf;

use berth_sys::local_socket;
use berth_types::attach::{Pace, SOCKET};
use berth_types::{Error, ProcessRef};
use berth_workload::logs::{Limits, Writer};
use berth_workload::parse::{DetachKeys, detach_keys};
use berth_workload::{CreateRequest, Created, Definition, Found, RemoveOptions, TaskIo, Workload};
use clap::Args;

use super::options::ContainerOptions;
use super::source;
use crate::cli::Global;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::terminal::{Ended, Fifos, Foreground, Session, Wanted, awaited, is_terminal};
use crate::{hello, reaper};

/// Flags of `run`.
#[derive(Debug, Args)]
#[command(override_usage = "berth run [OPTIONS] IMAGE [COMMAND] [ARGUMENT]...")]
pub(crate) struct Run {
    /// Run in the background and print the id
    #[arg(short, long)]
    detach: bool,
    /// Attach to stdin, stdout or stderr only
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Keys that leave the container running: ctrl-p,ctrl-q unless given
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    options: ContainerOptions,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image (a name, oci:FOLDER, oci-archive:FILE, docker-archive:FILE, or hello), the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARGUMENT]...")]
    words: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let began = std::time::Instant::now();
        if self.options.tty && self.options.interactive && !self.detach && !is_terminal() {
            return Err(Failure::new("the input device is not a TTY"));
        }
        let keys = self.keys()?;
        let mut context = Context::open(global).await?;
        let mut request = self.request().map_err(Failure::of_engine)?;
        let stages = hello::Stages::since(began, &self.words[0]);
        prepare(&mut context, &self.options, &self.words[0], &mut request)
            .await
            .map_err(Failure::of_engine)?;
        let stages = stages.mark("image found");
        if stages.is_some() {
            hello::Stages::explain(&mut request);
        }
        request.config.stdin_once = self.options.interactive && !self.detach;
        let workload = context.workload.clone();
        let created = workload.create(request).await.map_err(|error| Failure::from(error).of_engine())?;
        if let Err(failure) = write_cidfile(self.options.cidfile.as_ref(), &created) {
            discard(&workload, &created).await;
            return Err(failure);
        }
        let stages = stages.mark("record, snapshot and specification");
        let outcome = if self.detach {
            detached(&context, &created).await
        } else {
            self.foreground(&workload, &created, keys, stages).await
        };
        if outcome.is_err() && self.options.rm {
            discard(&workload, &created).await;
        }
        outcome
    }

    fn request(&self) -> Result<CreateRequest, Failure> {
        let mut request = self.options.request(&self.words[0], self.words[1..].to_vec())?;
        for stream in &self.attach {
            if !matches!(stream.to_ascii_lowercase().as_str(), "stdin" | "stdout" | "stderr") {
                return Err(Failure::new(
                    "invalid argument for -a: valid streams are STDIN, STDOUT and STDERR",
                ));
            }
        }
        if !self.attach.is_empty() {
            request.config.attach_stdin = self.attaches("stdin");
            request.config.attach_stdout = self.attaches("stdout");
            request.config.attach_stderr = self.attaches("stderr");
            request.config.open_stdin |= request.config.attach_stdin;
        }
        Ok(request)
    }

    fn attaches(&self, name: &str) -> bool {
        self.attach.iter().any(|stream| stream.eq_ignore_ascii_case(name))
    }

    fn keys(&self) -> Result<DetachKeys, Failure> {
        Ok(self.detach_keys.as_deref().map(detach_keys).transpose()?.unwrap_or_default())
    }

    async fn foreground(
        &self,
        workload: &Workload,
        created: &Created,
        keys: DetachKeys,
        stages: Option<hello::Stages>,
    ) -> Outcome {
        let config = &created.definition.config;
        let wanted = Wanted {
            stdin: config.attach_stdin && config.open_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
            keys: (config.tty && is_terminal()).then_some(keys),
            pace: Pace::Wait,
        };
        let ended = attached_start(workload, created, wanted, self.sig_proxy, stages).await?;
        finish(workload, created, ended, self.options.rm).await
    }
}

/// Finds the image, or the folder, and how logs are kept; what does not depend on one another at the same time.
pub(crate) async fn prepare(
    context: &mut Context,
    options: &ContainerOptions,
    image: &str,
    request: &mut CreateRequest,
) -> Result<(), Failure> {
    context.settle_logging().await?;
    if options.rootfs {
        let folder = std::path::absolute(image)?;
        if !folder.is_dir() {
            return Err(Failure::new(format!("the root filesystem {} is no folder", folder.display())));
        }
        request.rootfs = Some(folder);
        return Ok(());
    }
    request.image = Some(source::resolve(context, image, options).await?);
    Ok(())
}

/// Starts a container with its streams on ours and waits for its end.
pub(crate) async fn attached_start(
    workload: &Workload,
    created: &Created,
    wanted: Wanted,
    proxy: bool,
    stages: Option<hello::Stages>,
) -> Result<Ended, Failure> {
    let Created { container, definition, rootfs, .. } = created;
    let tasks = workload.catalog().tasks(workload.scope());
    let process = ProcessRef::init(container.id.clone());
    let terminal = definition.config.tty;
    let fifos = if workload.attachable(definition) {
        None
    } else {
        Some(Fifos::make(wanted.stdin, terminal).map_err(Failure::from).map_err(Failure::of_engine)?)
    };
    let io = fifos.as_ref().map_or(TaskIo::Log, |fifos| TaskIo::Fifos(fifos.stdio()));
    // A container that exists already has its mounts asked for again.
    let mounts = if rootfs.is_empty() && definition.rootfs.is_none() { None } else { Some(rootfs.clone()) };
    let pid = workload
        .create_task(container, definition, mounts, io)
        .await
        .map_err(|error| Failure::from(error).of_start())?;
    let stages = stages.mark("task created, waiting to start");
    let types = wanted.stdin;
    let started = async {
        let session = open_session(workload, created, pid, fifos, wanted)?;
        let foreground = Foreground::take(tasks.clone(), process.clone(), terminal, types, proxy)?;
        let end = awaited(&tasks, &process);
        let (started, ()) = tokio::join!(workload.start_task(&container.id, definition), foreground.resize());
        started.map_err(|error| Failure::from(error).of_start())?;
        Ok::<_, Failure>((session, foreground, end))
    };
    let (session, foreground, end) = match started.await {
        Ok(started) => started,
        Err(failure) => {
            workload.drop_task(&container.id).await;
            return Err(failure);
        }
    };
    let stages = stages.mark("started");
    let ended = foreground.until_end(session, end).await?;
    if let Some(stages) = stages {
        stages.tell()?;
    }
    Ok(ended)
}

fn open_session(
    workload: &Workload,
    created: &Created,
    pid: u32,
    fifos: Option<Fifos>,
    wanted: Wanted,
) -> Result<Session, Failure> {
    match fifos {
        Some(fifos) => Ok(Session::fifos(fifos, wanted, own_log(workload, created)?)?),
        None => attach_session(workload, pid, wanted),
    }
}

/// The log that is ours to write, because the shim cannot and nobody else is there.
fn own_log(workload: &Workload, created: &Created) -> Result<Option<Writer>, Failure> {
    let config = &created.definition.host.log_config;
    if config.kind == "none" {
        return Ok(None);
    }
    let limits = Limits::of(&config.config)?;
    Ok(Some(Writer::open(&workload.home().log(&created.container.id), limits)?))
}

/// A session over the attach socket of the task whose first process is `pid`.
pub(crate) fn attach_session(workload: &Workload, pid: u32, wanted: Wanted) -> Result<Session, Failure> {
    let bundle = workload
        .bundle(pid)
        .ok_or_else(|| Failure::new("cannot find the container's shim: is it in another pid namespace?"))?;
    let socket = local_socket::connect(&bundle, SOCKET)
        .map_err(|error| Failure::new(format!("cannot attach to the container's shim: {error}")))?;
    Ok(Session::attach(socket, wanted)?)
}

/// What follows the end of a foreground container: its exit code, and its removal if that was asked for.
pub(crate) async fn finish(workload: &Workload, created: &Created, ended: Ended, remove: bool) -> Outcome {
    let code = match ended {
        Ended::Exit(exit) => {
            if remove {
                remove_ended(workload, created).await?;
            }
            return Ok(exit.status as u8);
        }
        Ended::Detached => return Ok(0),
        Ended::Broken => 141,
        Ended::Signal(number) => 128 + number as u8,
    };
    if remove {
        discard(workload, created).await;
    }
    Err(Failure::silent(code))
}

async fn remove_ended(workload: &Workload, created: &Created) -> Result<(), Failure> {
    let found = Found { container: created.container.clone() };
    let tasks = workload.catalog().tasks(workload.scope());
    let deleted = tasks.delete(&created.container.id).await;
    if let Err(error) = deleted
        && error.kind() != berth_types::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    let options = RemoveOptions { force: true, volumes: true };
    workload.remove_stopped(&found, options).await.map_err(|error: Error| {
        Failure::from(error.context(format!("cannot remove container {}", created.name)))
    })
}

/// Removes a container of which nothing is to be left, whatever became of it.
pub(crate) async fn discard(workload: &Workload, created: &Created) {
    let found = Found { container: created.container.clone() };
    if let Err(error) = workload.remove(&found, RemoveOptions { force: true, volumes: true }).await
        && error.kind() != berth_types::ErrorKind::NotFound
    {
        eprintln!("berth: container {} could not be removed: {}", created.name, error.chain());
    }
}

async fn detached(context: &Context, created: &Created) -> Outcome {
    let definition: &Definition = &created.definition;
    let rootfs = Some(created.rootfs.clone());
    context
        .workload
        .start(&created.container, definition, rootfs)
        .await
        .map_err(|error| Failure::from(error).of_start())?;
    if definition.host.auto_remove {
        reaper::ensure(context)?;
    }
    output::line(created.container.id.as_str())?;
    Ok(0)
}

pub(crate) fn write_cidfile(file: Option<&PathBuf>, created: &Created) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let new = std::fs::OpenOptions::new().write(true).create_new(true).open(file);
    let written = new
        .and_then(|mut file| std::io::Write::write_all(&mut file, created.container.id.as_str().as_bytes()));
    written.map_err(|error| {
        let text = if error.kind() == std::io::ErrorKind::AlreadyExists {
            format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                file.display()
            )
        } else {
            format!("cannot write {}: {error}", file.display())
        };
        Failure::new(text).of_engine()
    })
}

/// Stages that may not be wanted.
trait Marked {
    fn mark(self, what: &'static str) -> Self;
}

impl Marked for Option<hello::Stages> {
    fn mark(self, what: &'static str) -> Self {
        self.map(|stages| stages.at(what))
    }
}
