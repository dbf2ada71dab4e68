//! The C library's allocator, told to be small.

#![expect(unsafe_code, reason = "mallopt and malloc_trim")]

/// One arena for all threads and a top that is given back early: for processes of which a machine runs hundreds.
///
/// Call it first thing. Threads then contend for one lock, which a process that hardly allocates does not notice.
#[cfg(target_env = "gnu")]
pub fn stay_small() {
    const SETTINGS: [(i32, i32); 3] =
        [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, 32 << 10), (libc::M_TOP_PAD, 8 << 10)];
    for (parameter, value) in SETTINGS {
        // SAFETY: sets a tunable of the allocator; nothing that is allocated moves.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives free pages back to the kernel.
#[cfg(target_env = "gnu")]
pub fn trim() {
    // SAFETY: only touches pages which the allocator knows to be free.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have nothing to tell.
#[cfg(not(target_env = "gnu"))]
pub fn stay_small() {}

/// Other C libraries have nothing to tell.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}
