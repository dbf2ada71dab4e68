//! `HOME` of a user, from the container's /etc/passwd.

use std::ffi::CStr;

use rustix::fs::{Mode, OFlags, open};

use super::resolve;

/// What the user database may be at most.
const LIMIT: usize = 10 << 20;

/// Writes `HOME=…` and a NUL into `home`: the sixth field of the first line with this user id, else
/// `/`.
pub(super) fn find(uid: u32, home: &mut [u8; 1024]) {
    let mut line = [0u8; 2048];
    let length = scan(uid, &mut line).unwrap_or(0);
    let field = line.get(..length).filter(|f| !f.is_empty() && f.len() + 6 < home.len()).unwrap_or(b"/");
    for (slot, byte) in home.iter_mut().zip(b"HOME=".iter().chain(field).chain(b"\0")) {
        *slot = *byte;
    }
}

/// Leaves the field at the start of `line`; its length.
fn scan(uid: u32, line: &mut [u8; 2048]) -> Option<usize> {
    use std::os::fd::AsFd as _;
    let root = open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // Not blocking: an image could put a fifo there.
    let file = resolve::find(root.as_fd(), c"etc/passwd", OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    if rustix::fs::fstat(&file).ok()?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let (mut chunk, mut length, mut total) = ([0u8; 4096], 0usize, 0usize);
    let mut too_long = false;
    loop {
        let read = rustix::io::read(&file, &mut chunk).ok()?;
        total += read;
        for byte in chunk.get(..read)? {
            if *byte != b'\n' {
                match line.get_mut(length) {
                    Some(slot) => *slot = *byte,
                    None => too_long = true,
                }
                length += usize::from(!too_long);
                continue;
            }
            if !too_long && let Some(range) = field(line.get(..length)?, uid) {
                return keep(line, range);
            }
            (length, too_long) = (0, false);
        }
        if read == 0 || total > LIMIT {
            let range = field(line.get(..length)?, uid)?;
            return keep(line, range);
        }
    }
}

fn keep(line: &mut [u8; 2048], range: std::ops::Range<usize>) -> Option<usize> {
    let length = range.len();
    if range.end > line.len() {
        return None;
    }
    line.copy_within(range, 0);
    Some(length)
}

/// Where the home directory is in a line, when the line is of this user.
fn field(line: &[u8], uid: u32) -> Option<std::ops::Range<usize>> {
    let (mut start, mut number) = (0, 0);
    let mut matches = false;
    for (at, byte) in line.iter().chain(b":").enumerate() {
        if *byte != b':' {
            continue;
        }
        if number == 2 {
            matches = parse(line.get(start..at)?) == Some(uid);
        }
        if number == 5 {
            return matches.then_some(start..at);
        }
        (start, number) = (at + 1, number + 1);
    }
    None
}

fn parse(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The string that [`find`] wrote.
pub(super) fn text(home: &[u8; 1024]) -> &CStr {
    CStr::from_bytes_until_nul(home).unwrap_or(c"HOME=/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_directory_is_the_sixth_field_of_the_users_line() {
        let line = b"web:x:1000:1000:Web,,:/srv/web:/bin/sh";
        assert_eq!(&line[field(line, 1000).unwrap()], b"/srv/web");
        assert_eq!(field(line, 100), None);
        assert_eq!(&b"a:x:7:7::/h"[field(b"a:x:7:7::/h", 7).unwrap()], b"/h");
        for bad in [&b""[..], b":::", b"a:x:99999999999:0::/h:", b"a:x::0::/h:", b"a:x:-1:0::/"] {
            assert_eq!(field(bad, 0), None);
        }
    }
}
