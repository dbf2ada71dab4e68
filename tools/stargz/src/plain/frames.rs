//! zstd, decoded frame by frame.

use std::io::{self, BufRead, Read};

use berth_archive::Counted;

use super::points::Notes;
use crate::chunk::ZSTD_WINDOW_LOG;

type Frame<R> = zstd::stream::read::Decoder<'static, Counted<R>>;

/// A stream of frames, as its plain bytes.
pub(super) struct Frames<R: BufRead> {
    /// None at the end, and after an error.
    frame: Option<Frame<R>>,
    plain: u64,
    notes: Notes,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(source: Counted<R>) -> io::Result<Self> {
        let mut frames = Self { frame: None, plain: 0, notes: Notes::default() };
        frames.begin(source)?;
        Ok(frames)
    }

    pub(super) fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn taken(&self) -> u64 {
        self.frame.as_ref().map_or(0, |frame| frame.get_ref().count)
    }

    fn begin(&mut self, source: Counted<R>) -> io::Result<()> {
        self.notes.note(self.plain, source.count, 0, &[])?;
        let mut frame = Frame::with_buffer(source)?.single_frame();
        frame.window_log_max(ZSTD_WINDOW_LOG)?;
        self.frame = Some(frame);
        Ok(())
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(frame) = &mut self.frame {
            let length = frame.read(buffer)?;
            let taken = frame.get_ref().count;
            if length > 0 {
                self.plain += length as u64;
                self.notes.check(self.plain, taken)?;
                return Ok(length);
            }
            let Some(ended) = self.frame.take() else { break };
            let mut source = ended.finish();
            if !source.fill_buf()?.is_empty() {
                self.begin(source)?;
            }
        }
        Ok(0)
    }
}
