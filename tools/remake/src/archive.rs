//! A tar without the files that a tree has too, and the tar again.
//!
//! The lane is a row of pieces, up to its end. A number that is even, twice the length, is followed by bytes as they are in the
//! tar; an odd one, twice the length and one, by the path of a file that has them from its beginning on (its length,
//! its bytes) and their CRC-32, by which it is said which file is another one now.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::rc::Rc;

use berth_archive::{Entry, Kind, Limits, Reader, clean};
use flate2::Crc;

use crate::error::{RemakeError, recipe};
use crate::number::{read_number, write_number};

/// A smaller file is not worth to be looked for.
const SMALLEST: u64 = 96;

/// Bytes that are compared at a time.
const PART: usize = 64 << 10;

/// The longest path.
const PATH: u64 = 4096;

/// The tree that a layer was unpacked to.
pub trait Tree {
    /// Opens the regular file at a path that leads nowhere else (`a/b`, without `..`), for reading from its beginning;
    /// nothing where none is. Links in the path stay beneath the tree, and the last name is not followed.
    fn open(&mut self, path: &[u8]) -> io::Result<Option<Box<dyn Read>>>;
}

/// Reads a tar to its end, and writes down what of it the tree does not have.
pub(crate) fn split<R: BufRead, W: Write>(
    plain: R,
    tree: &mut dyn Tree,
    lane: W,
) -> Result<(R, W), RemakeError> {
    let notes = Rc::new(RefCell::new(Notes { lane, bytes: Vec::new(), is_on: true, failure: None }));
    let recorded = Recorded { inner: plain, notes: Rc::clone(&notes) };
    let mut reader = Reader::with_limits(recorded, Limits::default());
    while let Some(entry) = reader.next_entry()? {
        if entry.kind == Kind::File && entry.size >= SMALLEST && entry.segments.is_none() {
            file(&entry, &mut reader, tree, &notes)?;
        }
    }
    let Recorded { inner, notes: last } = reader.finish()?;
    drop(last);
    let notes = Rc::into_inner(notes).map(RefCell::into_inner);
    let mut notes = notes.ok_or_else(|| recipe("somebody else has the notes"))?;
    notes.settle()?;
    Ok((inner, notes.lane))
}

/// Compares a file with the tree's. What is the same is not written down.
fn file<R: BufRead, W: Write>(
    entry: &Entry,
    reader: &mut Reader<Recorded<R, W>>,
    tree: &mut dyn Tree,
    notes: &RefCell<Notes<W>>,
) -> io::Result<()> {
    let path = clean(&entry.path);
    let Some(mut file) = tree.open(&path)? else { return Ok(()) };
    notes.borrow_mut().is_on = false;
    let (mut crc, mut same) = (Crc::new(), 0);
    let (mut ours, mut theirs) = (vec![0; PART], vec![0; PART]);
    let mut data = reader.data();
    let mut rest: &[u8] = &[];
    while same < entry.size && rest.is_empty() {
        let length = data.read(&mut ours)?;
        let found = read_up_to(&mut *file, &mut theirs[..length])?;
        let equal =
            ours[..length].iter().zip(&theirs[..found]).take_while(|(one, other)| one == other).count();
        crc.update(&ours[..equal]);
        same += equal as u64;
        rest = &ours[equal..length];
    }
    let mut notes = notes.borrow_mut();
    if same > 0 {
        notes.file(&path, same, crc.sum())?;
    }
    // From here on it is taken as it is.
    notes.bytes.extend_from_slice(rest);
    notes.is_on = true;
    Ok(())
}

/// Reads until the buffer is full or there is no more.
fn read_up_to(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What is written down.
struct Notes<W> {
    lane: W,
    /// Bytes that are taken as they are, and not written yet.
    bytes: Vec<u8>,
    /// Whether what is read is taken as it is.
    is_on: bool,
    failure: Option<io::Error>,
}

impl<W: Write> Notes<W> {
    fn take(&mut self, bytes: &[u8]) {
        if !self.is_on {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= PART && self.failure.is_none() {
            self.failure = self.write().err();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.bytes.is_empty() {
            write_number(&mut self.lane, self.bytes.len() as u64 * 2)?;
            self.lane.write_all(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Writes what is waiting.
    fn settle(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)?;
        self.write()
    }

    fn file(&mut self, path: &[u8], length: u64, sum: u32) -> io::Result<()> {
        self.settle()?;
        write_number(&mut self.lane, length * 2 + 1)?;
        write_number(&mut self.lane, path.len() as u64)?;
        self.lane.write_all(path)?;
        self.lane.write_all(&sum.to_le_bytes())
    }
}

/// A tar whose bytes are taken down as they are read.
struct Recorded<R, W> {
    inner: R,
    notes: Rc<RefCell<Notes<W>>>,
}

impl<R: BufRead, W: Write> BufRead for Recorded<R, W> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(failure) = self.notes.borrow_mut().failure.take() {
            return Err(failure);
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // Inside the contract of BufRead this answers the bytes that fill_buf just showed.
        if let Ok(shown) = self.inner.fill_buf() {
            self.notes.borrow_mut().take(&shown[..amount.min(shown.len())]);
        }
        self.inner.consume(amount);
    }
}

impl<R: BufRead, W: Write> Read for Recorded<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}

/// Reads a tar as its lane and the tree tell it.
pub(crate) struct Joined<'t, R> {
    lane: R,
    tree: &'t mut dyn Tree,
    piece: Piece,
}

enum Piece {
    None,
    Bytes(u64),
    File { path: Vec<u8>, file: Box<dyn Read>, left: u64, crc: Box<Crc>, sum: u32 },
}

impl<'t, R: Read> Joined<'t, R> {
    pub(crate) fn new(lane: R, tree: &'t mut dyn Tree) -> Self {
        Self { lane, tree, piece: Piece::None }
    }

    /// Goes to the next piece; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        let mut first = [0];
        if self.lane.read(&mut first)? == 0 {
            return Ok(false);
        }
        let number = read_number(&mut (&first[..]).chain(&mut self.lane))?;
        let length = number / 2;
        if number.is_multiple_of(2) {
            self.piece = Piece::Bytes(length);
            return Ok(true);
        }
        let longest = read_number(&mut self.lane)?;
        if longest > PATH {
            return Err(recipe("a path is too long"));
        }
        let mut path = vec![0; longest as usize];
        self.lane.read_exact(&mut path)?;
        if clean(&path) != path {
            return Err(recipe("a path leads elsewhere"));
        }
        let mut sum = [0; 4];
        self.lane.read_exact(&mut sum)?;
        let Some(file) = self.tree.open(&path)? else {
            return Err(RemakeError::Gone { path: shown(&path) }.into());
        };
        let (crc, sum) = (Box::new(Crc::new()), u32::from_le_bytes(sum));
        self.piece = Piece::File { path, file, left: length, crc, sum };
        Ok(true)
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl<R: Read> Read for Joined<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let within = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.piece {
                Piece::Bytes(left) if *left > 0 => {
                    let some = within(*left);
                    let read = self.lane.read(&mut buffer[..some])?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    *left -= read as u64;
                    return Ok(read);
                }
                Piece::File { path, file, left, crc, sum } => {
                    if *left > 0 {
                        let some = within(*left);
                        let read = file.read(&mut buffer[..some])?;
                        if read == 0 {
                            return Err(RemakeError::Changed { path: shown(path) }.into());
                        }
                        crc.update(&buffer[..read]);
                        *left -= read as u64;
                        return Ok(read);
                    }
                    if crc.sum() != *sum {
                        return Err(RemakeError::Changed { path: shown(path) }.into());
                    }
                    self.piece = Piece::None;
                }
                _ => {
                    if !self.next()? {
                        return Ok(0);
                    }
                }
            }
        }
    }
}
