//! What an archive may ask for.

/// Bounds on everything that an archive decides. The defaults are those of the project's security notes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a path or link target (Linux' `PATH_MAX`).
    pub path: usize,
    /// Bytes of one extended header: PAX records or a GNU long name.
    pub extension: u64,
    /// Entries of one archive.
    pub entries: u64,
    /// Segments of one sparse file.
    pub segments: usize,
    /// Output bytes for each input byte of a compressed stream, after [`Limits::ratio_grace`].
    pub ratio: u64,
    /// Output bytes that are given whatever their ratio.
    pub ratio_grace: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            path: 4096,
            extension: 1 << 20,
            entries: 10_000_000,
            segments: 1 << 18,
            ratio: 200,
            ratio_grace: 64 << 20,
        }
    }
}
