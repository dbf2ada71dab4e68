//! Who a container runs as.

use berth_proto::runtime::v1 as proto;
use berth_rootfs::{Accounts, Identity};
use berth_types::{Error, Result};
use proto::SupplementalGroupsPolicy;

/// A user as it was asked for: `USER` or `USER:GROUP`.
pub(super) fn wanted(security: &proto::LinuxContainerSecurityContext, image: &str) -> Result<String> {
    let number = |what: &str, value: &Option<proto::Int64Value>| {
        let value = value.as_ref().map(|value| value.value);
        match value {
            Some(value) if !(0..=i64::from(i32::MAX)).contains(&value) => Err(Error::invalid_argument(
                format!("{what} must be in range 0-{}, and {value} is not", i32::MAX),
            )),
            value => Ok(value.map(|value| value.to_string())),
        }
    };
    let group = number("run_as_group", &security.run_as_group)?;
    let user = match number("run_as_user", &security.run_as_user)? {
        _ if !security.run_as_username.is_empty() => Some(security.run_as_username.clone()),
        user => user,
    };
    match (user, group) {
        (None, None) => Ok(image.to_owned()),
        (None, Some(group)) => {
            Err(Error::invalid_argument(format!("user group {group:?} is specified without user")))
        }
        (Some(user), None) => Ok(user),
        (Some(user), Some(group)) => Ok(format!("{user}:{group}")),
    }
}

/// Finds it among the users of the image, with the groups that the policy gives it.
pub(super) fn resolve(
    wanted: &str,
    security: &proto::LinuxContainerSecurityContext,
    accounts: &Accounts,
) -> Result<Identity> {
    let mut identity = accounts.find(wanted, &[])?;
    let name = wanted.split(':').next().filter(|name| !name.is_empty()).unwrap_or("0");
    identity.groups = vec![identity.gid];
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge {
        identity.groups.extend(accounts.member_of(name)?);
    }
    for group in &security.supplemental_groups {
        let group =
            u32::try_from(*group).ok().filter(|group| i32::try_from(*group).is_ok()).ok_or_else(|| {
                Error::invalid_argument(format!("supplemental group {group} is not in range 0-{}", i32::MAX))
            })?;
        identity.groups.push(group);
    }
    let mut seen = std::collections::BTreeSet::new();
    identity.groups.retain(|group| seen.insert(*group));
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:1000:\nstaff:x:50000:web\n";

    fn security(user: Option<i64>, group: Option<i64>) -> proto::LinuxContainerSecurityContext {
        let value = |value: Option<i64>| value.map(|value| proto::Int64Value { value });
        proto::LinuxContainerSecurityContext {
            run_as_user: value(user),
            run_as_group: value(group),
            supplemental_groups: vec![60000],
            ..Default::default()
        }
    }

    fn groups(user: &str, security: &proto::LinuxContainerSecurityContext) -> Vec<u32> {
        resolve(user, security, &Accounts::new(PASSWD, GROUP)).unwrap().groups
    }

    #[test]
    fn the_request_outranks_the_image() {
        let text = |user, group| wanted(&security(user, group), "web:staff");
        assert_eq!(text(None, None).unwrap(), "web:staff");
        assert_eq!(text(Some(7), None).unwrap(), "7");
        assert_eq!(text(Some(7), Some(8)).unwrap(), "7:8");
        assert!(text(None, Some(8)).unwrap_err().message().contains("without user"));
        assert!(text(Some(-1), None).is_err() && text(Some(1 << 32), None).is_err());
        assert!(text(Some(1), Some(1 << 31)).is_err());
    }

    #[test]
    fn groups_of_the_image_come_with_the_merge_policy_alone() {
        let mut security = security(Some(1000), Some(7));
        assert_eq!(groups("1000:7", &security), [7, 50000, 60000]);
        assert_eq!(groups("web", &security), [1000, 50000, 60000]);
        security.supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
        assert_eq!(groups("1000:7", &security), [7, 60000]);
        security.supplemental_groups = vec![-1];
        assert!(resolve("web", &security, &Accounts::new(PASSWD, GROUP)).is_err());
    }
}
