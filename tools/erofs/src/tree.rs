//! The files of an image while it is made.

use std::collections::BTreeMap;

use berth_archive::Time;

use crate::blocks::Chunks;
use crate::error::ErofsError;
use crate::format::{DIRECTORY, NAME};
use crate::image::Xattr;

/// Files at most, the folders that no entry tells of included.
const MAX_NODES: usize = 10_000_000;

/// A file of an image that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub(crate) u32);

/// What is told of a file beside its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes by their full names.
    pub xattrs: Vec<Xattr>,
}

/// A file.
#[derive(Debug)]
pub(crate) struct Node {
    /// Type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Numbers of the table of attributes.
    pub(crate) xattrs: Vec<u32>,
    pub(crate) content: Content,
}

/// What is in a file.
#[derive(Debug)]
pub(crate) enum Content {
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    /// Data in blocks, and what does not fill the last one if that was kept: where in the builder's tails.
    Flat {
        start: u32,
        size: u64,
        tail: Option<u32>,
    },
    Chunked {
        size: u64,
        chunks: Chunks,
    },
    Symlink(Box<[u8]>),
    Device(u32),
    /// A pipe or a socket.
    Nothing,
}

/// All files, the root first.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    pub(crate) const ROOT: NodeId = NodeId(0);

    pub(crate) fn new() -> Self {
        let root = Node {
            mode: DIRECTORY | 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
            content: Content::Directory(BTreeMap::new()),
        };
        Self { nodes: vec![root] }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a file that has no name yet.
    pub(crate) fn add(&mut self, node: Node) -> Result<NodeId, ErofsError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(ErofsError::TooMany("files"));
        }
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        Ok(id)
    }

    pub(crate) fn children(&self, directory: NodeId) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.node(directory).content {
            Content::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// The file of that name in a directory.
    pub(crate) fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.children(directory)?.get(name).copied()
    }

    /// Names a file, in the place of whatever has the name.
    pub(crate) fn name(&mut self, directory: NodeId, name: &[u8], node: NodeId) -> Result<(), ErofsError> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err(ErofsError::entry(name, "this is no name of a file"));
        }
        if name.len() > NAME {
            return Err(ErofsError::entry(name, "a name has at most 255 bytes"));
        }
        let Content::Directory(children) = &mut self.node_mut(directory).content else {
            return Err(ErofsError::entry(name, "what it is in is no directory"));
        };
        children.insert(name.into(), node);
        Ok(())
    }

    /// Takes a name away.
    pub(crate) fn forget(&mut self, directory: NodeId, name: &[u8]) {
        if let Content::Directory(children) = &mut self.node_mut(directory).content {
            children.remove(name);
        }
    }

    pub(crate) fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.node(id).content, Content::Directory(_))
    }
}
