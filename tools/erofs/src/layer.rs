//! The members of a layer's archive, as files of an image.
//!
//! What comes out is what unpacking the layer into the upper folder of an overlay makes: whiteouts become overlayfs'
//! marks, links in paths are followed inside the tree, and a folder that no member tells of is like the one in the
//! layers below.

use std::collections::VecDeque;
use std::io::{self, BufRead, Seek, Write};

use berth_archive::{Entry, Kind, Whiteout, clean, parent};

use crate::builder::{Builder, Finished, Special};
use crate::error::{ErofsError, text};
use crate::tree::{Attributes, Content, NodeId};
use crate::xattrs::OPAQUE;

/// Links in one path, as in Linux.
const LINKS: usize = 40;

/// What the layers below hold. Paths are clean, without links, and relative to the root.
pub trait Below {
    /// Whether there are any. Where there are none, removals mean nothing.
    fn is_anything(&self) -> bool {
        true
    }

    /// What the directory at `path` is like; none where there is none, or where it is hidden.
    fn directory(&mut self, path: &[u8]) -> io::Result<Option<Attributes>>;

    /// The names at the root of any of them.
    fn root_names(&mut self) -> io::Result<Vec<Vec<u8>>>;
}

/// A layer with nothing below it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Below for Nothing {
    fn is_anything(&self) -> bool {
        false
    }

    fn directory(&mut self, _path: &[u8]) -> io::Result<Option<Attributes>> {
        Ok(None)
    }

    fn root_names(&mut self) -> io::Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
}

/// A layer being made an image, member by member.
#[derive(Debug)]
pub struct Layer<W: Write, B> {
    pub(crate) builder: Builder<W>,
    below: B,
}

/// How the data of a file comes into the image.
pub(crate) type Filling<'f, W> =
    &'f mut dyn FnMut(&mut Builder<W>, &[u8], &Entry) -> Result<Content, ErofsError>;

/// A directory on the way to a file, with its name; the root is not told.
type Step = (Vec<u8>, NodeId);

impl<W: Write + Seek, B: Below> Layer<W, B> {
    /// An empty layer above `below`, whose root belongs to these.
    pub fn new(output: W, below: B, owner: (u32, u32)) -> Result<Self, ErofsError> {
        Self::with_builder(Builder::new(output)?, below, owner)
    }

    pub(crate) fn with_builder(
        mut builder: Builder<W>,
        below: B,
        (uid, gid): (u32, u32),
    ) -> Result<Self, ErofsError> {
        let root = Attributes { mode: 0o755, uid, gid, ..Attributes::default() };
        builder.set_attributes(builder.root(), b"/", &root)?;
        Ok(Self { builder, below })
    }

    /// Adds one member with its data. After an error the layer must not be used again.
    pub fn entry(&mut self, entry: &Entry, data: &mut impl BufRead) -> Result<(), ErofsError> {
        let filled = self.member(entry, &mut |builder, path, entry| match &entry.segments {
            None => builder.flat(path, entry.size, data),
            Some(runs) => builder.chunked(path, entry.size, runs, data),
        });
        filled.map(drop)
    }

    /// Adds one member, and tells which file is made of it if it has data.
    pub(crate) fn member(
        &mut self,
        entry: &Entry,
        fill: Filling<'_, W>,
    ) -> Result<Option<NodeId>, ErofsError> {
        let path = clean(&entry.path);
        let (folder, name) = parent(&path);
        if name.is_empty() {
            // Whose the root is is the snapshot's to say, as when a layer is unpacked. When it was changed is not.
            let root = self.builder.root();
            self.builder.tree.node_mut(root).mtime = entry.mtime;
            return Ok(None);
        }
        let whiteout = Whiteout::parse(name);
        match whiteout {
            Some(Whiteout::Aufs) => return Ok(None),
            Some(Whiteout::Invalid) => return Err(ErofsError::Whiteout { path: text(&path) }),
            _ => {}
        }
        let steps = self.directories(&path, folder)?;
        let directory = steps.last().map_or(self.builder.root(), |(_, node)| *node);
        match whiteout {
            Some(_) if !self.below.is_anything() => {}
            Some(Whiteout::Opaque) if steps.is_empty() => self.hide_root()?,
            Some(Whiteout::Opaque) => self.make_opaque(directory)?,
            Some(Whiteout::Name(hidden)) => self.white_out(directory, hidden)?,
            _ => return self.write((directory, name), &path, entry, fill),
        }
        Ok(None)
    }

    /// Gives back what holds the layers below.
    pub fn below(&self) -> &B {
        &self.below
    }

    /// Writes the rest, see [`Builder::finish`].
    pub fn finish(self, uuid: [u8; 16]) -> Result<(W, Finished), ErofsError> {
        self.builder.finish(uuid)
    }

    fn write(
        &mut self,
        (directory, name): (NodeId, &[u8]),
        path: &[u8],
        entry: &Entry,
        fill: Filling<'_, W>,
    ) -> Result<Option<NodeId>, ErofsError> {
        let attributes = attributes(entry);
        let builder = &mut self.builder;
        match &entry.kind {
            Kind::Directory => return self.directory(directory, name, path, &attributes).map(|()| None),
            Kind::HardLink(target) => {
                return self.hard_link(directory, name, path, target, &attributes).map(|()| None);
            }
            Kind::File => {
                let content = fill(builder, path, entry)?;
                return builder.add(directory, name, crate::format::REGULAR, &attributes, content).map(Some);
            }
            Kind::Symlink(target) => builder.symlink(directory, name, &attributes, target)?,
            Kind::Fifo => builder.special(directory, name, &attributes, Special::Fifo)?,
            Kind::CharDevice { major, minor } => {
                builder.special(directory, name, &attributes, Special::Character(*major, *minor))?
            }
            Kind::BlockDevice { major, minor } => {
                builder.special(directory, name, &attributes, Special::Block(*major, *minor))?
            }
        };
        Ok(None)
    }

    fn directory(
        &mut self,
        directory: NodeId,
        name: &[u8],
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<(), ErofsError> {
        match self.builder.child(directory, name) {
            Some(node) if self.builder.tree.is_directory(node) => {
                self.builder.set_attributes(node, path, attributes)
            }
            Some(_) => {
                // Something else was here, so what a lower directory of that name holds is gone.
                let node = self.builder.directory(directory, name, attributes)?;
                if self.below.is_anything() { self.make_opaque(node) } else { Ok(()) }
            }
            None => self.builder.directory(directory, name, attributes).map(drop),
        }
    }

    fn hard_link(
        &mut self,
        directory: NodeId,
        name: &[u8],
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), ErofsError> {
        let missing = || ErofsError::entry(path, "the file that it is another name of is not in the layer");
        let target = clean(target);
        let (folder, base) = parent(&target);
        let find = |layer: &Self| {
            let folder = layer.existing(folder)?;
            layer.builder.child(folder, base)
        };
        let node = find(self).ok_or_else(missing)?;
        if self.builder.child(directory, name) != Some(node) {
            // What is replaced may be a directory with the other file in it.
            self.builder.tree.forget(directory, name);
            let node = find(self).ok_or_else(missing)?;
            self.builder.hard_link(directory, name, node)?;
        }
        self.builder.set_attributes(node, path, attributes)
    }

    fn make_opaque(&mut self, directory: NodeId) -> Result<(), ErofsError> {
        self.builder.set_xattr(directory, b"", OPAQUE.0, OPAQUE.1)
    }

    /// Hides `name` in lower layers. What this layer has itself under that name stays, and hides the lower one by
    /// being there; a directory must not let one show through.
    fn white_out(&mut self, directory: NodeId, name: &[u8]) -> Result<(), ErofsError> {
        match self.builder.child(directory, name) {
            Some(node) if self.builder.tree.is_directory(node) => self.make_opaque(node),
            Some(_) => Ok(()),
            None => {
                let mark = Special::Character(0, 0);
                self.builder.special(directory, name, &Attributes::default(), mark).map(drop)
            }
        }
    }

    /// overlayfs never takes the root for opaque, so each name is hidden by itself.
    fn hide_root(&mut self) -> Result<(), ErofsError> {
        let names = self.below.root_names().map_err(|error| ErofsError::below(b"/", error))?;
        for name in names {
            self.white_out(self.builder.root(), &name)?;
        }
        Ok(())
    }

    /// Walks to a directory, following links, and makes what is missing on the way.
    fn directories(&mut self, path: &[u8], folder: &[u8]) -> Result<Vec<Step>, ErofsError> {
        let mut walk = Walk::to(folder);
        while let Some(name) = walk.pending.pop_front() {
            if name == b".." {
                walk.steps.pop();
                continue;
            }
            let at = walk.at(self.builder.root());
            match self.builder.child(at, &name) {
                None => {
                    let node = self.make_missing(at, &walk.path_of(&name), &name)?;
                    walk.steps.push((name, node));
                }
                Some(node) if self.builder.tree.is_directory(node) => walk.steps.push((name, node)),
                Some(node) => walk.follow(&self.builder, node).map_err(|why| ErofsError::entry(path, why))?,
            }
        }
        Ok(walk.steps)
    }

    /// The directory at a path, if it is there.
    fn existing(&self, folder: &[u8]) -> Option<NodeId> {
        let mut walk = Walk::to(folder);
        while let Some(name) = walk.pending.pop_front() {
            if name == b".." {
                walk.steps.pop();
                continue;
            }
            let node = self.builder.child(walk.at(self.builder.root()), &name)?;
            if self.builder.tree.is_directory(node) {
                walk.steps.push((name, node));
            } else {
                walk.follow(&self.builder, node).ok()?;
            }
        }
        Some(walk.at(self.builder.root()))
    }

    /// Makes a directory that no member told of.
    fn make_missing(&mut self, at: NodeId, path: &[u8], name: &[u8]) -> Result<NodeId, ErofsError> {
        let below = self.below.directory(path).map_err(|error| ErofsError::below(path, error))?;
        let attributes = below.map(allowed).unwrap_or(Attributes { mode: 0o755, ..Attributes::default() });
        self.builder.directory(at, name, &attributes)
    }
}

/// A way through the tree that cannot leave it.
struct Walk {
    steps: Vec<Step>,
    pending: VecDeque<Vec<u8>>,
    links: usize,
}

impl Walk {
    fn to(folder: &[u8]) -> Self {
        let mut walk = Self { steps: Vec::new(), pending: VecDeque::new(), links: 0 };
        walk.prepend(folder);
        walk
    }

    fn at(&self, root: NodeId) -> NodeId {
        self.steps.last().map_or(root, |(_, node)| *node)
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let above = self.steps.iter().map(|(name, _)| name.as_slice());
        above.chain([name]).collect::<Vec<_>>().join(&b'/')
    }

    fn prepend(&mut self, path: &[u8]) {
        if path.first() == Some(&b'/') {
            self.steps.clear();
        }
        for name in path.split(|byte| *byte == b'/').rev() {
            if !name.is_empty() && name != b"." {
                self.pending.push_front(name.to_vec());
            }
        }
    }

    fn follow<W: Write>(&mut self, builder: &Builder<W>, node: NodeId) -> Result<(), &'static str> {
        let Content::Symlink(target) = &builder.tree.node(node).content else {
            return Err("what should be a directory above it is none");
        };
        self.links += 1;
        if self.links > LINKS {
            return Err("there are more than 40 links on the way to it");
        }
        self.prepend(target);
        Ok(())
    }
}

/// What a member says of its file, without what a layer may not set.
fn attributes(entry: &Entry) -> Attributes {
    let everywhere = matches!(entry.kind, Kind::File | Kind::Directory | Kind::HardLink(_));
    let link = matches!(entry.kind, Kind::Symlink(_));
    // As in any file system: `user.` is for files and directories, and a symlink has no access control list.
    let has =
        |name: &[u8]| (everywhere || !name.starts_with(b"user.")) && !(link && name.starts_with(b"system."));
    allowed(Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.iter().filter(|(name, _)| has(name)).cloned().collect(),
    })
}

/// A layer may not set what the administrator's tools and overlayfs itself read.
fn allowed(mut attributes: Attributes) -> Attributes {
    attributes
        .xattrs
        .retain(|(name, _)| !name.starts_with(b"trusted.") && !name.starts_with(b"user.overlay."));
    attributes
}
