//! Who a process runs as: the user database of a root filesystem.
//!
//! The files belong to whoever made the image. They are read beneath their root, only when they are
//! regular and of a sane size, and numbers are checked instead of cut.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use berth_sys::beneath::Root;
use berth_types::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

/// More than any honest user database has.
const MAX_SIZE: u64 = 10 << 20;

/// The largest id: what a signed 32-bit number holds, as in runc.
const MAX_ID: u32 = i32::MAX as u32;

/// Who a process is, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The groups beside it.
    pub groups: Vec<u32>,
    /// Where the user is at home; empty when nobody knows.
    pub home: String,
}

/// The users and groups of a root filesystem.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Accounts {
    /// Reads `/etc/passwd` and `/etc/group`; either may be missing.
    pub fn read(root: &Root) -> Result<Self> {
        Ok(Self { passwd: read(root, Path::new("etc/passwd"))?, group: read(root, Path::new("etc/group"))? })
    }

    /// Takes the texts themselves.
    pub fn new(passwd: impl Into<String>, group: impl Into<String>) -> Self {
        Self { passwd: passwd.into(), group: group.into() }
    }

    /// Bytes of both databases.
    pub fn size(&self) -> usize {
        self.passwd.len() + self.group.len()
    }

    /// Finds `USER[:GROUP]`, each a name or a number, empty meaning root, and the groups `added`.
    ///
    /// Numbers need no entry. Without a group it is the user's own, and the groups that list the
    /// user come with it.
    pub fn find(&self, wanted: &str, added: &[String]) -> Result<Identity> {
        let (user, group) =
            wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
        let user = if user.is_empty() { "0" } else { user };
        let number = number(user)?;
        let entry = self.users().find(|entry| match number {
            Some(uid) => entry.uid == uid,
            None => entry.name == user,
        });
        if entry.is_none() && number.is_none() {
            return Err(Error::invalid_argument(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
        let mut identity = match &entry {
            Some(entry) => {
                Identity { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.to_owned() }
            }
            None => Identity { uid: number.unwrap_or_default(), ..Identity::default() },
        };
        match group {
            Some(group) if !group.is_empty() => identity.gid = self.group(group)?,
            _ => identity.groups = entry.map_or_else(Vec::new, |entry| self.groups_of(entry.name)),
        }
        for group in added {
            identity.groups.push(self.group(group)?);
        }
        identity.groups.insert(0, identity.gid);
        let mut seen = std::collections::BTreeSet::new();
        identity.groups.retain(|gid| seen.insert(*gid));
        Ok(identity)
    }

    /// The groups that list a user, given by name or number, beside its own.
    pub fn member_of(&self, user: &str) -> Result<Vec<u32>> {
        let number = number(user)?;
        let name = match number {
            Some(uid) => self.users().find(|entry| entry.uid == uid).map(|entry| entry.name),
            None => Some(user),
        };
        Ok(name.map_or_else(Vec::new, |name| self.groups_of(name)))
    }

    fn group(&self, wanted: &str) -> Result<u32> {
        if let Some(gid) = number(wanted)? {
            return Ok(gid);
        }
        self.groups().find(|(name, _, _)| *name == wanted).map(|(_, gid, _)| gid).ok_or_else(|| {
            Error::invalid_argument(format!(
                "unable to find group {wanted}: no matching entries in group file"
            ))
        })
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let has = |members: &str| members.split(',').any(|member| member.trim() == user);
        self.groups().filter(|(_, _, members)| has(members)).map(|(_, gid, _)| gid).collect()
    }

    /// NAME:PASSWORD:UID:GID:COMMENT:HOME:SHELL (passwd(5)); lines of another form are passed over.
    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let [name, _, uid, gid, rest @ ..] = &fields[..] else { return None };
            let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id <= MAX_ID);
            let home = rest.get(1).copied().unwrap_or_default();
            (!name.is_empty() && !name.starts_with('#'))
                .then_some(())
                .and_then(|()| Some(User { name, uid: id(uid)?, gid: id(gid)?, home }))
        })
    }

    /// NAME:PASSWORD:GID:MEMBERS (group(5)).
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.trim().splitn(4, ':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            let gid = gid.parse::<u32>().ok().filter(|gid| *gid <= MAX_ID)?;
            (!name.is_empty()).then_some((name, gid, fields.next().unwrap_or_default()))
        })
    }
}

/// The number that a text is, none for a name. What looks like a number and is none that an id can
/// be is refused: as a name it would never be found, cut it would be somebody else.
fn number(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    if digits.len() == text.len()
        && let Some(id) = text.parse::<u32>().ok().filter(|id| *id <= MAX_ID)
    {
        return Ok(Some(id));
    }
    Err(Error::invalid_argument(format!("uids and gids must be in range 0-{MAX_ID}, and {text} is not")))
}

/// Reads a user database. A missing one is empty; a link, device or giant is refused.
fn read(root: &Root, path: &Path) -> Result<String> {
    let name = path.display();
    let failed = |error| Error::io(format!("cannot read /{name} of the container"), error);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match root.open_file(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|error| failed(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::invalid_argument(format!("/{name} of the container is no regular file")));
    }
    let mut bytes = Vec::new();
    File::from(fd).take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Error::resource_exhausted(format!(
            "/{name} of the container has more than {MAX_SIZE} bytes"
        )));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use testkit::Scratch;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment:x:9:9::/:\nweb:x:33:33::/srv:/bin/false\n\
        evil:x:4294967296:0::/:\nbad:x:-1:0::/:\nshort:x\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nstaff:x:50:web,root\naudio:x:29:web\nhuge:x:99999999999:web\n";

    fn find(user: &str) -> Result<Identity> {
        Accounts::new(PASSWD, GROUP).find(user, &[])
    }

    #[test]
    fn names_numbers_and_groups_are_found() {
        let web = find("web").unwrap();
        assert_eq!((web.uid, web.gid, web.home.as_str()), (33, 33, "/srv"));
        assert_eq!(web.groups, [33, 50, 29]);
        assert_eq!(find("").unwrap().groups, [0, 50]);
        assert_eq!(find("33").unwrap(), web);
        let explicit = find("web:staff").unwrap();
        assert_eq!((explicit.gid, explicit.groups), (50, vec![50]));
        assert_eq!(Accounts::new(PASSWD, GROUP).member_of("33").unwrap(), [50, 29]);
        assert!(Accounts::new(PASSWD, GROUP).member_of("1234").unwrap().is_empty());
        let unknown = find("1234").unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.groups), (1234, 0, vec![0]));
        assert_eq!(find("1234:7").unwrap().gid, 7);
    }

    #[test]
    fn added_groups_come_once() {
        let accounts = Accounts::new(PASSWD, GROUP);
        let added = ["audio".to_owned(), "50".to_owned(), "29".to_owned()];
        assert_eq!(accounts.find("web:33", &added).unwrap().groups, [33, 29, 50]);
    }

    #[test]
    fn a_number_never_becomes_somebody_else() {
        for bad in
            ["2147483648", "4294967296", "-1", "+0", "0x0", "99999999999999999999", "evil", "bad", "nobody"]
        {
            assert!(find(bad).is_err(), "{bad}");
            assert!(find(&format!("0:{bad}")).is_err(), "0:{bad}");
        }
    }

    #[test]
    fn only_sane_regular_files_are_read() {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path("etc")).unwrap();
        let root = Root::open(scratch.folder()).unwrap();
        let passwd = scratch.path("etc/passwd");
        assert!(Accounts::read(&root).unwrap().find("0", &[]).is_ok());

        symlink("/dev/zero", &passwd).unwrap();
        assert!(Accounts::read(&root).unwrap().find("root", &[]).is_err());
        std::fs::remove_file(&passwd).unwrap();

        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(Accounts::read(&root).unwrap_err().to_string().contains("regular"));
        std::fs::remove_file(&passwd).unwrap();

        std::fs::File::create(&passwd).unwrap().set_len(2 << 30).unwrap();
        assert!(Accounts::read(&root).unwrap_err().to_string().contains("bytes"));
        std::fs::remove_file(&passwd).unwrap();

        symlink("../../../../../etc/passwd.real", &passwd).unwrap();
        std::fs::write(scratch.path("etc/passwd.real"), PASSWD).unwrap();
        assert_eq!(Accounts::read(&root).unwrap().find("web", &[]).unwrap().uid, 33);
    }
}
