//! The filter of system calls.

use std::path::Path;

use berth_oci::runtime::{Capabilities, Seccomp, default_seccomp};
use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Result};
use proto::security_profile::ProfileType;

/// The longest profile, in bytes.
const MAX_SIZE: u64 = 4 << 20;

/// The filter that was asked for; `unset` is the configured one of containers that ask for none.
pub(super) fn of(
    security: &proto::LinuxContainerSecurityContext,
    unset: Option<&str>,
    capabilities: &Capabilities,
) -> Result<Option<Seccomp>> {
    if security.privileged {
        return Ok(None);
    }
    if let Some(profile) = &security.seccomp {
        return match profile.profile_type() {
            ProfileType::Unconfined => Ok(None),
            ProfileType::RuntimeDefault => Ok(Some(default_seccomp(Some(capabilities)))),
            ProfileType::Localhost => read(Path::new(&profile.localhost_ref)).map(Some),
        };
    }
    #[expect(deprecated, reason = "older kubelets say it so")]
    let old = security.seccomp_profile_path.as_str();
    match if old.is_empty() { unset.unwrap_or_default() } else { old } {
        "" | "unconfined" => Ok(None),
        "runtime/default" | "docker/default" => Ok(Some(default_seccomp(Some(capabilities)))),
        other => match other.strip_prefix("localhost/") {
            Some(path) => read(Path::new(path)).map(Some),
            None => Err(Error::invalid_argument(format!(
                "{other:?} is no seccomp profile: runtime/default, unconfined and localhost/PATH are known"
            ))),
        },
    }
}

fn read(path: &Path) -> Result<Seccomp> {
    let at = path.display();
    let failed = |error| Error::io(format!("cannot read the seccomp profile {at}"), error);
    let metadata = std::fs::metadata(path).map_err(failed)?;
    // A fifo would keep whoever reads it waiting.
    if !metadata.is_file() {
        return Err(Error::invalid_argument(format!("the seccomp profile {at} is no regular file")));
    }
    let size = metadata.len();
    if size > MAX_SIZE {
        return Err(Error::resource_exhausted(format!("the seccomp profile {at} has {size} bytes")));
    }
    let text = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::invalid_argument(format!("the seccomp profile {at} is not valid")).caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_is_no_regular_file_is_refused_and_named() {
        let error = read(Path::new("/dev/null")).unwrap_err();
        assert!(error.message().contains("/dev/null is no regular file"), "{error}");
    }
}
