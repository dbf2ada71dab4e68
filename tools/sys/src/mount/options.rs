//! The option strings of a containerd mount, taken apart.
//!
//! The words and their meaning are those of mount(8) as containerd accepts them; what is not in the
//! table belongs to the filesystem and is passed on as data.

use rustix::mount::MountFlags;

use super::MountError;
use super::attributes::attribute;
use crate::userns::IdMapping;

/// What a list of options asks for.
#[derive(Debug)]
pub(super) struct Options {
    /// Flags for the first mount call.
    pub flags: MountFlags,
    /// Options for the filesystem, unjoined.
    pub data: Vec<String>,
    /// The source is a file to be attached to a loop device.
    pub looped: bool,
    /// The mount's owner changes by these maps.
    pub uids: Vec<IdMapping>,
    /// The mount's groups change by these maps.
    pub gids: Vec<IdMapping>,
}

/// Word, flag, and whether the word takes the flag away.
const WORDS: &[(&str, MountFlags, bool)] = &[
    ("async", MountFlags::SYNCHRONOUS, true),
    ("atime", MountFlags::NOATIME, true),
    ("bind", MountFlags::BIND, false),
    ("defaults", MountFlags::empty(), false),
    ("dev", MountFlags::NODEV, true),
    ("diratime", MountFlags::NODIRATIME, true),
    ("dirsync", MountFlags::DIRSYNC, false),
    ("exec", MountFlags::NOEXEC, true),
    ("lazytime", MountFlags::LAZYTIME, false),
    ("mand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING, false),
    ("noatime", MountFlags::NOATIME, false),
    ("nodev", MountFlags::NODEV, false),
    ("nodiratime", MountFlags::NODIRATIME, false),
    ("noexec", MountFlags::NOEXEC, false),
    ("nolazytime", MountFlags::LAZYTIME, true),
    ("nomand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING, true),
    ("norelatime", MountFlags::RELATIME, true),
    ("nostrictatime", MountFlags::STRICTATIME, true),
    ("nosuid", MountFlags::NOSUID, false),
    ("nosymfollow", MountFlags::NOSYMFOLLOW, false),
    ("rbind", MountFlags::BIND.union(MountFlags::REC), false),
    ("relatime", MountFlags::RELATIME, false),
    ("ro", MountFlags::RDONLY, false),
    ("rw", MountFlags::RDONLY, true),
    ("strictatime", MountFlags::STRICTATIME, false),
    ("suid", MountFlags::NOSUID, true),
    ("sync", MountFlags::SYNCHRONOUS, false),
    ("symfollow", MountFlags::NOSYMFOLLOW, true),
];

/// Options with this prefix talk to containerd's mount manager, not to the kernel.
const CONTAINERD_PREFIX: &str = "X-containerd.";

impl Options {
    pub(super) fn parse(words: &[String]) -> Result<Self, MountError> {
        let mut parsed = Self {
            flags: MountFlags::empty(),
            data: Vec::new(),
            looped: false,
            uids: Vec::new(),
            gids: Vec::new(),
        };
        for word in words {
            parsed.add(word)?;
        }
        if parsed.uids.is_empty() != parsed.gids.is_empty() {
            let option = "uidmap and gidmap come together".to_owned();
            return Err(MountError::Option { option });
        }
        Ok(parsed)
    }

    fn add(&mut self, word: &str) -> Result<(), MountError> {
        if let Some((_, flag, takes_away)) = WORDS.iter().find(|(name, ..)| *name == word) {
            self.flags.set(*flag, !takes_away);
        } else if word == "loop" {
            self.looped = true;
        } else if let Some(list) = word.strip_prefix("uidmap=") {
            self.uids = mappings(word, list)?;
        } else if let Some(list) = word.strip_prefix("gidmap=") {
            self.gids = mappings(word, list)?;
        } else if word.contains('\0') {
            return Err(MountError::Option { option: word.to_owned() });
        } else if !word.is_empty() && !word.starts_with(CONTAINERD_PREFIX) {
            self.data.push(word.to_owned());
        }
        Ok(())
    }

    pub(super) fn bind(&self) -> bool {
        self.flags.contains(MountFlags::BIND)
    }

    /// The flags as attributes of a mount. A bind mount needs them after it exists: the kernel ignores them in the bind
    /// call.
    pub(super) fn attributes(&self) -> u64 {
        let table = [
            (MountFlags::RDONLY, attribute::RDONLY),
            (MountFlags::NOSUID, attribute::NOSUID),
            (MountFlags::NODEV, attribute::NODEV),
            (MountFlags::NOEXEC, attribute::NOEXEC),
            (MountFlags::NOATIME, attribute::NOATIME),
            (MountFlags::STRICTATIME, attribute::STRICTATIME),
            (MountFlags::NODIRATIME, attribute::NODIRATIME),
            (MountFlags::NOSYMFOLLOW, attribute::NOSYMFOLLOW),
        ];
        let wanted = table.iter().filter(|(flag, _)| self.flags.contains(*flag));
        wanted.fold(0, |bits, (_, attribute)| bits | attribute)
    }
}

fn mappings(word: &str, list: &str) -> Result<Vec<IdMapping>, MountError> {
    IdMapping::parse_list(list).ok_or_else(|| MountError::Option { option: word.to_owned() })
}
