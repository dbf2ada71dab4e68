//! The running program, executed again through a mount that nobody can write through.
//!
//! A process that enters a container keeps a link to its program in /proc. Whoever gets hold of that
//! link inside could overwrite the program on the host once it is not running anymore
//! (CVE-2019-5736). So a program that is about to start containers executes itself again from a
//! read-only clone of its file's mount: detached, in no namespace, so that it cannot be remounted.
//! It costs one execve and no copy.

#![expect(unsafe_code, reason = "execveat of a descriptor with this process' own arguments")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount::attributes::{MountAttributes, Reach, attribute, set_attributes};

const OWN: &str = "/proc/self/exe";

/// Whether this process' program can only be read through its link in /proc.
pub fn is_sealed() -> io::Result<bool> {
    let program = rustix::fs::open(
        OWN,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    Ok(rustix::fs::fstatvfs(&program)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A descriptor of this process' program to execute, in place of its path, for a child that is to be
/// sealed. Needs `CAP_SYS_ADMIN`.
pub fn program() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let program = open_tree(CWD, OWN, flags)?;
    let read_only = MountAttributes { set: attribute::RDONLY, ..MountAttributes::default() };
    set_attributes(&program, c"", Reach::One, &read_only)?;
    Ok(program)
}

/// Executes this program again, sealed, with the same arguments; returns at once when it is already.
///
/// Call it before anything else is done: everything but the descriptors without close-on-exec is lost.
pub fn execute_again() -> io::Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let program = program()?;
    let strings = |all: Vec<Vec<u8>>| all.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
    let arguments = strings(std::env::args_os().map(OsStringExt::into_vec).collect())?;
    let joined = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        [name.into_vec(), value.into_vec()].join(&b'=')
    };
    let environment = strings(std::env::vars_os().map(joined).collect())?;
    let pointers =
        |all: &[CString]| all.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both vectors end with a null pointer and point to strings that live beyond the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(io::Error::last_os_error())
}
