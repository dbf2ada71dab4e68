//! Makes an image of a tar: `cargo run --release -p berth-erofs --example image -- TAR IMAGE`.

use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use berth_archive::Reader;
use berth_erofs::{Layer, Nothing};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tar, image] = &arguments[..] else {
        eprintln!("image TAR IMAGE");
        std::process::exit(2);
    };
    let start = Instant::now();
    let input = BufReader::with_capacity(1 << 20, File::open(tar).expect("the archive can be opened"));
    let mut reader = Reader::new(input);
    let output = File::create(image).expect("the image can be made");
    let mut layer = Layer::new(output, Nothing, (0, 0)).expect("the image can be written");
    while let Some(entry) = reader.next_entry().expect("the archive can be read") {
        layer.entry(&entry, &mut reader.data()).expect("the member fits");
    }
    let (_, finished) = layer.finish([0; 16]).expect("the image can be written");
    println!("{:.3} s, {finished:?}", start.elapsed().as_secs_f64());
}
