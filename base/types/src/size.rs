//! Amounts of bytes as people write them.

use crate::{Error, Result};

const UNITS: &str = "kmgtpe";

/// Bytes as Docker and containerd read them: `512`, `512m`, `1.5g`, `1GiB`, `64 kB`; every unit is a power of 1024.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let wrong = || Error::invalid_argument(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let unit = unit.trim_start();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let power = match unit {
        "" => 0,
        one if one.len() == 1 => UNITS.find(one).ok_or_else(wrong)? as u32 + 1,
        _ => return Err(wrong()),
    };
    let scale = 1_u64.checked_shl(10 * power).ok_or_else(wrong)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).filter(|size| i64::try_from(*size).is_ok()).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let size = number * scale as f64;
    if size.is_finite() && (0.0..9.2e18).contains(&size) { Ok(size as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, size) in [
            ("0", 0),
            ("512", 512),
            ("32b", 32),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("1GiB", 1 << 30),
            ("64 kB", 64 << 10),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), size, "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1mm", "9999999999g", "1..5m", "0x10", "ten"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
