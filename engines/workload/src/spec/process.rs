//! The process of a container, and those that are added to it.

use berth_oci::runtime::{Process, Rlimit, Spec, User, default};
use berth_types::{Error, Result};

use super::{INIT, Inputs, capabilities};
use crate::parse::Ulimit;
use berth_rootfs::Identity;

/// What `exec` may say beside the command.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=VALUE` over the container's.
    pub env: Vec<String>,
    /// Where; empty for the container's.
    pub cwd: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has every capability.
    pub privileged: bool,
    /// Who, when it is not the container's user.
    pub user: Option<Identity>,
}

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let definition = inputs.definition;
    let (config, host) = (&definition.config, &definition.host);
    let Some(process) = &mut spec.process else { return Ok(()) };
    let command = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned();
    process.args = if host.init == Some(true) {
        [INIT.to_owned(), "--".to_owned()].into_iter().chain(command).collect()
    } else {
        command.collect()
    };
    let first = if host.init == Some(true) { 2 } else { 0 };
    if process.args.get(first).is_none_or(String::is_empty) {
        return Err(Error::invalid_argument(
            "no command specified: the image has none, so give one after its name",
        ));
    }
    process.terminal = config.tty;
    process.cwd = cwd(&config.working_dir)?;
    process.env = environment(&config.env, &config.hostname, config.tty, &definition.user.home);
    process.user = user(&definition.user, host.umask);
    process.no_new_privileges = false;
    process.rlimits = rlimits(&host.ulimits);
    process.capabilities = Some(capabilities::sets(host.privileged, &host.cap_add, &host.cap_drop)?);
    process.oom_score_adj = Some(host.oom_score_adj).filter(|score| *score != 0);
    Ok(())
}

/// The environment: what Docker always sets, then the container's own, which wins.
pub fn environment(own: &[String], hostname: &str, tty: bool, home: &str) -> Vec<String> {
    let mut env = vec![default::PATH_ENV.to_owned()];
    if !hostname.is_empty() {
        env.push(format!("HOSTNAME={hostname}"));
    }
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    merge(&mut env, own);
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = if home.is_empty() { "/" } else { home };
        env.push(format!("HOME={home}"));
    }
    env
}

/// Sets variables, each once: a later one replaces an earlier one in its place.
pub(crate) fn merge(env: &mut Vec<String>, more: &[String]) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in more {
        match env.iter_mut().find(|known| name(known) == name(entry)) {
            Some(known) => known.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
}

/// The working directory. `/proc/self/fd/…` would be a folder of the runtime, left open by accident.
fn cwd(text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok("/".to_owned());
    }
    if !text.starts_with('/') {
        return Err(Error::invalid_argument(format!(
            "the working directory '{text}' is invalid, it needs to be an absolute path"
        )));
    }
    let clean = crate::parse::clean(std::path::Path::new(text));
    if clean.starts_with("/proc/self") || clean.starts_with("/proc/thread-self") {
        return Err(Error::invalid_argument(format!(
            "the working directory '{text}' leads out of the container"
        )));
    }
    Ok(clean.to_string_lossy().into_owned())
}

fn user(identity: &Identity, umask: Option<u32>) -> User {
    User {
        uid: identity.uid,
        gid: identity.gid,
        umask,
        additional_gids: identity.groups.clone(),
        username: String::new(),
    }
}

fn rlimits(limits: &[Ulimit]) -> Vec<Rlimit> {
    // RLIM_INFINITY is the largest number.
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let one = |limit: &Ulimit| Rlimit {
        kind: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
        hard: value(limit.hard),
        soft: value(limit.soft),
    };
    limits.iter().map(one).collect()
}

/// The process of an `exec`: the container's with another command.
pub fn exec_process(container: &Spec, options: &ExecOptions) -> Result<Process> {
    let mut process = container.process.clone().unwrap_or_default();
    if options.args.is_empty() {
        return Err(Error::invalid_argument("no command to execute"));
    }
    process.args.clone_from(&options.args);
    process.terminal = options.tty;
    process.console_size = None;
    if options.tty && !process.env.iter().any(|entry| entry.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    if let Some(identity) = &options.user {
        process.user = user(identity, process.user.umask);
        if !options.env.iter().any(|entry| entry.starts_with("HOME=")) && !identity.home.is_empty() {
            merge(&mut process.env, &[format!("HOME={}", identity.home)]);
        }
    }
    merge(&mut process.env, &options.env);
    if !options.cwd.is_empty() {
        process.cwd = cwd(&options.cwd)?;
    }
    if options.privileged {
        process.capabilities = Some(capabilities::sets(true, &[], &[])?);
        process.apparmor_profile = String::new();
    }
    Ok(process)
}
