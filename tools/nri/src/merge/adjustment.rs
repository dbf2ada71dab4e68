//! What a container that is being made becomes.

use super::{MergeError, Updates, entries, linux};
use crate::owners::{Claim, Owners};
use crate::proto::{
    Container, ContainerAdjustment, ContainerEviction, CreateContainerRequest, CreateContainerResponse,
    Field, Hooks, KeyValue, Mount, PodSandbox,
};

/// One container's making: what the next plugin is shown, and what those before it asked for.
#[derive(Debug)]
pub(crate) struct Creation {
    pub(crate) request: CreateContainerRequest,
    pub(crate) adjustment: ContainerAdjustment,
    pub(crate) updates: Updates,
    pub(crate) evictions: Vec<ContainerEviction>,
    pub(crate) owners: Owners,
}

impl Creation {
    pub(crate) fn new(pod: PodSandbox, container: Container) -> Self {
        Self {
            updates: Updates::while_making(&container.id),
            request: CreateContainerRequest { pod: Some(pod), container: Some(container) },
            adjustment: ContainerAdjustment::default(),
            evictions: Vec::new(),
            owners: Owners::default(),
        }
    }

    /// Adds one plugin's answer.
    pub(crate) fn merge(&mut self, plugin: &str, answer: CreateContainerResponse) -> Result<(), MergeError> {
        let CreateContainerResponse { adjust, update, evict } = answer;
        if let Some(adjust) = adjust {
            self.adjust(plugin, adjust)?;
        }
        self.updates.merge(&mut self.owners, plugin, update)?;
        self.evictions.extend(evict);
        Ok(())
    }

    fn adjust(&mut self, plugin: &str, asked: ContainerAdjustment) -> Result<(), MergeError> {
        let ContainerAdjustment { annotations, mounts, env, hooks, linux, rlimits, cdi_devices, args } =
            asked;
        let Self { request, adjustment, owners, .. } = self;
        let seen = request.container.get_or_insert_default();
        let container = seen.id.clone();
        let by = Claim { container: &container, plugin };
        let field = Field::Annotations;
        entries::map(owners, by, field, annotations, &mut adjustment.annotations, &mut seen.annotations)?;
        merge_mounts(owners, by, mounts, adjustment, seen)?;
        merge_env(owners, by, env, adjustment, seen)?;
        merge_args(owners, by, args, adjustment, seen)?;
        if let Some(hooks) = hooks {
            merge_hooks(owners, by, hooks, adjustment, seen);
        }
        if let Some(linux) = linux {
            linux::merge(owners, by, linux, adjustment, seen)?;
        }
        for limit in rlimits {
            owners.claim_entry(by, Field::Rlimits, &limit.r#type)?;
            seen.rlimits.retain(|other| other.r#type != limit.r#type);
            seen.rlimits.push(limit.clone());
            adjustment.rlimits.push(limit);
        }
        for device in cdi_devices {
            owners.claim_entry(by, Field::CdiDevices, &device.name)?;
            adjustment.cdi_devices.push(device);
        }
        Ok(())
    }
}

fn merge_mounts(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: Vec<Mount>,
    adjustment: &mut ContainerAdjustment,
    seen: &mut Container,
) -> Result<(), MergeError> {
    let wishes = entries::list(owners, by, Field::Mounts, asked, &mut adjustment.mounts)?;
    seen.mounts.retain(|mount| !wishes.names.contains(&mount.destination));
    seen.mounts.extend(wishes.set);
    Ok(())
}

fn merge_env(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: Vec<KeyValue>,
    adjustment: &mut ContainerAdjustment,
    seen: &mut Container,
) -> Result<(), MergeError> {
    let wishes = entries::list(owners, by, Field::Env, asked, &mut adjustment.env)?;
    seen.env.retain(|line| !wishes.names.contains(line.split('=').next().unwrap_or_default()));
    seen.env.extend(wishes.set.iter().map(|KeyValue { key, value }| format!("{key}={value}")));
    Ok(())
}

/// An empty first argument says that another plugin's arguments are to be replaced.
fn merge_args(
    owners: &mut Owners,
    by: Claim<'_>,
    mut asked: Vec<String>,
    adjustment: &mut ContainerAdjustment,
    seen: &mut Container,
) -> Result<(), MergeError> {
    let Some(first) = asked.first() else { return Ok(()) };
    if first.is_empty() {
        owners.clear(by, Field::Args);
        asked.remove(0);
    }
    owners.claim(by, Field::Args)?;
    seen.args.clone_from(&asked);
    adjustment.args = asked;
    Ok(())
}

/// Hooks of all plugins run, one after the other.
fn merge_hooks(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: Hooks,
    adjustment: &mut ContainerAdjustment,
    seen: &mut Container,
) {
    if asked == Hooks::default() {
        return;
    }
    owners.share(by, Field::OciHooks);
    for into in [&mut adjustment.hooks, &mut seen.hooks] {
        let into = into.get_or_insert_default();
        let Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } =
            asked.clone();
        into.prestart.extend(prestart);
        into.create_runtime.extend(create_runtime);
        into.create_container.extend(create_container);
        into.start_container.extend(start_container);
        into.poststart.extend(poststart);
        into.poststop.extend(poststop);
    }
}
