//! Values of v1 said in those of v2. The specification's fields are v1's.

/// `cpu.shares` (2 to 262144, default 1024) as `cpu.weight` (1 to 10000, default 100), so that the
/// ends and the default meet. 0 stays 0: not set.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
        }
    }
}

/// `blkio.weight` (10 to 1000) as `io.weight` (1 to 10000). 0 stays 0.
pub(crate) fn io_weight(weight: u16) -> u64 {
    if weight == 0 { 0 } else { 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990 }
}

/// A limit as v2 writes it: -1 is `max`.
pub(crate) fn limit(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// v1's limit of memory and swap together as v2's limit of swap alone; `None`: leave it.
///
/// Without a memory limit, or with less than it, the pair makes no sense.
pub(crate) fn swap(together: i64, memory: Option<i64>) -> Result<Option<String>, String> {
    match (together, memory) {
        (0, _) => Ok(None),
        (-1, _) => Ok(Some("max".into())),
        (_, None | Some(0)) => Err("unable to set swap limit without memory limit".into()),
        (_, Some(..0)) => Err("unable to set swap limit with unlimited memory".into()),
        (t, Some(m)) if t < 0 || t < m => {
            Err(format!("memory+swap limit ({t}) should be >= memory limit ({m})"))
        }
        (t, Some(m)) => Ok(Some((t - m).to_string())),
    }
}

/// `cpu.max`: quota and period.
pub(crate) fn cpu_max(quota: Option<i64>, period: Option<u64>) -> Option<String> {
    let quota = quota.filter(|q| *q != 0);
    let period = period.filter(|p| *p != 0);
    if quota.is_none() && period.is_none() {
        return None;
    }
    let quota = match quota {
        Some(q) if q > 0 => q.to_string(),
        _ => "max".to_owned(),
    };
    Some(format!("{quota} {}", period.unwrap_or(100_000)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ends_and_default_of_shares_meet_those_of_weight() {
        let pairs = [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 40, 10_000)];
        for (shares, weight) in pairs {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert_eq!((io_weight(0), io_weight(10), io_weight(1000)), (0, 1, 10_000));
    }

    #[test]
    fn swap_is_what_is_left_above_memory() {
        assert_eq!(swap(300, Some(100)), Ok(Some("200".into())));
        assert_eq!(swap(-1, Some(100)), Ok(Some("max".into())));
        assert_eq!(swap(0, None), Ok(None));
        assert!(swap(50, Some(100)).is_err() && swap(50, None).is_err() && swap(-5, Some(-1)).is_err());
        assert_eq!(cpu_max(Some(50_000), None).unwrap(), "50000 100000");
        assert_eq!(cpu_max(Some(-1), Some(1000)).unwrap(), "max 1000");
        assert_eq!(cpu_max(None, None), None);
    }

    proptest! {
        #[test]
        fn weights_stay_in_range_and_in_order(a in 2u64..300_000, b in 2u64..300_000, w in 1u16..2000) {
            let (x, y) = (weight_of_shares(a), weight_of_shares(b));
            prop_assert!((1..=10_000).contains(&x));
            prop_assert!(a > b || x <= y);
            prop_assert!((1..=10_000).contains(&io_weight(w)));
        }

        #[test]
        fn no_pair_of_limits_panics(t in any::<i64>(), m in proptest::option::of(any::<i64>())) {
            let _ = swap(t, m);
            let _ = cpu_max(Some(t), m.map(|m| m as u64));
        }
    }
}
