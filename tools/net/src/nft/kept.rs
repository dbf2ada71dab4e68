//! Sockets to the packet filter that are used again.
//!
//! The kernel holds whoever closes such a socket until the old parts of earlier transactions are freed, after an RCU
//! grace period of some milliseconds, and every other transaction of the namespace with it. So a socket that has done
//! its work is kept for the next, and one that has failed is closed where nobody waits.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use crate::netlink::Socket;

/// How many are kept, of all namespaces: each keeps its own alive.
const MOST: usize = 4;

/// Idle ones, each with the number of its network namespace.
static KEPT: Mutex<Vec<(u64, Socket)>> = Mutex::new(Vec::new());

/// Lends `work` a socket into the calling thread's network namespace. If it fails, answers that nobody has read may be
/// left, so the socket goes.
pub(crate) fn with_socket<T>(work: impl FnOnce(&mut Socket) -> io::Result<T>) -> io::Result<T> {
    let namespace = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
    let kept = {
        let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|(own, _)| *own == namespace);
        place.map(|place| all.swap_remove(place).1)
    };
    let mut socket = kept.map_or_else(Socket::netfilter, Ok)?;
    let done = work(&mut socket);
    let surplus = if done.is_ok() { keep(namespace, socket) } else { Some(socket) };
    if let Some(surplus) = surplus {
        // Without a thread it is closed here.
        let closing = std::thread::Builder::new().name("close-nft".to_owned());
        let _ = closing.spawn(move || drop(surplus));
    }
    done
}

/// Keeps a socket, and answers one that is too much.
fn keep(namespace: u64, socket: Socket) -> Option<Socket> {
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    all.push((namespace, socket));
    (all.len() > MOST).then(|| all.remove(0).1)
}
