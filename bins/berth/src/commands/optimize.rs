//! `image optimize`: runs an image, sees which files it opens, and makes one of it that has those first.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_stargz::{Format, Making};
use berth_sys::opened::Opened;
use berth_transfer::{Conversion, Layers, Platforms, Types};
use berth_types::ProcessRef;
use berth_workload::{Created, TaskIo, Workload};
use clap::Args;
use serde_json::json;

use super::options::ContainerOptions;
use super::run::{discard, prepare};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::terminal::awaited;

/// How long one look for opened files lasts.
const LOOK: Duration = Duration::from_millis(100);

/// Flags of `image optimize`; those of `run` say how it is run.
#[derive(Debug, Args)]
#[command(override_usage = "berth image optimize [OPTIONS] IMAGE NEW [--] [COMMAND] [ARGUMENT]...")]
pub(crate) struct Optimize {
    /// Layers become zstd:chunked and not eStargz
    #[arg(long)]
    zstdchunked: bool,
    /// Seconds to look on for, unless the command ends before
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    period: u64,
    /// Write what was opened to a file, for `image convert --estargz-record-in`
    #[arg(long, value_name = "FILE")]
    record_out: Option<PathBuf>,
    /// Docker's types of documents and layers become OCI's
    #[arg(long)]
    oci: bool,
    #[command(flatten)]
    options: ContainerOptions,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image
    image: String,
    /// The name of the new one
    new: String,
    /// The command and its arguments, if not the image's own
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Optimize {
    pub(crate) async fn run(self, context: &mut Context) -> Outcome {
        let target = super::manifest::name(&self.new)?;
        if self.options.rootfs {
            return Err(Failure::new("a folder has no layers: give an image and not --rootfs"));
        }
        let mut request = self.options.request(&self.image, self.command.clone())?;
        prepare(context, &self.options, &self.image, &mut request).await?;
        let source = context.image(&self.image).await?.name;
        let workload = context.workload.clone();
        let created = workload.create(request).await?;
        let opened = self.look_on(&workload, &created).await;
        discard(&workload, &created).await;
        let opened = opened?;
        eprintln!("{} files were opened", opened.len());
        if let Some(file) = &self.record_out {
            write_record(file, &opened)?;
        }
        let format = if self.zstdchunked { Format::Zstd } else { Format::Gzip };
        let first = opened.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
        let conversion = Conversion {
            layers: Layers::Tabled(Making { first, ..Making::new(format) }),
            types: if self.oci { Types::Oci } else { Types::Kept },
            platforms: Platforms::All,
        };
        let made = berth_transfer::convert(&*context.client, context.scope(), &source, &target, &conversion);
        output::line(made.await?.target.digest.as_str())?;
        Ok(0)
    }

    /// Runs the container until it ends or the period does, and answers the files that were opened, in the order in
    /// which that first happened.
    async fn look_on(&self, workload: &Workload, created: &Created) -> Result<Vec<PathBuf>, Failure> {
        let Created { container, definition, rootfs, .. } = created;
        let pid = workload
            .create_task(container, definition, Some(rootfs.clone()), TaskIo::Log)
            .await
            .map_err(|error| Failure::from(error).of_start())?;
        // The process is made and waits: its root is the container's, whichever namespace that is in.
        let root = format!("/proc/{pid}/root");
        let opened = File::open(&root)
            .and_then(Opened::watch)
            .map_err(|error| Failure::new(format!("cannot look on at the files of {root}: {error}")))?;
        let tasks = workload.catalog().tasks(workload.scope());
        let end = awaited(&tasks, &ProcessRef::init(container.id.clone()));
        workload
            .start_task(&container.id, definition)
            .await
            .map_err(|error| Failure::from(error).of_start())?;
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let until = Instant::now() + Duration::from_secs(self.period);
        let looking = tokio::task::spawn_blocking(move || {
            let (mut paths, mut met, mut last) = (Vec::new(), HashSet::new(), false);
            loop {
                let seen = opened.next(LOOK)?;
                let none = seen.is_empty();
                paths.extend(seen.into_iter().filter(|path| met.insert(path.clone())));
                if last && none {
                    return Ok::<_, std::io::Error>(paths);
                }
                // What was opened before the end is still to be read after it.
                let over = stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty);
                last |= over || Instant::now() >= until;
            }
        });
        let ended = tokio::time::timeout(Duration::from_secs(self.period), end).await;
        drop(stop);
        if ended.is_err() {
            eprintln!("the command still runs after {} s and is ended", self.period);
        }
        let paths =
            looking.await.map_err(|error| Failure::new(format!("looking on ended early: {error}")))?;
        paths.map_err(|error| Failure::new(format!("cannot look on at opened files: {error}")))
    }
}

/// A line of JSON for each path, as `ctr-remote` writes them.
fn write_record(file: &PathBuf, opened: &[PathBuf]) -> Result<(), Failure> {
    let line = |path: &PathBuf| format!("{}\n", json!({ "path": path.to_string_lossy() }));
    let text: String = opened.iter().map(line).collect();
    std::fs::write(file, text)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))
}
