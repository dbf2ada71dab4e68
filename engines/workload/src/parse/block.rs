//! Limits of block devices.

use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// A rate for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Throttle {
    /// The device's path.
    pub path: String,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// A weight for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Weight {
    /// The device's path.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

fn split(text: &str) -> Result<(String, &str)> {
    match text.rsplit_once(':') {
        Some((path, value)) if path.starts_with("/dev/") => Ok((path.to_owned(), value)),
        _ => Err(Error::invalid_argument(format!("bad format {text:?}: expected /dev/NAME:VALUE"))),
    }
}

/// `DEVICE:RATE`; the rate may have a unit.
pub fn throttle(text: &str) -> Result<Throttle> {
    let (path, rate) = split(text)?;
    Ok(Throttle { path, rate: super::bytes(rate)? })
}

/// `DEVICE:WEIGHT`.
pub fn weight(text: &str) -> Result<Weight> {
    let (path, weight) = split(text)?;
    let weight = weight.parse().ok().filter(|weight| (10..=1000).contains(weight));
    let weight =
        weight.ok_or_else(|| Error::invalid_argument(format!("invalid weight in {text:?}: 10 to 1000")))?;
    Ok(Weight { path, weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_names_a_device() {
        assert_eq!(throttle("/dev/sda:1m").unwrap(), Throttle { path: "/dev/sda".into(), rate: 1 << 20 });
        assert_eq!(weight("/dev/sda:500").unwrap().weight, 500);
        for bad in ["sda:1", "/dev/sda", "/dev/sda:", "/dev/sda:x"] {
            assert!(throttle(bad).is_err(), "{bad}");
        }
        assert!(weight("/dev/sda:5").is_err());
    }
}
