//! The built-in validator: what no plugin may adjust on this machine, and which plugins a container needs.

use berth_types::{Error, Result};
use serde::Deserialize;

use crate::proto::security_profile::ProfileType;
use crate::proto::{Field, FieldOwners, PodSandbox, SecurityProfile, ValidateContainerAdjustmentRequest};

/// The annotation of a pod that names more plugins which its containers need.
const REQUIRED: &str = "required-plugins.noderesource.dev";
/// What is read of an annotation.
const MAX_ANNOTATION: usize = 4096;

/// What is refused: containerd's table `default_validator`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidatorConfig {
    /// Whether there is a validator at all.
    pub enable: bool,
    /// Whether no plugin may add hooks.
    pub reject_oci_hook_adjustment: bool,
    /// Whether none may replace the runtime's own seccomp profile.
    pub reject_runtime_default_seccomp_adjustment: bool,
    /// Whether none may give a seccomp profile to a container that has none.
    pub reject_unconfined_seccomp_adjustment: bool,
    /// Whether none may replace a seccomp profile that the pod brought.
    pub reject_custom_seccomp_adjustment: bool,
    /// Whether none may change namespaces.
    pub reject_namespace_adjustment: bool,
    /// Whether none may change kernel parameters.
    pub reject_sysctl_adjustment: bool,
    /// Plugins without which no container is made, as `name` or `NN-name`.
    pub required_plugins: Vec<String>,
    /// The annotation of a pod with which its containers do without required plugins; none when empty.
    pub tolerate_missing_plugins_annotation: String,
}

impl ValidatorConfig {
    /// Looks at what plugins made of a container.
    pub(crate) fn validate(&self, request: &ValidateContainerAdjustmentRequest) -> Result<()> {
        if !self.enable {
            return Ok(());
        }
        let none = FieldOwners::default();
        let container = request.container.as_ref().map_or("", |container| &container.id);
        let owners = request.owners.as_ref().and_then(|owners| owners.owners.get(container)).unwrap_or(&none);
        self.validate_hooks(owners)?;
        self.validate_seccomp(request, owners)?;
        self.validate_entries(owners)?;
        self.validate_required(request)
    }

    fn validate_hooks(&self, owners: &FieldOwners) -> Result<()> {
        match owners.simple.get(&(Field::OciHooks as i32)) {
            Some(plugins) if self.reject_oci_hook_adjustment => Err(refused(plugins, "add OCI hooks")),
            _ => Ok(()),
        }
    }

    fn validate_seccomp(
        &self,
        request: &ValidateContainerAdjustmentRequest,
        owners: &FieldOwners,
    ) -> Result<()> {
        let Some(plugin) = owners.simple.get(&(Field::SeccompPolicy as i32)) else { return Ok(()) };
        let linux = request.container.as_ref().and_then(|container| container.linux.as_ref());
        let profile = linux.and_then(|linux| linux.seccomp_profile.as_ref());
        let (refuse, whose) = match profile.map_or(ProfileType::Unconfined, SecurityProfile::profile_type) {
            ProfileType::Unconfined => (
                self.reject_unconfined_seccomp_adjustment,
                "give a seccomp policy to an unconfined container",
            ),
            ProfileType::RuntimeDefault => (
                self.reject_runtime_default_seccomp_adjustment,
                "replace the runtime's default seccomp policy",
            ),
            ProfileType::Localhost => {
                (self.reject_custom_seccomp_adjustment, "replace a custom seccomp policy")
            }
        };
        if refuse { Err(refused(plugin, whose)) } else { Ok(()) }
    }

    fn validate_entries(&self, owners: &FieldOwners) -> Result<()> {
        for (refuse, field, what) in [
            (self.reject_namespace_adjustment, Field::Namespace, "change the namespace"),
            (self.reject_sysctl_adjustment, Field::Sysctl, "change the sysctl"),
        ] {
            let entry =
                owners.compound.get(&(field as i32)).and_then(|entries| entries.owners.first_key_value());
            if let Some((name, plugin)) = entry.filter(|_| refuse) {
                return Err(refused(plugin, &format!("{what} {name:?}")));
            }
        }
        Ok(())
    }

    fn validate_required(&self, request: &ValidateContainerAdjustmentRequest) -> Result<()> {
        let container = request.container.as_ref().map_or("", |container| &container.name);
        let pod = request.pod.as_ref();
        if let Some((key, value)) = annotation(pod, &self.tolerate_missing_plugins_annotation, container)
            && boolean(value).ok_or_else(|| unreadable(&key, value, "a boolean"))?
        {
            return Ok(());
        }
        let mut required = self.required_plugins.clone();
        if let Some((key, value)) = annotation(pod, REQUIRED, container) {
            required.extend(list(value).ok_or_else(|| unreadable(&key, value, "a list of names"))?);
        }
        required.retain(|name| {
            let is = |index: &str, base: &str| name == base || *name == format!("{index}-{base}");
            !request.plugins.iter().any(|plugin| is(&plugin.index, &plugin.name))
        });
        if required.is_empty() {
            return Ok(());
        }
        let names = required.join(", ");
        Err(Error::failed_precondition(format!(
            "required NRI plugins are not there: {names}; start them, or have the pod say that it does without"
        )))
    }
}

fn refused(plugins: &str, what: &str) -> Error {
    let text =
        format!("NRI plugin {plugins} may not {what}: the default validator is configured to refuse it");
    Error::permission_denied(text)
}

fn unreadable(key: &str, value: &str, what: &str) -> Error {
    Error::invalid_argument(format!("annotation {key} is {value:?}, which is not {what}"))
}

/// The annotation for a container: its own, else the pod's.
fn annotation<'a>(pod: Option<&'a PodSandbox>, key: &str, container: &str) -> Option<(String, &'a str)> {
    let pod = pod.filter(|_| !key.is_empty())?;
    let keys = [format!("{key}/container.{container}"), format!("{key}/pod"), key.to_owned()];
    keys.into_iter().find_map(|key| {
        let value = pod.annotations.get(&key)?;
        Some((key, value.as_str()))
    })
}

/// The words that Go's `strconv.ParseBool` takes.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a YAML list of plain names, in brackets or with a dash before each.
fn list(value: &str) -> Option<Vec<String>> {
    let value = value.trim();
    if value.len() > MAX_ANNOTATION {
        return None;
    }
    let items: Option<Vec<&str>> = match value.strip_prefix('[') {
        Some(rest) => Some(rest.strip_suffix(']')?.split(',').collect()),
        None => value.lines().map(|line| line.trim().strip_prefix('-')).collect(),
    };
    let name = |item: &str| {
        let item = item.trim();
        let quoted = |mark| item.strip_prefix(mark).and_then(|item| item.strip_suffix(mark));
        quoted('"').or_else(|| quoted('\'')).unwrap_or(item).to_owned()
    };
    Some(items?.into_iter().map(name).filter(|name| !name.is_empty()).collect())
}

#[cfg(test)]
mod tests;
