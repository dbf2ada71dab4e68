//! Where the last lines of a file begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 64 << 10;

/// The offset at which the last `wanted` whole lines begin, and how many there are from it on (fewer only when the
/// file has no more).
pub(super) fn offset(file: &File, wanted: usize) -> io::Result<(u64, usize)> {
    let size = file.metadata()?.len();
    let mut end = size;
    let mut lines = 0;
    let mut block = vec![0_u8; BLOCK as usize];
    while end > 0 {
        let from = end.saturating_sub(BLOCK);
        let part = &mut block[..(end - from) as usize];
        file.read_exact_at(part, from)?;
        for at in (0..part.len()).rev() {
            // A newline ends the line before it; the one at the very end of the file begins none.
            if part[at] == b'\n' && from + at as u64 + 1 < size {
                lines += 1;
                if lines == wanted {
                    return Ok((from + at as u64 + 1, lines));
                }
            }
        }
        end = from;
    }
    Ok((0, if size == 0 { 0 } else { lines + 1 }))
}
