//! Import and unpacking of an image of 200 MB: one layer of many small files and one of few large ones.

use anyhow::Result;
use testkit::Kind;
use testkit::image::{Image, Layer};

use crate::measure::{Samples, time};
use crate::subject::Subject;
use crate::table::{Better, Table};

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let archive = image().oci_archive();
    let mut samples = [Samples::default(), Samples::default()];
    for _ in 0..rounds.div_ceil(5) {
        for (kind, samples) in [Kind::Berth, Kind::Containerd].into_iter().zip(&mut samples) {
            // Fresh folders each time: a second import would find everything there.
            let subject = Subject::empty(kind)?;
            let archive = subject.daemon.scratch().file("large.tar", &archive);
            let command = subject.import(&archive)?;
            samples.push_time(time(|| command.ok()).0);
        }
    }
    table.add(("import", "import and unpack 200 MB", "ms"), Better::Less, samples);
    Ok(())
}

pub(super) fn image() -> Image {
    let mut noise = Noise(1);
    let mut small = Layer::new().dir("small", 0o755);
    for number in 0..8_000 {
        if number % 100 == 0 {
            small = small.dir(&format!("small/{}", number / 100), 0o755);
        }
        small = small.file(&format!("small/{}/{number}", number / 100), &noise.bytes(6 << 10), 0o644);
    }
    let mut large = Layer::new().dir("large", 0o755);
    for number in 0..15 {
        large = large.file(&format!("large/{number}"), &noise.bytes(10 << 20), 0o644);
    }
    Image::new("berth.test/large:1").layer(small).layer(large).cmd(&["/nothing"])
}

/// Bytes that compress about as programs do: half of them vary, from a xorshift generator.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend_from_slice(&self.0.to_le_bytes()[..4]);
            bytes.extend_from_slice(b"berth");
        }
        bytes.truncate(length);
        bytes
    }
}
