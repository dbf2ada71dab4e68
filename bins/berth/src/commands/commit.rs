//! `commit`: an image of what a container changed.

use std::time::SystemTime;

use berth_oci::image::{PlatformMatch, ProcessConfig};
use berth_transfer::{Commit as Changes, commit, load};
use berth_types::{ImageName, ProcessStatus};
use clap::Args;

use super::manifest;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, progress};

/// Flags of `commit`.
#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Who made it
    #[arg(short, long)]
    author: Option<String>,
    /// A line of a Dockerfile to apply: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL, EXPOSE, VOLUME, STOPSIGNAL
    #[arg(short, long)]
    change: Vec<String>,
    /// Why
    #[arg(short, long)]
    message: Option<String>,
    /// Freeze the container meanwhile
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    /// Container
    container: String,
    /// REPOSITORY[:TAG]
    name: Option<String>,
}

impl Commit {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        if found.container.snapshot_key.is_empty() {
            return Err(Failure::new(format!(
                "container {} has no image: it runs in a folder",
                found.name()
            )));
        }
        let base = context.image(&found.container.image).await?;
        let platform = PlatformMatch::only(&context.workload.settings().platform);
        let content = context.client.content(context.scope());
        let base = load(&*content, &base.target, &platform).await?;
        let mut process = process_of(&found.definition()?, &base.config.config);
        for line in &self.change {
            change(&mut process, line)?;
        }
        let name: Option<ImageName> = match &self.name {
            Some(name) => Some(manifest::name(name)?),
            None => None,
        };
        let request = Changes {
            base,
            snapshotter: found.container.snapshotter.parse()?,
            snapshot: found.container.snapshot_key.parse()?,
            config: process,
            author: self.author.clone(),
            comment: self.message.clone(),
            created_by: found.definition()?.config.cmd.map(|words| words.join(" ")),
            created: SystemTime::now(),
            name,
        };
        let running = context.workload.task_state(&found.container.id).await?;
        let freeze = self.pause && running.is_some_and(|state| state.status == ProcessStatus::Running);
        if freeze {
            context.workload.pause(&found).await?;
        }
        let spinner = progress::spinner("committing");
        let target = commit(&*context.client, context.scope(), request).await;
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        if freeze {
            context.workload.unpause(&found).await?;
        }
        output::line(target?.digest.as_str())?;
        Ok(0)
    }
}

/// What the container runs, as an image says it.
fn process_of(definition: &berth_workload::Definition, image: &ProcessConfig) -> ProcessConfig {
    let config = &definition.config;
    ProcessConfig {
        user: config.user.clone(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: Some(config.stop_signal.clone()).filter(|signal| !signal.is_empty()),
        exposed_ports: config.exposed_ports.clone(),
        volumes: image.volumes.clone(),
        other: image.other.clone(),
    }
}

/// Applies a line of a Dockerfile.
pub(crate) fn change(process: &mut ProcessConfig, line: &str) -> Result<(), Failure> {
    let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let rest = rest.trim();
    let words = || -> Vec<String> {
        serde_json::from_str(rest)
            .unwrap_or_else(|_| vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()])
    };
    let wrong = || Failure::new(format!("invalid change {line:?}"));
    match word.to_ascii_uppercase().as_str() {
        "CMD" => process.cmd = Some(words()),
        "ENTRYPOINT" => process.entrypoint = Some(words()),
        "USER" => rest.clone_into(&mut process.user),
        "WORKDIR" => rest.clone_into(&mut process.working_dir),
        "STOPSIGNAL" => process.stop_signal = Some(rest.to_owned()),
        "ENV" => {
            let (key, value) = rest.split_once('=').or_else(|| rest.split_once(' ')).ok_or_else(wrong)?;
            process.env.retain(|entry| entry.split('=').next() != Some(key));
            process.env.push(format!("{key}={}", value.trim_matches('"')));
        }
        "LABEL" => {
            let (key, value) = rest.split_once('=').ok_or_else(wrong)?;
            process.labels.insert(key.trim_matches('"').to_owned(), value.trim_matches('"').to_owned());
        }
        "EXPOSE" => {
            let port = if rest.contains('/') { rest.to_owned() } else { format!("{rest}/tcp") };
            process.exposed_ports.insert(port, serde_json::json!({}));
        }
        "VOLUME" => {
            let paths: Vec<String> = serde_json::from_str(rest).unwrap_or_else(|_| vec![rest.to_owned()]);
            process.volumes.extend(paths.into_iter().map(|path| (path, serde_json::json!({}))));
        }
        other => return Err(Failure::new(format!("{other} is not a valid change command"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_dockerfile_change_what_runs() {
        let mut process = ProcessConfig::default();
        for line in
            ["CMD [\"a\",\"b c\"]", "entrypoint run it", "ENV A=1", "ENV A 2", "LABEL x=\"y\"", "EXPOSE 80"]
        {
            change(&mut process, line).unwrap();
        }
        assert_eq!(process.cmd.unwrap(), ["a", "b c"]);
        assert_eq!(process.entrypoint.unwrap(), ["/bin/sh", "-c", "run it"]);
        assert_eq!(process.env, ["A=2"]);
        assert_eq!(process.labels["x"], "y");
        assert!(process.exposed_ports.contains_key("80/tcp"));
        assert!(change(&mut ProcessConfig::default(), "RUN x").is_err());
        assert!(change(&mut ProcessConfig::default(), "LABEL x").is_err());
    }
}
