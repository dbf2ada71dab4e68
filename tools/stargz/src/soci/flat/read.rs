//! Reading one that anybody may have made. Nothing is followed that leads outside, and not more is read in all than an
//! honest one could hold, however often the same bytes are pointed at.

use std::cell::Cell;

use crate::soci::ZtocError;

/// How often the bytes of the buffer may be read over: writers share strings that are the same.
const SHARED: usize = 4;
/// What may be read of the smallest one.
const LEAST: usize = 1 << 20;

type Result<T> = std::result::Result<T, ZtocError>;

/// The bytes.
pub(crate) struct Buffer<'b> {
    bytes: &'b [u8],
    /// Bytes of strings and vectors that may still be read.
    left: Cell<usize>,
}

/// A table in it.
#[derive(Clone, Copy)]
pub(crate) struct Table<'b> {
    buffer: &'b Buffer<'b>,
    at: usize,
    length: usize,
    /// The places of its fields.
    places: &'b [u8],
}

/// A vector of tables or strings.
#[derive(Clone, Copy)]
pub(crate) struct Vector<'b> {
    buffer: &'b Buffer<'b>,
    at: usize,
    length: usize,
}

impl<'b> Buffer<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        let left = Cell::new(bytes.len().saturating_mul(SHARED).saturating_add(LEAST));
        Self { bytes, left }
    }

    /// The table that all begins with.
    pub(crate) fn root(&'b self) -> Result<Table<'b>> {
        self.table(self.follow(0)?)
    }

    fn table(&'b self, at: usize) -> Result<Table<'b>> {
        let back = i64::from(i32::from_le_bytes(self.number(at)?));
        let begin = i64::try_from(at).ok().and_then(|at| at.checked_sub(back));
        let begin = begin.and_then(|begin| usize::try_from(begin).ok()).ok_or(ZtocError::Malformed)?;
        let size = usize::from(u16::from_le_bytes(self.number(begin)?));
        let length = usize::from(u16::from_le_bytes(self.number(begin + 2)?));
        let places = size.checked_sub(4).ok_or(ZtocError::Malformed)?;
        let places = self.part(begin + 4, places)?;
        self.part(at, length)?;
        Ok(Table { buffer: self, at, length, places })
    }

    /// Where a distance leads.
    fn follow(&self, at: usize) -> Result<usize> {
        let distance = u32::from_le_bytes(self.number(at)?) as usize;
        // A distance of nothing leads to itself.
        if distance == 0 {
            return Err(ZtocError::Malformed);
        }
        at.checked_add(distance).ok_or(ZtocError::Malformed)
    }

    /// The bytes behind a length.
    fn counted(&self, at: usize, width: usize) -> Result<(usize, &[u8])> {
        let length = u32::from_le_bytes(self.number(at)?) as usize;
        let bytes = length.checked_mul(width).ok_or(ZtocError::Malformed)?;
        let left = self.left.get().checked_sub(bytes.saturating_add(4)).ok_or(ZtocError::Malformed)?;
        self.left.set(left);
        Ok((length, self.part(at + 4, bytes)?))
    }

    fn number<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.copied().ok_or(ZtocError::Malformed)
    }

    fn part(&self, at: usize, length: usize) -> Result<&[u8]> {
        let end = at.checked_add(length).ok_or(ZtocError::Malformed)?;
        self.bytes.get(at..end).ok_or(ZtocError::Malformed)
    }
}

impl<'b> Table<'b> {
    /// A number of four bytes; 0 where it is not there, as the schema has it.
    pub(crate) fn int(&self, field: usize) -> Result<u32> {
        Ok(self.number(field)?.map_or(0, u32::from_le_bytes))
    }

    /// A number of eight bytes, likewise.
    pub(crate) fn long(&self, field: usize) -> Result<i64> {
        Ok(self.number(field)?.map_or(0, i64::from_le_bytes))
    }

    /// A byte, where it is there.
    pub(crate) fn byte(&self, field: usize) -> Result<Option<u8>> {
        Ok(self.number(field)?.map(u8::from_le_bytes))
    }

    /// A string or a vector of bytes; empty where it is not there.
    pub(crate) fn bytes(&self, field: usize) -> Result<&'b [u8]> {
        match self.followed(field)? {
            Some(at) => Ok(self.buffer.counted(at, 1)?.1),
            None => Ok(&[]),
        }
    }

    /// A table.
    pub(crate) fn table(&self, field: usize) -> Result<Option<Table<'b>>> {
        self.followed(field)?.map(|at| self.buffer.table(at)).transpose()
    }

    /// A vector of tables or strings; empty where it is not there.
    pub(crate) fn vector(&self, field: usize) -> Result<Vector<'b>> {
        let Some(at) = self.followed(field)? else {
            return Ok(Vector { buffer: self.buffer, at: 0, length: 0 });
        };
        let (length, _) = self.buffer.counted(at, 4)?;
        Ok(Vector { buffer: self.buffer, at: at + 4, length })
    }

    fn followed(&self, field: usize) -> Result<Option<usize>> {
        self.place(field, 4)?.map(|at| self.buffer.follow(at)).transpose()
    }

    fn number<const N: usize>(&self, field: usize) -> Result<Option<[u8; N]>> {
        self.place(field, N)?.map(|at| self.buffer.number(at)).transpose()
    }

    /// Where a field of so many bytes is, if it is there.
    fn place(&self, field: usize, width: usize) -> Result<Option<usize>> {
        let place = self.places.get(field * 2..).and_then(|places| places.first_chunk());
        match place.map(|place| usize::from(u16::from_le_bytes(*place))) {
            None | Some(0) => Ok(None),
            Some(place) if place >= 4 && place + width <= self.length => Ok(Some(self.at + place)),
            Some(_) => Err(ZtocError::Malformed),
        }
    }
}

impl<'b> Vector<'b> {
    /// Its tables.
    pub(crate) fn tables(self) -> impl Iterator<Item = Result<Table<'b>>> {
        self.places().map(move |at| self.buffer.table(self.buffer.follow(at)?))
    }

    /// Its strings.
    pub(crate) fn strings(self) -> impl Iterator<Item = Result<&'b [u8]>> {
        self.places().map(move |at| Ok(self.buffer.counted(self.buffer.follow(at)?, 1)?.1))
    }

    fn places(self) -> impl Iterator<Item = usize> {
        (0..self.length).map(move |number| self.at + number * 4)
    }
}
