//! The guest of the test kit's virtual machine: Debian 12 with systemd, AppArmor, CRIU and other low-level runtimes,
//! out of Debian's packages, as a kernel and a disk.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::debian;
use crate::step;

/// What is in it beside Debian's essential packages.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,apparmor,criu,kmod,iproute2,crun,runc,procps";

/// The programs that make it and that boot it, with their packages.
const TOOLS: [(&str, &str); 3] = [
    ("mmdebstrap", "/usr/bin/mmdebstrap"),
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("e2fsprogs", "/usr/sbin/mkfs.ext4"),
];

/// The package that depends on the newest kernel made for virtual machines: NVMe and ext4 are built into it, so that
/// it needs no initial RAM disk.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Files of packages that no test reads.
const LEFT_OUT: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];

/// What the guest does when it is up: takes the disk of programs, and orders from the host.
const UNIT: &str = "[Unit]
Description=Takes commands from the host
After=basic.target dbus.service apparmor.service

[Service]
ExecStartPre=/bin/mount -o ro,noatime /dev/nvme1n1 /berth
ExecStart=/bin/bash /berth/agent.sh
KillMode=process
Delegate=yes
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
";

/// Services that a machine of tests can do without; a device unit, for which there is no udev, would be waited for.
const MASKED: [&str; 6] = [
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-update-utmp.service",
    "systemd-timesyncd.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
];

/// Makes `into/vmlinuz` and `into/root.ext4`.
pub(crate) fn make(into: &Path) -> Result<()> {
    debian::install(&TOOLS)?;
    let root = into.join("root");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--quiet", "--mode=root", "--variant=minbase", &format!("--include={PACKAGES}")]);
    for path in LEFT_OUT {
        bootstrap.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    step::run(bootstrap.arg("bookworm").arg(&root))?;
    kernel(into, &root)?;
    settle(&root)?;
    let mut disk = Command::new("mkfs.ext4");
    disk.args(["-q", "-L", "guest", "-O", "^has_journal", "-d"]).arg(&root);
    step::run(disk.arg(into.join("root.ext4")).arg("2G"))?;
    fs::remove_dir_all(&root).context("cannot remove the tree that the disk was made of")
}

/// Unpacks the kernel without installing it, which would make an initial RAM disk, and puts its modules in the root.
fn kernel(into: &Path, root: &Path) -> Result<()> {
    let package = match newest() {
        Err(_) => {
            step::run(Command::new("apt-get").args(["update", "-qq"]))?;
            newest()?
        }
        found => found?,
    };
    let unpacked = into.join("kernel");
    debian::packages(&[&package], &unpacked)?;
    let version = package.trim_start_matches("linux-image-");
    let (image, modules) = (format!("boot/vmlinuz-{version}"), format!("lib/modules/{version}"));
    fs::rename(unpacked.join(image), into.join("vmlinuz")).context("the package holds no kernel")?;
    fs::create_dir_all(root.join("usr/lib/modules"))?;
    fs::rename(unpacked.join(&modules), root.join("usr").join(&modules))
        .context("the package holds no modules")?;
    step::run(Command::new("chroot").arg(root).args(["depmod", version]))?;
    fs::remove_dir_all(&unpacked).context("cannot remove the unpacked kernel")
}

/// The package that [`KERNEL`] depends on.
fn newest() -> Result<String> {
    let depends = step::output(Command::new("apt-cache").args(["depends", "--important", KERNEL]))?;
    let depends = String::from_utf8_lossy(&depends).into_owned();
    let package = depends.split_whitespace().find(|word| word.starts_with("linux-image-6"));
    package.map(str::to_owned).with_context(|| format!("{KERNEL} depends on no kernel: {depends:?}"))
}

fn settle(root: &Path) -> Result<()> {
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(root.join("berth"))?;
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    fs::write(units.join("berth-guest.service"), UNIT)?;
    let link = |target: &str, name: &Path| std::os::unix::fs::symlink(target, name);
    link("../berth-guest.service", &units.join("multi-user.target.wants/berth-guest.service"))?;
    for name in MASKED {
        let place = units.join(name);
        // Enabled ones are links already.
        let _ = fs::remove_file(&place);
        link("/dev/null", &place)?;
    }
    fs::write(root.join("etc/hostname"), "guest\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost guest\n")?;
    fs::write(root.join("etc/fstab"), "")?;
    Ok(())
}
