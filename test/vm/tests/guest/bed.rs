//! What the tests of the guest share: a root filesystem of busybox, bundles of it, and the daemon as a service.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vm::Guest;

static DAEMON: Mutex<()> = Mutex::new(());

/// Makes `/tmp/NAME`, a root filesystem.
const ROOT: &str = "root=/tmp/NAME; mkdir -p $root/bin $root/proc $root/dev $root/sys $root/tmp $root/etc
test -x $root/bin/busybox || cp /berth/peers/debian-12/usr/bin/busybox $root/bin/
for name in sh cat sleep echo dd head tail mknod ls grep; do ln -sf busybox $root/bin/$name; done\n";

/// Makes a root filesystem in the guest and gives its path.
pub(crate) fn root(guest: &Guest, name: &str) -> String {
    guest.ok(&ROOT.replace("NAME", name));
    format!("/tmp/{name}")
}

/// Makes a bundle in the guest whose program is `words`, as in JSON, and gives its path.
pub(crate) fn bundle(guest: &Guest, name: &str, words: &str) -> String {
    root(guest, &format!("{name}/rootfs"));
    guest.ok(&format!(
        "cd /tmp/{name}; berth oci spec
         sed -i 's/\"terminal\": *true/\"terminal\": false/; s/^ *\"sh\"$/{words}/' config.json"
    ));
    format!("/tmp/{name}")
}

/// The daemon as systemd's service. One test at a time has it, for some restart it.
pub(crate) struct Daemon<'a> {
    pub(crate) guest: &'a Guest,
    pub(crate) root: String,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> Daemon<'a> {
    pub(crate) fn start(guest: &'a Guest) -> Self {
        let alone = DAEMON.lock().unwrap_or_else(PoisonError::into_inner);
        guest.ok("ln -sf /berth/bin/* /usr/local/bin/; cp /berth/berthd.service /etc/systemd/system/
                  systemctl daemon-reload; systemctl start berthd");
        Self { guest, root: root(guest, "root"), _alone: alone }
    }

    /// Runs a script in which `$run` begins a container's start and `$root` is its image.
    pub(crate) fn ok(&self, script: &str) -> String {
        self.guest.ok(&self.with(script))
    }

    pub(crate) fn fails(&self, script: &str) -> String {
        self.guest.fails(&self.with(script))
    }

    fn with(&self, script: &str) -> String {
        format!("run='berth run --network none --rootfs'; root={}\n{script}", self.root)
    }
}
