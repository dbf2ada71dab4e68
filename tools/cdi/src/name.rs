//! Names of devices.

use std::fmt;
use std::str::FromStr;

/// The annotations that name devices, for runtimes whose clients know no field for them.
const ANNOTATION: &str = "cdi.k8s.io/";

/// A device by its whole name, `VENDOR/CLASS=NAME`. Holding one means that it is well-formed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    kind: String,
    name: String,
}

/// What is no name of a device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no name of a CDI device: {why}; write VENDOR/CLASS=NAME, such as vendor.com/gpu=0")]
pub struct NameError {
    text: String,
    why: &'static str,
}

impl DeviceName {
    /// The vendor and the class, with a slash between.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The device's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One whose parts have been looked at.
    pub(crate) fn of(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned() }
    }
}

impl FromStr for DeviceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = |why| NameError { text: text.to_owned(), why };
        let (kind, name) = text.split_once('=').ok_or_else(|| wrong("there is no ="))?;
        check_kind(kind).map_err(wrong)?;
        check_name(name).map_err(wrong)?;
        Ok(Self::of(kind, name))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

/// The devices that annotations `cdi.k8s.io/…` name, separated by commas.
pub fn of_annotations<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<DeviceName>, NameError> {
    let values = annotations.into_iter().filter(|(key, _)| key.starts_with(ANNOTATION));
    values.flat_map(|(_, value)| value.split(',')).map(str::parse).collect()
}

/// `VENDOR/CLASS`, both of letters, digits and `_-.`, from a letter to a letter or digit.
pub(crate) fn check_kind(kind: &str) -> Result<(), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("there is no / between vendor and class")?;
    for part in [vendor, class] {
        if !part.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err("vendor and class begin with a letter");
        }
        check_part(part, "_-.")?;
    }
    Ok(())
}

/// Letters, digits and `_-.:`, from a letter or digit to one.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err("the name begins with a letter or a digit");
    }
    check_part(name, "_-.:")
}

fn check_part(part: &str, marks: &str) -> Result<(), &'static str> {
    if !part.chars().all(|one| one.is_ascii_alphanumeric() || marks.contains(one)) {
        return Err("there are letters, digits, _ - and . only, and : in the name");
    }
    if !part.ends_with(|last: char| last.is_ascii_alphanumeric()) {
        return Err("each part ends with a letter or a digit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_put_together() {
        for text in ["vendor.com/gpu=0", "a/b=c", "nvidia.com/gpu=all", "v-1.io/net_x.y=mlx:0_1"] {
            let name: DeviceName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "/dev/null",
            "gpu=0",
            "vendor.com/gpu",
            "vendor.com/gpu=",
            "1v/gpu=0",
            "v/g=-a",
            "v/g=a b",
            "v/g/h=a",
            "v./g=1",
        ] {
            assert!(text.parse::<DeviceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn annotations_name_devices_in_one_or_several() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> =
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            of_annotations(pairs.iter().map(|(key, value)| (key, value)))
        };
        let found =
            of(&[("cdi.k8s.io/a", "v/g=1,v/g=2"), ("other", "x"), ("cdi.k8s.io/b", "v/h=1")]).unwrap();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v/g=1", "v/g=2", "v/h=1"]);
        assert!(of(&[("cdi.k8s.io/a", "v/g=1, v/g=2")]).is_err());
    }
}
