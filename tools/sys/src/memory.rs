//! The C library's allocator, told to be small.

#![expect(unsafe_code, reason = "mallopt, malloc_trim, and madvise on the program's own code")]

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

/// One arena for all threads: for a process with many threads that come and go, of which each would keep free memory
/// for itself that the others cannot use.
///
/// Call it first thing.
#[cfg(target_env = "gnu")]
pub fn share() {
    // SAFETY: sets a tunable of the allocator; nothing that is allocated moves.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives free pages back to the kernel.
#[cfg(target_env = "gnu")]
pub fn trim() {
    // SAFETY: only touches pages which the allocator knows to be free.
    unsafe { libc::malloc_trim(0) };
}

/// Takes the pages of this program's code out of its memory: those that are needed come back from the page cache as
/// they are executed, those that only the start needed do not, and the kernel may drop them when it is short.
///
/// The code must be as it is in the file, which it is in a program that nobody debugs.
pub fn forget_code() -> std::io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for line in maps.lines().filter(|line| line.ends_with(&*program.to_string_lossy())) {
        let mut words = line.split(' ');
        let (Some(range), Some(access), Some(offset)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        // Code, and the constants before it, which begin the file; not those that were relocated.
        if access != "r-xp" && (access, offset) != ("r--p", "00000000") {
            continue;
        }
        let mut ends = range.split('-').filter_map(|end| usize::from_str_radix(end, 16).ok());
        if let (Some(from), Some(to)) = (ends.next(), ends.next()) {
            // SAFETY: a mapping that nothing could ever write to, of a file that is being executed and so cannot
            // be written either: every page comes back as it was.
            if unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Other C libraries have nothing to tell.
#[cfg(not(target_env = "gnu"))]
pub fn stay_small() {}

/// Other C libraries have nothing to tell.
#[cfg(not(target_env = "gnu"))]
pub fn share() {}

/// Other C libraries have nothing to tell.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}
