use std::io::{self, Read, Write};

use super::*;
use crate::Limits;

const ALL: [Compression; 3] = [Compression::Plain, Compression::Gzip, Compression::Zstd];

fn compress(data: &[u8], compression: Compression) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn decompress(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    Decoder::new(data, Limits::default())?.read_to_end(&mut output)?;
    Ok(output)
}

#[test]
fn every_compression_round_trips_and_is_recognised() {
    let data: Vec<u8> = (0..300_000_u32).flat_map(|number| (number % 977).to_le_bytes()).collect();
    for compression in ALL {
        let packed = compress(&data, compression);
        assert_eq!(Compression::detect(&packed), compression);
        assert_eq!(packed, compress(&data, compression), "deterministic");
        assert_eq!(decompress(&packed).unwrap(), data);
    }
    assert_eq!(decompress(b"").unwrap(), b"");
    assert_eq!(decompress(b"x").unwrap(), b"x");
}

#[test]
fn members_and_frames_are_joined() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let packed = [compress(b"one ", compression), compress(b"two", compression)].concat();
        assert_eq!(decompress(&packed).unwrap(), b"one two");
    }
}

#[test]
fn a_stream_cut_anywhere_is_an_error_at_once() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let packed = compress(&[1, 2, 3].repeat(2000), compression);
        for length in Compression::MAGIC_LENGTH..packed.len() {
            assert!(decompress(&packed[..length]).is_err(), "{compression:?} cut at {length}");
        }
    }
}

#[test]
fn damage_and_trailing_garbage_are_errors() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let packed = compress(&[1, 2, 3].repeat(2000), compression);
        let mut trailing = packed.clone();
        trailing.extend_from_slice(b"garbage");
        assert!(decompress(&trailing).is_err());
        let mut damaged = packed;
        let at = damaged.len() - 3;
        damaged[at] ^= 0x55;
        assert!(decompress(&damaged).is_err());
    }
}

#[test]
fn a_bomb_is_stopped_at_the_ratio() {
    let limits = Limits { ratio_grace: 1 << 20, ..Limits::default() };
    for compression in [Compression::Gzip, Compression::Zstd] {
        let packed = compress(&vec![0; 16 << 20], compression);
        let mut decoder = Decoder::new(&packed[..], limits).unwrap();
        let mut buffer = vec![0; 64 << 10];
        let mut output = 0;
        let error = loop {
            match decoder.read(&mut buffer) {
                Ok(length) => output += length,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(output < 4 << 20, "stopped after {output}");
    }
    let plain = vec![0; 4 << 20];
    io::copy(&mut Decoder::new(&plain[..], limits).unwrap(), &mut io::sink()).unwrap();
}
