//! Devices and what a container may do with them.

use berth_cdi::DeviceName;
use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// A device of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// The device on the host, or a folder of devices.
    #[serde(rename = "PathOnHost")]
    pub host: String,
    /// Its path in the container.
    #[serde(rename = "PathInContainer")]
    pub container: String,
    /// Some of `r`, `w`, `m`.
    #[serde(rename = "CgroupPermissions")]
    pub permissions: String,
}

/// Devices that their vendors describe (the Container Device Interface), by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CdiRequest {
    /// `cdi`, as in Docker's API.
    pub driver: String,
    /// The names, such as `vendor.com/gpu=0`.
    #[serde(rename = "DeviceIDs")]
    pub names: Vec<String>,
}

/// The driver of such devices.
const CDI: &str = "cdi";

/// A rule for devices by number; none means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// The driver.
    pub major: Option<i64>,
    /// The device.
    pub minor: Option<i64>,
    /// Some of `r`, `w`, `m`.
    pub access: String,
}

/// Devices of the host and devices that vendors describe, apart.
pub fn devices(texts: &[String]) -> Result<(Vec<DeviceRequest>, Vec<CdiRequest>)> {
    let (names, paths): (Vec<&String>, Vec<&String>) =
        texts.iter().partition(|text| text.parse::<DeviceName>().is_ok());
    let paths = paths.into_iter().map(|text| device(text)).collect::<Result<_>>()?;
    let names: Vec<String> = names.into_iter().cloned().collect();
    let requests =
        if names.is_empty() { Vec::new() } else { vec![CdiRequest { driver: CDI.to_owned(), names }] };
    Ok((paths, requests))
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.chars().all(|c| "rwm".contains(c))
}

/// `HOST[:CONTAINER][:PERMISSIONS]`.
pub fn device(text: &str) -> Result<DeviceRequest> {
    let wrong = |why: &str| {
        Error::invalid_argument(format!("invalid device {text:?}: {why} (like /dev/sda:/dev/xvda:rwm)"))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, container] => (host, container, "rwm"),
        [host, container, access] => (host, container, access),
        _ => return Err(wrong("too many colons")),
    };
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(wrong("paths must be absolute"));
    }
    if !is_access(permissions) {
        return Err(wrong("permissions are some of r, w and m"));
    }
    Ok(DeviceRequest {
        host: host.to_owned(),
        container: container.to_owned(),
        permissions: permissions.to_owned(),
    })
}

/// `TYPE MAJOR:MINOR ACCESS` as the cgroup filesystem has it, with `*` for all.
pub fn device_rule(text: &str) -> Result<DeviceRule> {
    let wrong = || Error::invalid_argument(format!("invalid device cgroup rule {text:?} (like 'c 1:* rwm')"));
    let mut parts = text.split(' ');
    let (Some(kind), Some(numbers), Some(access), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| wrong()),
    };
    if !matches!(kind, "a" | "b" | "c") || !is_access(access) {
        return Err(wrong());
    }
    let kind = kind.chars().next().unwrap_or('a');
    Ok(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: access.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_up_to_three_parts() {
        let parts = |text| {
            let device = device(text).unwrap();
            (device.host, device.container, device.permissions)
        };
        let expect = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(parts("/dev/a"), expect("/dev/a", "/dev/a", "rwm"));
        assert_eq!(parts("/dev/a:r"), expect("/dev/a", "/dev/a", "r"));
        assert_eq!(parts("/dev/a:/dev/b:rw"), expect("/dev/a", "/dev/b", "rw"));
        for bad in ["", "dev/a", "/dev/a:b", "/dev/a:/b:x", "/a:/b:r:w"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_vendors_are_told_from_paths() {
        let texts = ["/dev/a:r", "vendor.com/gpu=0", "vendor.com/gpu=1"].map(str::to_owned);
        let (paths, names) = devices(&texts).unwrap();
        assert_eq!((paths.len(), paths[0].host.as_str()), (1, "/dev/a"));
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].names, texts[1..]);
        assert!(devices(&["vendor.com/gpu".to_owned()]).is_err());
    }

    #[test]
    fn a_rule_is_the_kernels() {
        let rule = device_rule("c 1:* rm").unwrap();
        assert_eq!((rule.kind, rule.major, rule.minor, rule.access.as_str()), ('c', Some(1), None, "rm"));
        for bad in ["", "c 1 r", "x 1:1 r", "c 1:1 q", "c 1:1 r m", "c -1:1 r"] {
            assert!(device_rule(bad).is_err(), "{bad}");
        }
    }
}
