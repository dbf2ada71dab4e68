//! `oci-hook`: values of a container's state in the arguments and the environment of a hook.
//!
//! A hook gets the state as JSON on stdin and the arguments that the spec has; a program that wants the container's
//! pid as an argument is called through this: `berthd oci-hook -- /bin/notify --pid {{pid}}`.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

/// The hook's program and its arguments.
#[derive(Args)]
pub(super) struct Options {
    /// The program and its arguments; {{id}}, {{bundle}}, {{rootfs}}, {{pid}}, {{status}} and {{annotation "KEY"}}
    /// become values of the container
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// The state that a hook is given (runtime-spec, runtime.md).
#[derive(Deserialize)]
struct State {
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    pid: i64,
    bundle: PathBuf,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Spec {
    root: Option<Root>,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
}

pub(super) fn run(options: Options) -> Result<()> {
    let state: State = serde_json::from_reader(std::io::stdin()).context("stdin holds no container state")?;
    let path = state.bundle.join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let spec: Spec =
        serde_json::from_slice(&text).with_context(|| format!("{} is no OCI spec", path.display()))?;
    let root = spec.root.map(|root| root.path).unwrap_or_default();

    let words: Vec<String> =
        options.program.iter().map(|word| fill(word, &state, &root)).collect::<Result<_>>()?;
    let mut environment = Vec::new();
    for (name, value) in std::env::vars() {
        environment.push((name, fill(&value, &state, &root)?));
    }
    let (program, arguments) = words.split_first().context("no program")?;
    let error = std::process::Command::new(program).args(arguments).env_clear().envs(environment).exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

/// Replaces every `{{…}}` of a text.
fn fill(text: &str, state: &State, root: &Path) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inner, after) =
            after.split_once("}}").with_context(|| format!("{text:?} has {{{{ without }}}}"))?;
        filled.push_str(before);
        filled.push_str(&value(inner.trim(), state, root)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(call: &str, state: &State, root: &Path) -> Result<String> {
    Ok(match call {
        "id" => state.id.clone(),
        "bundle" => state.bundle.display().to_string(),
        "rootfs" => state.bundle.join(root).display().to_string(),
        "pid" => state.pid.to_string(),
        "status" => state.status.clone(),
        _ => {
            let key = call
                .strip_prefix("annotation")
                .map(str::trim_start)
                .and_then(|key| key.strip_prefix(['"', '`'])?.strip_suffix(['"', '`']));
            let Some(key) = key else {
                bail!(
                    "{{{{{call}}}}} is not known: id, bundle, rootfs, pid, status and annotation \"KEY\" are"
                );
            };
            state.annotations.get(key).cloned().unwrap_or_default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_state_fill_the_words() {
        let state = State {
            id: "c1".into(),
            status: "created".into(),
            pid: 7,
            bundle: "/b".into(),
            annotations: [("a.b".to_owned(), "v".to_owned())].into(),
        };
        let fill = |text| fill(text, &state, Path::new("rootfs"));
        assert_eq!(fill("--pid={{pid}},{{ id }} {{status}}").unwrap(), "--pid=7,c1 created");
        assert_eq!(fill("{{rootfs}}:{{bundle}}").unwrap(), "/b/rootfs:/b");
        assert_eq!(fill("{{annotation \"a.b\"}}{{annotation `none`}}").unwrap(), "v");
        assert_eq!(fill("plain").unwrap(), "plain");
        assert!(fill("{{id").is_err());
        assert!(fill("{{exec \"x\"}}").is_err());
        assert_eq!(super::fill("{{rootfs}}", &state, Path::new("/abs")).unwrap(), "/abs");
    }
}
