//! Amounts: bytes and processors.

use berth_types::{Error, Result};

const UNITS: &str = "kmgtpe";

/// Bytes as Docker reads them: `512`, `512m`, `1.5g`, `1GiB`, `64 kB`; every unit is a power of 1024.
pub fn bytes(text: &str) -> Result<u64> {
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

/// A memory limit: [`bytes`], or `-1` for none.
pub fn memory(text: &str) -> Result<i64> {
    if text.trim() == "-1" {
        return Ok(-1);
    }
    bytes(text).map(|size| size as i64)
}

/// Processors as billionths: `1.5` is 1,500,000,000. At most nine digits after the point.
pub fn cpus(text: &str) -> Result<i64> {
    let wrong = || Error::invalid_argument(format!("invalid number of CPUs: '{text}' (like 0.5 or 2)"));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || part.len() > 9 {
        return Err(wrong());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part: i64 = format!("{part:0<9}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000_000).and_then(|nano| nano.checked_add(part)).ok_or_else(wrong)
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
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1mm", "9999999999g", "1..5m", "0x10", "ten"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(memory("-1").unwrap(), -1);
    }

    #[test]
    fn processors_are_exact() {
        assert_eq!(cpus("1.5").unwrap(), 1_500_000_000);
        assert_eq!(cpus("0.000000001").unwrap(), 1);
        assert_eq!(cpus(".5").unwrap(), 500_000_000);
        for bad in ["", ".", "-1", "1e3", "0.0000000001", "99999999999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }
}
