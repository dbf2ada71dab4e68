//! Extended attributes by open file.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The largest value (the kernel's `XATTR_SIZE_MAX`).
const MAX: usize = 65_536;

/// All attributes of an open file or directory, by name; none where the filesystem has none.
pub(crate) fn all(file: BorrowedFd<'_>) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in names(file)? {
        if let Some(value) = get(file, &name)? {
            found.push((name, value));
        }
    }
    Ok(found)
}

/// The names of all attributes, in byte order.
pub(crate) fn names(file: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut list = Vec::new();
    loop {
        let length = match rustix::fs::flistxattr_query(file) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(length) => length,
            Err(error) => return Err(error.into()),
        };
        list.resize(length, 0);
        match rustix::fs::flistxattr(file, &mut list[..]) {
            Ok(length) => {
                list.truncate(length);
                break;
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<CString> = names.map(CString::new).collect::<Result<_, _>>()?;
    names.sort_unstable();
    Ok(names)
}

/// One attribute, `None` where it isn't set or may not be read.
pub(crate) fn get(file: BorrowedFd<'_>, name: &CString) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; MAX];
    match rustix::fs::fgetxattr(file, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets one attribute.
pub(crate) fn set(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())?)
}
