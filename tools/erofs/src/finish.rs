//! Writing what is known of the files, once all of them are known.

use std::io::{Seek, Write};

use crate::blocks::Blocks;
use crate::builder::{Builder, Finished};
use crate::directory::{self, Item};
use crate::error::ErofsError;
use crate::format::{
    BLOCK, DEVICE_SLOT, HOLE, INCOMPAT_CHUNKS, INCOMPAT_DEVICES, INODE, InodeFields, Layout, SLOT, Super,
    encode_device_slot, entry_type,
};
use crate::tree::{Content, Node, NodeId, Tree};
use crate::xattrs::{Shared, words};

/// Where the first inode stands: number 0 is left free, because some readers take it for no file.
const FIRST: u64 = 2 * SLOT;

/// The files in the order of their inodes, and what follows from their names.
struct Order {
    /// Each file once: a directory's children one after the other, directories in the order in which they were met.
    files: Vec<NodeId>,
    /// Names of each file, by its number in the tree.
    links: Vec<u32>,
    /// The directory that each directory is in.
    parents: Vec<NodeId>,
    /// How often each attribute is used.
    uses: Vec<u32>,
}

/// Where the inodes stand.
struct Places {
    /// Offsets in the metadata by number in the tree.
    offsets: Vec<u64>,
    /// First blocks of directories.
    blocks: Vec<u32>,
    end: u64,
}

pub(crate) fn finish<W: Write + Seek>(
    builder: Builder<W>,
    uuid: [u8; 16],
) -> Result<(W, Finished), ErofsError> {
    let Builder { tree, mut blocks, xattrs, tails, block, devices, .. } = builder;
    let form = Form { tree: &tree, block: block as u64 };
    let order = order(&tree, xattrs.count());
    let slots: Vec<u8> = devices.iter().copied().flat_map(encode_device_slot).collect();
    let slots_at = if slots.is_empty() { 0 } else { blocks.write(&slots)? };
    let shared = xattrs.share(&order.uses);
    let shared_at = if shared.area.is_empty() { 0 } else { blocks.write(&shared.area)? };
    let bodies = Bodies { xattrs: &xattrs, shared: &shared };
    let mut places = place(form, &order, &bodies)?;
    let metadata = blocks.reserve(places.end)?;
    for id in &order.files {
        let (whole, _) = form.parts(*id);
        if whole > 0 {
            places.blocks[id.0 as usize] = blocks.reserve(whole)?;
        }
    }
    let writing = Writing { form, order: &order, places: &places, bodies: &bodies, tails: &tails };
    writing.inodes(&mut blocks)?;
    writing.outside(&mut blocks)?;
    let superblock = Super {
        root: (places.offsets[0] / SLOT) as u16,
        inodes: order.files.len() as u64,
        blocks: blocks.next(),
        metadata,
        xattrs: shared_at,
        uuid,
        incompatible: if writing.has_chunks() { INCOMPAT_CHUNKS } else { 0 }
            | if devices.is_empty() { 0 } else { INCOMPAT_DEVICES },
        block,
        devices: devices.len() as u16,
        device_slot: (u64::from(slots_at) * block as u64 / DEVICE_SLOT as u64) as u16,
    };
    let finished = Finished { inodes: superblock.inodes, bytes: u64::from(superblock.blocks) * block as u64 };
    Ok((blocks.finish(&superblock.encode())?, finished))
}

fn order(tree: &Tree, xattrs: usize) -> Order {
    let mut order = Order {
        files: vec![Tree::ROOT],
        links: vec![0; tree.len()],
        parents: vec![Tree::ROOT; tree.len()],
        uses: vec![0; xattrs],
    };
    // The root is its own parent.
    order.links[0] = 1;
    let mut at = 0;
    while let Some(id) = order.files.get(at).copied() {
        at += 1;
        for number in &tree.node(id).xattrs {
            order.uses[*number as usize] += 1;
        }
        let Some(children) = tree.children(id) else { continue };
        order.links[id.0 as usize] += 1;
        for child in children.values().copied() {
            let links = &mut order.links[child.0 as usize];
            *links += 1;
            if *links == 1 {
                order.files.push(child);
            }
            if tree.is_directory(child) {
                order.parents[child.0 as usize] = id;
                order.links[id.0 as usize] += 1;
            }
        }
    }
    order
}

/// What stands behind inodes as their attributes.
struct Bodies<'a> {
    xattrs: &'a crate::xattrs::Xattrs,
    shared: &'a Shared,
}

impl Bodies<'_> {
    fn of(&self, node: &Node) -> Vec<u8> {
        self.xattrs.body(&node.xattrs, self.shared)
    }
}

/// Names in byte order together with the two that every directory has.
fn in_order<'a>(names: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let mut own = [&b"."[..], b".."].into_iter().peekable();
    let mut names = names.peekable();
    std::iter::from_fn(move || match (own.peek(), names.peek()) {
        (Some(mine), Some(other)) if mine > other => names.next(),
        (Some(_), _) => own.next(),
        (None, _) => names.next(),
    })
}

/// The files, and the bytes of the blocks that they are written in.
#[derive(Clone, Copy)]
struct Form<'a> {
    tree: &'a Tree,
    block: u64,
}

impl Form<'_> {
    /// The most of a directory or link that stands behind its inode, so that it can always be moved into one block.
    fn longest_tail(self) -> u64 {
        self.block - SLOT
    }

    /// How much of what is not written yet, a directory or a link, is in blocks, and how much behind its inode.
    fn parts(self, id: NodeId) -> (u64, u64) {
        match &self.tree.node(id).content {
            Content::Directory(children) => {
                let names = in_order(children.keys().map(|name| &**name));
                let length = directory::length(names, self.block as usize);
                let tail = length % self.block;
                if tail <= self.longest_tail() { (length - tail, tail) } else { (length, 0) }
            }
            // The kernel wants all of it in one place.
            Content::Symlink(text) => {
                let length = text.len() as u64;
                if length <= self.longest_tail() { (0, length) } else { (length, 0) }
            }
            _ => (0, 0),
        }
    }

    /// Bytes of data behind an inode: those that have to be within one block, and those of a map, which need not.
    fn behind(self, id: NodeId) -> (u64, u64) {
        match &self.tree.node(id).content {
            Content::Flat { size, tail: Some(_), .. } => (size % self.block, 0),
            Content::Chunked { chunks, .. } => (0, 4 * chunks.starts.len() as u64),
            _ => (self.parts(id).1, 0),
        }
    }
}

fn place(form: Form<'_>, order: &Order, bodies: &Bodies<'_>) -> Result<Places, ErofsError> {
    let Form { tree, block } = form;
    let mut places = Places { offsets: vec![0; tree.len()], blocks: vec![0; tree.len()], end: FIRST };
    for id in &order.files {
        let body = bodies.of(tree.node(*id)).len();
        if words(body).is_none() {
            return Err(ErofsError::TooMany("extended attributes of one file"));
        }
        let head = INODE as u64 + body as u64;
        let (tail, map) = form.behind(*id);
        let mut at = places.end.next_multiple_of(SLOT);
        // The kernel reads an inode that lies across two blocks, but not at once.
        if at % block + INODE as u64 > block {
            at = at.next_multiple_of(block);
        }
        if (at + head) % block + tail > block {
            at = ((at + head).next_multiple_of(block) - head).next_multiple_of(SLOT);
        }
        if (at + head) % block + tail > block {
            return Err(ErofsError::TooMany("bytes of a symbolic link with extended attributes"));
        }
        places.offsets[id.0 as usize] = at;
        places.end = at + head + tail + map;
    }
    Ok(places)
}

struct Writing<'a> {
    form: Form<'a>,
    order: &'a Order,
    places: &'a Places,
    bodies: &'a Bodies<'a>,
    tails: &'a [u8],
}

impl Writing<'_> {
    fn has_chunks(&self) -> bool {
        self.order.files.iter().any(|id| matches!(self.form.tree.node(*id).content, Content::Chunked { .. }))
    }

    fn inodes<W: Write + Seek>(&self, blocks: &mut Blocks<W>) -> Result<(), ErofsError> {
        let mut reached = 0;
        for (number, id) in self.order.files.iter().enumerate() {
            let at = self.places.offsets[id.0 as usize];
            blocks.stream(&ZEROS[..(at - reached) as usize])?;
            let body = self.bodies.of(self.form.tree.node(*id));
            let (layout, size, union, behind) = self.data(*id);
            let fields = self.fields(*id, number as u32, (layout, size, union), body.len());
            for part in [&fields.encode()[..], &body, &behind] {
                blocks.stream(part)?;
            }
            reached = at + (INODE + body.len() + behind.len()) as u64;
        }
        let end = reached.next_multiple_of(self.form.block);
        blocks.stream(&ZEROS[..(end - reached) as usize])
    }

    fn fields(
        &self,
        id: NodeId,
        number: u32,
        (layout, size, union): (Layout, u64, u32),
        body: usize,
    ) -> InodeFields {
        let node = self.form.tree.node(id);
        InodeFields {
            layout,
            xattr_words: words(body).unwrap_or(0),
            mode: node.mode,
            size,
            union,
            number: number + 1,
            uid: node.uid,
            gid: node.gid,
            seconds: node.mtime.seconds,
            nanos: node.mtime.nanos,
            links: self.order.links[id.0 as usize],
        }
    }

    /// How a file's data is laid out, its size, the inode's word on it, and what stands behind the inode.
    fn data(&self, id: NodeId) -> (Layout, u64, u32, Vec<u8>) {
        match &self.form.tree.node(id).content {
            Content::Directory(_) | Content::Symlink(_) => {
                let bytes = self.written(id);
                let (whole, tail) = self.form.parts(id);
                let start = if whole == 0 { HOLE } else { self.places.blocks[id.0 as usize] };
                let layout = if tail == 0 { Layout::Plain } else { Layout::Inline };
                let behind = bytes[bytes.len() - tail as usize..].to_vec();
                (layout, bytes.len() as u64, start, behind)
            }
            Content::Flat { start, size, tail: None } => (Layout::Plain, *size, *start, Vec::new()),
            Content::Flat { start, size, tail: Some(at) } => {
                let length = (size % self.form.block) as usize;
                let tail = self.tails[*at as usize..][..length].to_vec();
                (Layout::Inline, *size, if length as u64 == *size { HOLE } else { *start }, tail)
            }
            Content::Chunked { size, chunks } => {
                let map = chunks.starts.iter().flat_map(|start| start.to_le_bytes()).collect();
                (Layout::Chunks, *size, u32::from(chunks.bits), map)
            }
            Content::Device(number) => (Layout::Plain, 0, *number, Vec::new()),
            Content::Nothing => (Layout::Plain, 0, 0, Vec::new()),
        }
    }

    /// Writes what of directories and links is in blocks.
    fn outside<W: Write + Seek>(&self, blocks: &mut Blocks<W>) -> Result<(), ErofsError> {
        for id in self.order.files.iter().filter(|id| self.places.blocks[id.0 as usize] != 0) {
            let mut bytes = self.written(*id);
            bytes.truncate(self.form.parts(*id).0 as usize);
            bytes.resize(bytes.len().next_multiple_of(self.form.block as usize), 0);
            blocks.stream(&bytes)?;
        }
        Ok(())
    }

    /// The bytes of a directory or link.
    fn written(&self, id: NodeId) -> Vec<u8> {
        match &self.form.tree.node(id).content {
            Content::Symlink(text) => text.to_vec(),
            _ => self.directory(id),
        }
    }

    /// A directory's entries as they are on disk.
    fn directory(&self, id: NodeId) -> Vec<u8> {
        let Some(children) = self.form.tree.children(id) else { return Vec::new() };
        let item = |name, node: NodeId| Item {
            name,
            number: self.places.offsets[node.0 as usize] / SLOT,
            kind: entry_type(self.form.tree.node(node).mode),
        };
        let mut items = Vec::with_capacity(children.len() + 2);
        for name in in_order(children.keys().map(|name| &**name)) {
            items.push(match name {
                b"." => item(name, id),
                b".." => item(name, self.order.parents[id.0 as usize]),
                _ => item(name, children[name]),
            });
        }
        directory::encode(&items, self.form.block as usize)
    }
}

/// An inode is never further from the one before than a block, its own alignment and that of its tail.
static ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
