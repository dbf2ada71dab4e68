//! EROFS images, with the further files or devices that their data is in (`device=`).
//!
//! Options are handed over one by one (`fsconfig(2)`, Linux 5.2), for an image of many layers names more than fits the
//! page that `mount(2)` takes. (A path of 256 bytes or more cannot be handed over so, and is left to that.) Files are
//! mounted as they are where the kernel can (Linux 6.12), else by loop devices.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::idmap::DetachedMount;
use super::options::Options;
use crate::loopdev::{LoopDevice, LoopOptions};

const DEVICE: &str = "device=";

/// The longest value that `fsconfig(2)` takes, with the zero behind it.
const VALUE: usize = 256;

/// Mounts an image at `point`.
pub(super) fn mount(source: &str, point: &Path, options: &Options) -> io::Result<()> {
    match attempt(source, point, &options.data, options) {
        // Kernels before 6.12 mount block devices only.
        Err(error) if options.looped && error.raw_os_error() == Some(libc::ENOTBLK) => {
            by_loop(source, point, options)
        }
        made => made,
    }
}

fn by_loop(source: &str, point: &Path, options: &Options) -> io::Result<()> {
    // Held until the mount does.
    let mut devices = Vec::new();
    let mut device = |file: &str| -> io::Result<String> {
        let read_only = LoopOptions { read_only: true, ..LoopOptions::default() };
        let device = LoopDevice::attach(Path::new(file), read_only)?;
        let path = device.path.to_string_lossy().into_owned();
        devices.push(device);
        Ok(path)
    };
    let source = device(source)?;
    let data: io::Result<Vec<String>> = options
        .data
        .iter()
        .map(|option| match option.strip_prefix(DEVICE) {
            Some(file) if !is_block_device(Path::new(file)) => Ok(format!("{DEVICE}{}", device(file)?)),
            _ => Ok(option.clone()),
        })
        .collect();
    attempt(&source, point, &data?, options)
}

fn is_block_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
}

fn attempt(source: &str, point: &Path, data: &[String], options: &Options) -> io::Result<()> {
    if source.len() >= VALUE || data.iter().any(|option| option.len() >= VALUE) {
        let data = std::ffi::CString::new(data.join(","))?;
        return Ok(rustix::mount::mount(source, point, "erofs", options.flags, data.as_c_str())?);
    }
    configured(source, data, options)?.attach(point)
}

fn configured(source: &str, data: &[String], options: &Options) -> Result<DetachedMount, Errno> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", source)?;
    if options.flags.contains(MountFlags::RDONLY) {
        fsconfig_set_flag(&context, "ro")?;
    }
    for option in data {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option)?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = u32::try_from(options.attributes()).map_err(|_| Errno::INVAL)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    Ok(DetachedMount::from(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
}
