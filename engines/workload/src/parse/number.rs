//! Amounts: bytes and processors.

use berth_types::{Error, Result, parse_bytes};

/// Bytes as Docker reads them, see [`parse_bytes`].
pub fn bytes(text: &str) -> Result<u64> {
    parse_bytes(text)
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
    fn a_limit_of_memory_may_be_none() {
        assert_eq!(memory("512m").unwrap(), 512 << 20);
        assert_eq!(memory("-1").unwrap(), -1);
        assert!(memory("-2").is_err());
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
