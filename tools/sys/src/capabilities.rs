//! What this process may give away.

/// The bounding set of this process, by number (capabilities(7)): no program that it starts can have more, as in a
/// container or beneath a hardened service manager. All of them where the kernel does not tell.
pub fn bounding_set() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(u64::MAX)
}
