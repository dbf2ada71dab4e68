//! Core scheduling: processes that may not share a core with others at the same moment.

#![expect(unsafe_code, reason = "prctl(PR_SCHED_CORE) has no wrapper in rustix")]

use std::io;

const PR_SCHED_CORE: i32 = 62;
const CREATE: libc::c_ulong = 1;
const PROCESS_GROUP: libc::c_ulong = 2;

/// Gives the caller's process group, and whatever it starts from now on, a core scheduling cookie of its own.
pub fn create() -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: plain numbers; pid 0 is the caller, and the last argument is unused for this request.
    if unsafe { libc::prctl(PR_SCHED_CORE, CREATE, zero, PROCESS_GROUP, zero) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
