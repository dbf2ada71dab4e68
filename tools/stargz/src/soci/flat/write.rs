//! Writing one, from the front: what is pointed at comes behind whatever points at it.

use std::collections::HashMap;

use crate::soci::ZtocError;

/// A field of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// A byte.
    Byte(u8),
    /// Four bytes.
    Int(u32),
    /// Eight bytes.
    Long(i64),
    /// A distance to what is written later, see [`Writer::point`].
    Later,
}

impl Field {
    fn width(self) -> usize {
        match self {
            Self::Byte(_) => 1,
            Self::Int(_) | Self::Later => 4,
            Self::Long(_) => 8,
        }
    }
}

/// A place for a distance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(usize);

/// The bytes so far.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// Where a vtable like this is.
    vtables: HashMap<Vec<u8>, usize>,
}

impl Writer {
    /// One that begins with a distance to its root.
    pub(crate) fn new() -> (Self, Slot) {
        (Self { bytes: vec![0; 4], vtables: HashMap::new() }, Slot(0))
    }

    /// A table that `slot` leads to; answers the slots of those fields that are written later, in their order.
    pub(crate) fn table(&mut self, slot: Slot, fields: &[Field]) -> Vec<Slot> {
        // The widest first, so that all are aligned behind the distance of four bytes.
        let (mut places, mut length) = (vec![0; fields.len()], 4);
        for width in [8, 4, 1] {
            let of_width = fields.iter().zip(&mut places).filter(|(field, _)| field.width() == width);
            for (_, place) in of_width {
                (*place, length) = (length, length + width);
            }
        }
        let lengths = [4 + 2 * fields.len(), length];
        let vtable: Vec<u8> =
            lengths.iter().chain(&places).flat_map(|number| (*number as u16).to_le_bytes()).collect();
        let vtable = if let Some(at) = self.vtables.get(&vtable) {
            *at
        } else {
            self.align(2, 0);
            let at = self.bytes.len();
            self.bytes.extend_from_slice(&vtable);
            self.vtables.insert(vtable, at);
            at
        };
        self.align(8, 4);
        let at = self.bytes.len();
        self.point_to(slot, at);
        self.bytes.extend(((at - vtable) as u32).to_le_bytes());
        self.bytes.resize(at + length, 0);
        let mut later = Vec::new();
        for (field, place) in fields.iter().zip(places) {
            let into = &mut self.bytes[at + place..];
            match field {
                Field::Byte(number) => into[0] = *number,
                Field::Int(number) => into[..4].copy_from_slice(&number.to_le_bytes()),
                Field::Long(number) => into[..8].copy_from_slice(&number.to_le_bytes()),
                Field::Later => later.push(Slot(at + place)),
            }
        }
        later
    }

    /// A string, or a vector of bytes, that `slot` leads to.
    pub(crate) fn string(&mut self, slot: Slot, text: &[u8]) {
        self.align(4, 0);
        self.point_to(slot, self.bytes.len());
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
    }

    /// A vector of so many things that are written later.
    pub(crate) fn vector(&mut self, slot: Slot, length: usize) -> Vec<Slot> {
        self.align(4, 0);
        self.point_to(slot, self.bytes.len());
        self.bytes.extend((length as u32).to_le_bytes());
        let at = self.bytes.len();
        self.bytes.resize(at + length * 4, 0);
        (0..length).map(|number| Slot(at + number * 4)).collect()
    }

    /// The whole, if its distances fit.
    pub(crate) fn finish(self) -> Result<Vec<u8>, ZtocError> {
        if i32::try_from(self.bytes.len()).is_err() { Err(ZtocError::Large) } else { Ok(self.bytes) }
    }

    fn point_to(&mut self, Slot(at): Slot, target: usize) {
        // Of one that has become too large nobody gets to see anything.
        self.bytes[at..at + 4].copy_from_slice(&((target - at) as u32).to_le_bytes());
    }

    /// Fills up to `rest` behind a multiple of `to`.
    fn align(&mut self, to: usize, rest: usize) {
        while self.bytes.len() % to != rest {
            self.bytes.push(0);
        }
    }
}
