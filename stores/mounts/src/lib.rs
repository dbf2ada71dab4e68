//! Mounts that the daemon performs for its clients: containerd 2.3's mount manager.
//!
//! A snapshotter may answer a list of mounts that no client can perform by itself: an image that has to be mounted
//! first, a filesystem that is yet to be made in a file, an overlay whose folders are only known once that is done.
//! [`Activations`] performs what is needed of such a list and answers what is left.
//!
//! ```text
//!   the list      mkfs/ext4     erofs     erofs     format/mkdir/overlay
//!                     │           │         │              │
//!   [`steps`]      made        ─ nothing to do ─    places filled in, folders made
//!                     │           │         │              │
//!   [`perform`]   FOLDER/N/3  FOLDER/N/2  FOLDER/N/1       ▼
//!   answered          active mounts, in this order    overlay: left to the client
//! ```
//! Each activation has a folder with a number, in which its record is: written before anything is mounted, and once
//! more when everything is. So a daemon that starts finds what the one before it has mounted, and ends what that had
//! only begun. Nothing here survives the machine's restart, as mounts do not.
//!
//! Nothing of it is the way to a container's own files: whoever mounts the rest is the caller. Folders and filesystems
//! are made below the folders that the daemon allows ([`Roots`](roots)), and nowhere else.

mod activations;
mod format;
mod mkdir;
mod mkfs;
mod perform;
mod plan;
mod record;
mod roots;
mod steps;
mod table;

#[cfg(test)]
mod tests;

pub use activations::Activations;
