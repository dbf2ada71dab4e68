//! Tells the service manager how the daemon is: sd_notify(3), one datagram a message.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The manager's socket, if there is a manager.
pub(crate) struct Notify(Option<SocketAddr>);

impl Notify {
    /// The socket that `NOTIFY_SOCKET` names: a path, or an abstract name after an `@`.
    pub(crate) fn new(socket: Option<&OsStr>) -> Self {
        let address = socket.and_then(|socket| match socket.as_bytes() {
            [] => None,
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            _ => SocketAddr::from_pathname(socket).ok(),
        });
        Self(address)
    }

    /// The sockets are open.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is read again; [`Notify::ready`] follows.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, message: &str) {
        let Some(address) = &self.0 else { return };
        let sent =
            UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(message.as_bytes(), address));
        if let Err(error) = sent {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot tell the service manager");
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::Scratch;

    use super::*;

    #[test]
    fn the_manager_hears_of_each_step() {
        let scratch = Scratch::new();
        let path = scratch.path("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(Some(path.as_os_str()));
        let mut buffer = [0; 256];
        let mut heard = || {
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        notify.ready();
        assert_eq!(heard(), "READY=1");
        notify.reloading();
        assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notify.stopping();
        assert_eq!(heard(), "STOPPING=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        Notify::new(None).ready();
        Notify::new(Some(OsStr::new(""))).ready();
        Notify::new(Some(OsStr::new("/no/such/socket"))).ready();
    }
}
