//! Programs with more descriptors than the three standard ones.

#![expect(unsafe_code, reason = "what runs between fork and exec has to be vouched for")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Gives the program `sources` as descriptors 3, 4, 5 and on. They must stay open until it has been spawned.
pub fn with_descriptors<const N: usize>(command: &mut Command, sources: [i32; N]) {
    let place = move || {
        // First out of each other's way, then into place; what `dup2` places has no close-on-exec flag.
        let mut lifted = [0; N];
        for (lifted, source) in lifted.iter_mut().zip(sources) {
            // SAFETY: duplicates a descriptor number; no memory is involved.
            *lifted = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, 3 + N as i32) };
            if *lifted < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (lifted, target) in lifted.iter().zip(3..) {
            // SAFETY: what was at `target` is the child's copy of something that it must not have anyway.
            if unsafe { libc::dup2(*lifted, target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child and makes system calls only: it neither allocates nor locks.
    // (`last_os_error` reads errno.)
    unsafe { command.pre_exec(place) };
}

/// Takes from the program, and from all that it starts, the chance to gain privileges (`PR_SET_NO_NEW_PRIVS`).
pub fn without_new_privileges(command: &mut Command) {
    let set = || {
        // SAFETY: prctl with numbers only; no memory is involved.
        let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure runs in the forked child and makes one system call: it neither allocates nor locks.
    // (`last_os_error` reads errno.)
    unsafe { command.pre_exec(set) };
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_program_gains_no_privileges_when_it_must_not() {
        let mut command = Command::new("grep");
        command.args(["NoNewPrivs", "/proc/self/status"]);
        without_new_privileges(&mut command);
        assert_eq!(command.output().unwrap().stdout, b"NoNewPrivs:\t1\n");
    }

    #[test]
    fn a_program_finds_its_descriptors_in_place() {
        let (first, mut writer) = std::io::pipe().unwrap();
        let (second, mut other) = std::io::pipe().unwrap();
        writer.write_all(b"one").unwrap();
        other.write_all(b"two").unwrap();
        drop((writer, other));
        let mut command = Command::new("sh");
        command.args(["-c", "cat <&4 <&4; cat <&3"]);
        with_descriptors(&mut command, [first.as_raw_fd(), second.as_raw_fd()]);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"twoone");
    }
}
