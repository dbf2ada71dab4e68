//! `measure TREE LAYER…`: makes the recipe of each layer, with the folder that it was unpacked to, and the layer again;
//! prints the sizes, and the megabytes of the plain archive that went through a second.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use berth_remake::{RemakeError, Tree, make, remake};

/// A folder of the machine, trusted as it is.
struct Folder(PathBuf);

impl Tree for Folder {
    fn open(&mut self, path: &[u8]) -> io::Result<Option<Box<dyn Read>>> {
        use std::os::unix::ffi::OsStrExt;
        let path = self.0.join(Path::new(std::ffi::OsStr::from_bytes(path)));
        if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        Ok(Some(Box::new(File::open(path)?)))
    }
}

/// Compares what is written with a file.
struct Same(BufReader<File>);

impl Write for Same {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut expected = vec![0; bytes.len()];
        self.0.read_exact(&mut expected)?;
        if expected == bytes { Ok(bytes.len()) } else { Err(io::Error::other("it is not the same")) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.0.read(&mut [0])? == 0 { Ok(()) } else { Err(io::Error::other("it is too short")) }
    }
}

fn main() -> Result<(), RemakeError> {
    let mut words = std::env::args_os().skip(1);
    let mut tree = Folder(words.next().unwrap_or_default().into());
    for layer in words {
        let open = || Ok::<_, io::Error>(BufReader::with_capacity(256 << 10, File::open(&layer)?));
        let size = std::fs::metadata(&layer)?.len();
        let mut decoder = berth_archive::Decoder::new(open()?, berth_archive::Limits::default())?;
        let plain = io::copy(&mut decoder, &mut io::sink())? as f64 / 1e6;
        let mut recipe = Vec::new();
        let start = Instant::now();
        let length = make(open()?, &mut tree, &mut recipe, u64::MAX)?;
        let made = start.elapsed().as_secs_f64();
        let start = Instant::now();
        remake(|| Ok(&recipe[..]), &mut tree, Same(open()?))?;
        let remade = start.elapsed().as_secs_f64();
        println!(
            "{}: {size} bytes, {plain:.0} MB plain; recipe {length} bytes, {:.2} %; made at {:.0} MB/s, remade at {:.0} MB/s",
            Path::new(&layer).display(),
            length as f64 * 100.0 / size as f64,
            plain / made,
            plain / remade,
        );
    }
    Ok(())
}
