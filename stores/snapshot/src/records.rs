//! The records of a snapshotter, in memory and in the journal.
//!
//! Every change is first written and then made, so memory is never ahead of the journal. A snapshot that
//! is being made or committed holds its names meanwhile: the lock is not held over work on trees.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use berth_core::{NewSnapshot, SnapshotCommit};
use berth_types::filter::Filters;
use berth_types::{Error, FieldMask, Labels, Result, SnapshotInfo, SnapshotKey, SnapshotKind, Usage};
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, Purpose};

/// Lines beyond those of living records after which the journal is worth rewriting.
const SLACK: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The number of its folder, never used again.
    pub(crate) id: u64,
    #[serde(with = "kind")]
    pub(crate) kind: SnapshotKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<SnapshotKey>,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub(crate) labels: Labels,
    #[serde(with = "time")]
    created: SystemTime,
    #[serde(with = "time")]
    updated: SystemTime,
    /// Inodes and bytes, of a committed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<(u64, u64)>,
}

impl Record {
    pub(crate) fn info(&self, key: &SnapshotKey) -> SnapshotInfo {
        SnapshotInfo {
            kind: self.kind,
            key: key.clone(),
            parent: self.parent.clone(),
            labels: self.labels.clone(),
            created_at: self.created,
            updated_at: self.updated,
        }
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage.map(|(inodes, size)| Usage { inodes, size })
    }
}

/// One change: names that go, then a name that comes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop: Option<SnapshotKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put: Option<(SnapshotKey, Record)>,
    /// No folder number up to this one may be given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    /// The boot under which the following lines were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// The version of this form; a reader that doesn't know it must not guess.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
}

/// The form that this program writes.
const VERSION: u32 = 1;

/// A snapshot that is being made: its number, and the numbers of its parents, nearest first.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: u64,
    pub(crate) parents: Vec<u64>,
    new: NewSnapshot,
    kind: SnapshotKind,
}

#[derive(Debug)]
pub(crate) struct Records {
    journal: Journal,
    records: BTreeMap<SnapshotKey, Record>,
    /// Children by the number of the parent, those being made included.
    children: HashMap<u64, usize>,
    /// Names that are being made or committed.
    held: HashSet<SnapshotKey>,
    /// Numbers whose folders no record names yet.
    making: HashSet<u64>,
    last: u64,
    /// Whether the machine was started anew since the last line.
    rebooted: bool,
}

impl Records {
    /// Reads the journal in `folder`, or begins one.
    pub(crate) fn open(folder: OwnedFd) -> Result<Self> {
        let failed = |error| Error::io("cannot read the journal of snapshots", error);
        let opened = Journal::open::<Line>(folder).map_err(failed)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut records = Self {
            journal: opened.journal,
            records: BTreeMap::new(),
            children: HashMap::new(),
            held: HashSet::new(),
            making: HashSet::new(),
            last: 0,
            rebooted: false,
        };
        let mut written_under = None;
        for line in opened.lines {
            if let Some(version) = line.version.filter(|version| *version > VERSION) {
                return Err(Error::failed_precondition(format!(
                    "the journal of snapshots has form {version}, this program knows {VERSION}: use the newer program, or remove the snapshotter's folder and pull again"
                )));
            }
            written_under = line.boot.clone().or(written_under);
            records.replay(line);
        }
        records.drop_orphans();
        if opened.damaged > 0 {
            let damaged = opened.damaged;
            tracing::warn!(damaged, "lines of the snapshots' journal were damaged and are left out");
        }
        records.rebooted = written_under.as_deref().is_some_and(|earlier| earlier != boot);
        if opened.damaged > 0 || records.journal.lines() > 2 * records.records.len() + SLACK {
            records.rewrite().map_err(failed)?;
        } else if written_under.as_deref() != Some(boot.as_str()) {
            let line = Line { boot: Some(boot), version: Some(VERSION), ..Line::default() };
            records.journal.append(&line, Purpose::Shrink).map_err(failed)?;
        }
        Ok(records)
    }

    /// Whether a power cut may have come between the last line and now.
    pub(crate) fn rebooted(&self) -> bool {
        self.rebooted
    }

    fn replay(&mut self, line: Line) {
        self.last = self.last.max(line.used.unwrap_or(0));
        if let Some(key) = line.drop {
            self.take_out(&key);
        }
        if let Some((key, record)) = line.put {
            self.last = self.last.max(record.id);
            self.put_in(key, record);
        }
    }

    /// Damage may have taken a parent's line; what stood on it cannot be mounted any more.
    fn drop_orphans(&mut self) {
        loop {
            let lost = |record: &Record| {
                record.parent.as_ref().is_some_and(|parent| !self.records.contains_key(parent))
            };
            let orphans: Vec<_> =
                self.records.iter().filter(|(_, record)| lost(record)).map(|(key, _)| key.clone()).collect();
            if orphans.is_empty() {
                break;
            }
            for key in orphans {
                tracing::warn!(%key, "the snapshot's parent is lost, so it is dropped");
                self.records.remove(&key);
            }
        }
        self.children.clear();
        let parents: Vec<u64> = self
            .records
            .values()
            .filter_map(|record| self.records.get(record.parent.as_ref()?).map(|parent| parent.id))
            .collect();
        for id in parents {
            *self.children.entry(id).or_default() += 1;
        }
    }

    /// Drops every record whose folder `present` doesn't find, and what stands on it.
    pub(crate) fn keep_present(&mut self, present: impl Fn(&Record) -> bool) -> Result<()> {
        let missing: Vec<_> =
            self.records.iter().filter(|(_, record)| !present(record)).map(|(key, _)| key.clone()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for key in missing {
            tracing::warn!(%key, "the snapshot's folder did not survive, so it is dropped");
            self.records.remove(&key);
        }
        self.drop_orphans();
        self.rewrite().map_err(|error| Error::io("cannot rewrite the journal of snapshots", error))
    }

    fn put_in(&mut self, key: SnapshotKey, record: Record) {
        if let Some(parent) = record.parent.as_ref().and_then(|parent| self.records.get(parent)) {
            *self.children.entry(parent.id).or_default() += 1;
        }
        if let Some(replaced) = self.records.insert(key, record) {
            self.forget_child(replaced.parent.as_ref());
        }
    }

    fn take_out(&mut self, key: &SnapshotKey) -> Option<Record> {
        let record = self.records.remove(key)?;
        self.forget_child(record.parent.as_ref());
        Some(record)
    }

    fn forget_child(&mut self, parent: Option<&SnapshotKey>) {
        let Some(id) = parent.and_then(|parent| self.records.get(parent)).map(|parent| parent.id) else {
            return;
        };
        if let Some(count) = self.children.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.children.remove(&id);
            }
        }
    }

    pub(crate) fn record(&self, key: &SnapshotKey) -> Result<&Record> {
        self.records.get(key).ok_or_else(|| Error::not_found(format!("snapshot {key} does not exist")))
    }

    pub(crate) fn list(
        &self,
        filters: &Filters,
        with: impl Fn(&Record, &mut SnapshotInfo),
    ) -> Vec<SnapshotInfo> {
        let mut found = Vec::new();
        for (key, record) in &self.records {
            let mut info = record.info(key);
            if filters.matches(&info) {
                with(record, &mut info);
                found.push(info);
            }
        }
        found
    }

    /// The numbers of the snapshots below `parent` and of itself, nearest first.
    pub(crate) fn chain(&self, parent: Option<&SnapshotKey>) -> Result<Vec<u64>> {
        let (mut chain, mut next) = (Vec::new(), parent);
        while let Some(key) = next {
            let record = self.record(key)?;
            chain.push(record.id);
            next = record.parent.as_ref();
        }
        Ok(chain)
    }

    /// Holds the name of a new snapshot and gives it a number.
    pub(crate) fn reserve(&mut self, new: NewSnapshot, kind: SnapshotKind) -> Result<Ticket> {
        let key = &new.key;
        if let Some(parent) = &new.parent {
            let record = self.records.get(parent).ok_or_else(|| {
                Error::not_found(format!("parent {parent} of snapshot {key} does not exist"))
            })?;
            if record.kind != SnapshotKind::Committed {
                return Err(Error::invalid_argument(format!("parent {parent} is not a committed snapshot")));
            }
        }
        self.check_free(key)?;
        let parents = self.chain(new.parent.as_ref())?;
        if let Some(parent) = parents.first() {
            *self.children.entry(*parent).or_default() += 1;
        }
        self.held.insert(key.clone());
        let id = self.next_id();
        Ok(Ticket { id, parents, new, kind })
    }

    fn check_free(&self, key: &SnapshotKey) -> Result<()> {
        if self.records.contains_key(key) || self.held.contains(key) {
            return Err(Error::already_exists(format!("snapshot {key} already exists")));
        }
        Ok(())
    }

    fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.making.insert(self.last);
        self.last
    }

    /// Gives the ticket another number, because a folder of a crashed process has the first.
    pub(crate) fn renumber(&mut self, ticket: &mut Ticket) {
        self.making.remove(&ticket.id);
        ticket.id = self.next_id();
    }

    /// Gives a ticket back whose snapshot could not be made.
    pub(crate) fn release(&mut self, ticket: &Ticket) {
        self.held.remove(&ticket.new.key);
        self.making.remove(&ticket.id);
        self.forget_child(ticket.new.parent.as_ref());
    }

    /// Makes the snapshot of a ticket true; on an error the ticket is still open.
    pub(crate) fn admit(&mut self, ticket: &Ticket) -> Result<()> {
        let now = SystemTime::now();
        let NewSnapshot { key, parent, labels } = ticket.new.clone();
        let record = Record {
            id: ticket.id,
            kind: ticket.kind,
            parent,
            labels,
            created: now,
            updated: now,
            usage: None,
        };
        self.write(
            &Line { put: Some((key.clone(), record.clone())), ..Line::default() },
            Purpose::Grow,
            &key,
        )?;
        self.release(ticket);
        self.put_in(key, record);
        Ok(())
    }

    pub(crate) fn update(
        &mut self,
        key: &SnapshotKey,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<SnapshotInfo> {
        let bad = |path: &&String| *path != "labels" && !path.starts_with("labels.");
        if let Some(path) = mask.paths().iter().find(bad) {
            return Err(Error::invalid_argument(format!(
                "cannot update {path:?} of snapshot {key}: only labels"
            )));
        }
        let mut record = self.record(key)?.clone();
        mask.merge_map("labels", &mut record.labels, &labels);
        record.updated = SystemTime::now();
        let line = Line { put: Some((key.clone(), record.clone())), ..Line::default() };
        self.write(&line, Purpose::Grow, key)?;
        let info = record.info(key);
        self.records.insert(key.clone(), record);
        Ok(info)
    }

    /// Begins commits: holds their names, and the parents that the snapshots get, if they get any; answers the numbers
    /// of the trees.
    pub(crate) fn begin_commits(&mut self, commits: &[SnapshotCommit]) -> Result<Vec<u64>> {
        let mut ids = Vec::with_capacity(commits.len());
        for at in 0..commits.len() {
            match self.begin_commit(&commits[..at], &commits[at]) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    self.abandon_commits(&commits[..at]);
                    return Err(error);
                }
            }
        }
        Ok(ids)
    }

    fn begin_commit(&mut self, before: &[SnapshotCommit], commit: &SnapshotCommit) -> Result<u64> {
        let SnapshotCommit { name, key, .. } = commit;
        self.check_free(name)?;
        let parent = match onto_others(before, commit) {
            Some(onto) => {
                let parent = self.record(onto)?;
                if parent.kind != SnapshotKind::Committed {
                    return Err(Error::failed_precondition(format!(
                        "parent {onto} is not a committed snapshot"
                    )));
                }
                Some(parent.id)
            }
            None => None,
        };
        let record = self.record(key)?;
        if record.kind != SnapshotKind::Active {
            return Err(Error::failed_precondition(format!("snapshot {key} is not active")));
        }
        let id = record.id;
        if self.held.contains(key) {
            return Err(Error::failed_precondition(format!("snapshot {key} is being committed")));
        }
        self.held.extend([name.clone(), key.clone()]);
        if let Some(parent) = parent {
            *self.children.entry(parent).or_default() += 1;
        }
        Ok(id)
    }

    /// Gives up commits.
    pub(crate) fn abandon_commits(&mut self, commits: &[SnapshotCommit]) {
        for (at, commit) in commits.iter().enumerate() {
            self.held.remove(&commit.name);
            self.held.remove(&commit.key);
            self.forget_child(onto_others(&commits[..at], commit));
        }
    }

    /// Ends commits, well or not, in their order. The lines are not flushed yet.
    pub(crate) fn end_commits(&mut self, commits: Vec<SnapshotCommit>, usages: Vec<Usage>) -> Result<()> {
        self.abandon_commits(&commits);
        for (commit, usage) in commits.into_iter().zip(usages) {
            self.end_commit(commit, usage)?;
        }
        Ok(())
    }

    fn end_commit(&mut self, commit: SnapshotCommit, usage: Usage) -> Result<()> {
        let SnapshotCommit { name, key, parent, labels } = commit;
        let mut record = self.record(&key)?.clone();
        record.parent = record.parent.or(parent);
        record.kind = SnapshotKind::Committed;
        record.labels = labels;
        record.created = SystemTime::now();
        record.updated = record.created;
        record.usage = Some((usage.inodes, usage.size));
        let line =
            Line { drop: Some(key.clone()), put: Some((name.clone(), record.clone())), ..Line::default() };
        self.write(&line, Purpose::Grow, &key)?;
        self.take_out(&key);
        self.put_in(name, record);
        Ok(())
    }

    /// Removes a record and answers the number of its folder.
    pub(crate) fn remove(&mut self, key: &SnapshotKey) -> Result<u64> {
        let record = self.record(key)?;
        let id = record.id;
        if self.children.contains_key(&id) {
            return Err(Error::failed_precondition(format!("cannot remove snapshot {key}: it has children")));
        }
        if self.held.contains(key) {
            return Err(Error::failed_precondition(format!(
                "cannot remove snapshot {key}: it is being committed"
            )));
        }
        let line = Line { drop: Some(key.clone()), used: Some(self.last), ..Line::default() };
        self.write(&line, Purpose::Shrink, key)?;
        self.take_out(key);
        Ok(id)
    }

    /// Whether the folder of this number belongs to a snapshot or to one being made.
    pub(crate) fn names(&self) -> HashSet<u64> {
        self.records.values().map(|record| record.id).chain(self.making.iter().copied()).collect()
    }

    /// Rewrites the journal when most of it is history.
    pub(crate) fn compact(&mut self) -> io::Result<()> {
        if self.journal.lines() > 2 * self.records.len() + SLACK { self.rewrite() } else { Ok(()) }
    }

    /// The journal, to be flushed without holding the records.
    pub(crate) fn journal(&self) -> io::Result<File> {
        self.journal.file()
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let head =
            Line { used: Some(self.last), boot: Some(boot), version: Some(VERSION), ..Line::default() };
        // Parents before children, so that counting while reading works.
        let mut living: Vec<_> = self.records.iter().collect();
        living.sort_by_key(|(_, record)| record.id);
        let puts = living
            .into_iter()
            .map(|(key, record)| Line { put: Some((key.clone(), record.clone())), ..Line::default() });
        self.journal.rewrite(std::iter::once(head).chain(puts))
    }

    fn write(&mut self, line: &Line, purpose: Purpose, key: &SnapshotKey) -> Result<()> {
        self.journal
            .append(line, purpose)
            .map_err(|error| Error::io(format!("cannot record the change of snapshot {key}"), error))
    }
}

/// The parent that a snapshot gets with its commit, if it gets one that does not come with the commits before it.
fn onto_others<'a>(before: &[SnapshotCommit], commit: &'a SnapshotCommit) -> Option<&'a SnapshotKey> {
    commit.parent.as_ref().filter(|parent| before.iter().all(|earlier| earlier.name != **parent))
}

/// Kinds as words.
mod kind {
    use berth_types::SnapshotKind;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(kind: &SnapshotKind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match kind {
            SnapshotKind::View => "view",
            SnapshotKind::Active => "active",
            SnapshotKind::Committed => "committed",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SnapshotKind, D::Error> {
        match <&str>::deserialize(from)? {
            "view" => Ok(SnapshotKind::View),
            "active" => Ok(SnapshotKind::Active),
            "committed" => Ok(SnapshotKind::Committed),
            other => Err(serde::de::Error::custom(format!("no kind of snapshot: {other}"))),
        }
    }
}

/// Times as nanoseconds since 1970.
mod time {
    use super::{Duration, SystemTime};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        to.serialize_u64(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        Ok(SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::deserialize(from)?))
    }
}
