//! An adjustment, carried out on the document that a low-level runtime is given.
//!
//! The CDI devices of the adjustment are left to the caller, who knows the machine's configuration: they have to be
//! injected before.

mod linux;
mod resources;

pub use resources::apply as apply_resources;

use std::collections::BTreeMap;

use berth_oci::runtime::{Hook, Hooks, Linux, Mount, Process, Rlimit, Spec};

use crate::merge::removal;
use crate::proto;

/// A wish that no document can express.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// A number that this version has no name for.
    #[error("an NRI plugin asked for {what} {number}, which NRI 0.12 does not define")]
    Number {
        /// What it is a number of.
        what: &'static str,
        /// The number.
        number: i32,
    },
    /// A namespace of a kind that Linux does not have.
    #[error("an NRI plugin asked for a namespace of the kind {0:?}, which does not exist")]
    Namespace(String),
    /// A class of block I/O: a name for limits that a file of goresctrl's has, which is not read here.
    #[error(
        "an NRI plugin asked for the class {0:?} of block I/O, and there is no class: ask for limits instead"
    )]
    BlockIo(String),
}

/// Changes the document as plugins asked, but for devices of the Container Device Interface, which go in before.
pub fn apply(spec: &mut Spec, adjustment: &proto::ContainerAdjustment) -> Result<(), ApplyError> {
    let proto::ContainerAdjustment { annotations, mounts, env, hooks, linux, rlimits, cdi_devices: _, args } =
        adjustment;
    change(&mut spec.annotations, annotations, Clone::clone);
    if !env.is_empty() || !args.is_empty() || !rlimits.is_empty() {
        apply_process(spec.process.get_or_insert_default(), env, args, rlimits);
    }
    if let Some(hooks) = hooks {
        apply_hooks(spec.hooks.get_or_insert_default(), hooks);
    }
    if let Some(linux) = linux {
        linux::apply(spec, linux)?;
    }
    apply_mounts(spec, mounts);
    Ok(())
}

/// Removals first: an adjustment that has both takes the old thing away and sets its own.
fn change<A, B>(map: &mut BTreeMap<String, A>, asked: &BTreeMap<String, B>, value: impl Fn(&B) -> A) {
    for name in asked.keys().filter_map(|name| removal(name)) {
        map.remove(name);
    }
    for (name, asked) in asked.iter().filter(|(name, _)| removal(name).is_none()) {
        map.insert(name.clone(), value(asked));
    }
}

fn apply_process(
    process: &mut Process,
    env: &[proto::KeyValue],
    args: &[String],
    rlimits: &[proto::PosixRlimit],
) {
    for proto::KeyValue { key, value } in env {
        let name = removal(key).unwrap_or(key);
        let at = process.env.iter().position(|line| line.split('=').next() == Some(name));
        let set = removal(key).is_none().then(|| format!("{key}={value}"));
        match (at, set) {
            (Some(at), Some(line)) => process.env[at] = line,
            (Some(at), None) => drop(process.env.remove(at)),
            (None, Some(line)) => process.env.push(line),
            (None, None) => {}
        }
    }
    if !args.is_empty() {
        process.args = args.to_vec();
    }
    for proto::PosixRlimit { r#type, hard, soft } in rlimits {
        process.rlimits.retain(|other| other.kind != *r#type);
        process.rlimits.push(Rlimit { kind: r#type.clone(), hard: *hard, soft: *soft });
    }
}

fn apply_hooks(into: &mut Hooks, asked: &proto::Hooks) {
    let proto::Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } =
        asked;
    into.prestart.extend(prestart.iter().map(hook));
    into.create_runtime.extend(create_runtime.iter().map(hook));
    into.create_container.extend(create_container.iter().map(hook));
    into.start_container.extend(start_container.iter().map(hook));
    into.poststart.extend(poststart.iter().map(hook));
    into.poststop.extend(poststop.iter().map(hook));
}

fn hook(hook: &proto::Hook) -> Hook {
    Hook {
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout.map(|timeout| timeout.value),
    }
}

/// What is mounted over comes first. A mount that is to pass mounts on makes the root do so too.
fn apply_mounts(spec: &mut Spec, asked: &[proto::Mount]) {
    if asked.is_empty() {
        return;
    }
    for proto::Mount { destination, r#type, source, options } in asked {
        let target = removal(destination).unwrap_or(destination);
        spec.mounts.retain(|mount| mount.destination != target);
        if removal(destination).is_some() {
            continue;
        }
        propagate(spec.linux.get_or_insert_default(), options);
        spec.mounts.push(Mount {
            destination: destination.clone(),
            kind: r#type.clone(),
            source: source.clone(),
            options: options.clone(),
            ..Mount::default()
        });
    }
    spec.mounts.sort_by(|a, b| (depth(a), &a.destination).cmp(&(depth(b), &b.destination)));
}

fn depth(mount: &Mount) -> usize {
    mount.destination.split('/').filter(|part| !matches!(*part, "" | ".")).count()
}

fn propagate(linux: &mut Linux, options: &[String]) {
    let last = options.iter().rfind(|option| matches!(option.as_str(), "rprivate" | "rshared" | "rslave"));
    match last.map(String::as_str) {
        Some("rshared") => "rshared".clone_into(&mut linux.rootfs_propagation),
        Some("rslave") if linux.rootfs_propagation != "rshared" => {
            "rslave".clone_into(&mut linux.rootfs_propagation);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
