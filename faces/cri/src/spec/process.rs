//! What runs, where, with which environment, as whom.

use berth_oci::runtime::{Process, Spec, User, default};
use berth_types::{Error, Result};

use super::Inputs;

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let Inputs { config, image, user, pod, .. } = inputs;
    let process = spec.process.get_or_insert_with(Process::default);
    process.args = arguments(inputs)?;
    process.cwd = [&config.working_dir, &image.process.working_dir]
        .into_iter()
        .find(|folder| !folder.is_empty())
        .cloned()
        .unwrap_or_else(|| "/".to_owned());
    if !process.cwd.starts_with('/') {
        process.cwd.insert(0, '/');
    }
    process.terminal = config.tty;

    let mut env = std::mem::take(&mut process.env);
    set(&mut env, default::PATH_ENV);
    if config.tty {
        set(&mut env, "TERM=xterm");
    }
    set(&mut env, &format!("HOSTNAME={}", pod.hostname()));
    image.process.env.iter().for_each(|pair| set(&mut env, pair));
    for pair in &config.envs {
        let value = String::from_utf8(pair.value.clone()).map_err(|_| {
            Error::invalid_argument(format!("the value of environment variable {} is not UTF-8", pair.key))
        })?;
        if pair.key.is_empty() || pair.key.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::invalid_argument(format!("{:?} cannot be an environment variable", pair.key)));
        }
        set(&mut env, &format!("{}={value}", pair.key));
    }
    process.env = env;

    process.user = User {
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.groups.clone(),
        umask: process.user.umask,
        ..User::default()
    };
    let security = inputs.security();
    process.no_new_privileges = security.no_new_privs;
    Ok(())
}

/// The command of the request, or the image's where the request has none. The image's arguments go with the image's
/// command.
fn arguments(inputs: &Inputs<'_>) -> Result<Vec<String>> {
    let Inputs { config, image, .. } = inputs;
    let (mut command, mut arguments) = (config.command.clone(), config.args.clone());
    if command.is_empty() {
        if arguments.is_empty() {
            arguments = image.process.cmd.clone().unwrap_or_default();
        }
        command = image.process.entrypoint.clone().unwrap_or_default();
    }
    command.extend(arguments);
    if command.is_empty() {
        return Err(Error::invalid_argument("no command specified, and the image has none"));
    }
    Ok(command)
}

/// Sets `NAME=VALUE`, over a value that was there.
fn set(env: &mut Vec<String>, pair: &str) {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    let is_same = |known: &String| known.split_once('=').map_or(known.as_str(), |(name, _)| name) == name;
    match env.iter_mut().find(|known| is_same(known)) {
        Some(known) => pair.clone_into(known),
        None => env.push(pair.to_owned()),
    }
}
