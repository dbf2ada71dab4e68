//! What the layers below hold, as far as a layer above needs it: their directories, of images that were read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use berth_archive::Time;

use crate::format::{CHARACTER, TYPE};
use crate::image::{Image, ImageError, Inode, ReadAt};
use crate::layer::Below;
use crate::tree::Attributes;
use crate::xattrs::OPAQUE;

/// The directories of a stack of layers, for who makes a layer on top of it and has no mount of the stack.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// By path; those that a layer hides are not in it.
    directories: BTreeMap<Vec<u8>, Attributes>,
    root: BTreeSet<Vec<u8>>,
    layers: usize,
}

impl Remembered {
    /// Adds the next layer of the stack.
    pub fn add(&mut self, image: &Image<impl ReadAt>) -> Result<(), ImageError> {
        self.layers += 1;
        let mut waiting = vec![(Vec::new(), image.root())];
        while let Some((path, number)) = waiting.pop() {
            for item in image.list(&image.inode(number)?)? {
                if item.name == b"." || item.name == b".." {
                    continue;
                }
                let below =
                    if path.is_empty() { item.name.clone() } else { [&*path, &item.name].join(&b'/') };
                if path.is_empty() {
                    self.root.insert(item.name);
                }
                let inode = image.inode(item.number)?;
                if inode.is_directory() {
                    self.directory(&below, attributes(image, &inode)?);
                    waiting.push((below, item.number));
                } else {
                    if path.is_empty() && inode.mode & TYPE == CHARACTER && inode.device() == (0, 0) {
                        self.root.remove(&below);
                    }
                    self.hide(&below);
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &[u8], attributes: Attributes) {
        if attributes.xattrs.iter().any(|(name, value)| (&**name, &**value) == OPAQUE) {
            self.hide(path);
        }
        self.directories.insert(path.to_vec(), attributes);
    }

    /// Forgets a directory and all in it.
    fn hide(&mut self, path: &[u8]) {
        self.directories.remove(path);
        let inside = [path, b"/"].concat();
        let hidden: Vec<Vec<u8>> = self
            .directories
            .range(inside.clone()..)
            .take_while(|(found, _)| found.starts_with(&inside))
            .map(|(found, _)| found.clone())
            .collect();
        for found in hidden {
            self.directories.remove(&found);
        }
    }
}

fn attributes(image: &Image<impl ReadAt>, inode: &Inode) -> Result<Attributes, ImageError> {
    Ok(Attributes {
        mode: u32::from(inode.mode & !TYPE),
        uid: inode.uid,
        gid: inode.gid,
        mtime: Time { seconds: inode.seconds, nanos: inode.nanos },
        xattrs: image.xattrs(inode)?,
    })
}

impl Below for Arc<Remembered> {
    fn is_anything(&self) -> bool {
        self.layers > 0
    }

    fn directory(&mut self, path: &[u8]) -> io::Result<Option<Attributes>> {
        Ok(self.directories.get(path).cloned())
    }

    fn root_names(&mut self) -> io::Result<Vec<Vec<u8>>> {
        Ok(self.root.iter().cloned().collect())
    }
}
