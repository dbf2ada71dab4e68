//! Layers that are used without being unpacked, or made again: tables, indexes, recipes.

use berth_remake::Tree;
use berth_stargz::soci::{self, Ztoc, ZtocError};
use berth_stargz::{
    Format, Index as LayerIndex, Kind as NodeKind, Layer as Stargz, Position, ROOT, TAIL, record,
};

use crate::targets::Room;

/// A table makes a tree in which every file is found from the root, each is made of chunks without a gap, and each
/// chunk lies in its blob.
pub(crate) fn stargz(input: &[u8]) {
    const END: u64 = 1 << 20;
    let position = Position { format: Format::Zstd, table: END..END + input.len() as u64, payload_end: END };
    let digest = berth_archive::Hasher::digest(input);
    // What is not compressed is read as it is.
    let Ok(layer) = Stargz::read_compressed(&position, input, &digest) else { return };
    tree(&layer, END, input.len());
}

/// A layer without a table has an index by which every chunk that passed can be had again.
pub(crate) fn layer_record(input: &[u8]) {
    let digest = berth_archive::Hasher::digest(input);
    let mut passed = std::collections::HashMap::new();
    let keep = |digest: &berth_types::Digest, bytes: &[u8]| {
        passed.insert(digest.clone(), bytes.to_vec());
        Ok(())
    };
    let Ok(recorded) = record(input, &digest, input.len() as u64, keep) else { return };
    let read = LayerIndex::read(&recorded.file, &digest).expect("what was written can be read");
    assert_eq!(read.layer, recorded.index.layer);
    tree(&read.layer, input.len() as u64, recorded.file.len());
    for chunk in read.layer.all_chunks() {
        let Some(stored) = &chunk.stored else { continue };
        let part = &input[stored.range.start as usize..stored.range.end as usize];
        let bytes = read.layer.decompress(chunk.size, stored, part).expect("what passed is still there");
        assert_eq!(Some(&bytes), passed.get(&stored.digest));
    }
}

/// An index that is whole makes such a tree too, whatever it says.
pub(crate) fn layer_index(input: &[u8]) {
    let Some(line) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (header, body) = (&input[..line], &input[line + 1..]);
    let Ok(mut header) = serde_json::from_slice::<serde_json::Value>(header) else { return };
    let Some(Ok(layer)) = header["layer"].as_str().map(str::parse) else { return };
    // Nobody gets further by chance.
    header["body"] = berth_archive::Hasher::digest(body).to_string().into();
    let bytes = [header.to_string().as_bytes(), b"\n", body].concat();
    if let Ok(index) = LayerIndex::read(&bytes, &layer) {
        tree(&index.layer, index.size, bytes.len() << 10);
    }
}

/// A zTOC makes such a tree too, whatever it says.
pub(crate) fn ztoc(input: &[u8]) {
    if let Ok(ztoc) = Ztoc::read(input, &berth_archive::Hasher::digest(input)) {
        tree(&ztoc.layer, ztoc.size, input.len());
    }
}

/// A layer of which a zTOC can be made can be read by that. The zTOC of some is refused, as of those with files beneath
/// files: they have to be unpacked.
pub(crate) fn ztoc_made(input: &[u8]) {
    const SPAN: u64 = 1000;
    let Ok(bytes) = soci::make(input, SPAN, "fuzz") else { return };
    let ztoc = match Ztoc::read(&bytes, &berth_archive::Hasher::digest(&bytes)) {
        Err(ZtocError::Files(_)) => return,
        read => read.expect("what was written can be read"),
    };
    assert_eq!(ztoc.size, input.len() as u64);
    tree(&ztoc.layer, ztoc.size, bytes.len());
    for chunk in ztoc.layer.all_chunks() {
        let Some(stored) = &chunk.stored else { continue };
        let part = &input[stored.range.start as usize..stored.range.end as usize];
        let bytes = ztoc.layer.decompress(chunk.size, stored, part).expect("what passed is still there");
        assert_eq!(bytes.len() as u64, chunk.size);
    }
}

/// Every file of a layer is found from the root, and every chunk lies in the blob.
fn tree(layer: &Stargz, end_of_blob: u64, most: usize) {
    let mut pending = vec![ROOT];
    let mut names = 0;
    while let Some(id) = pending.pop() {
        let node = layer.node(id).expect("a number in a directory is a file");
        let mut end = 0;
        for chunk in layer.chunks(node) {
            assert_eq!(chunk.offset, end, "chunks follow one another");
            end = chunk.end();
            if let Some(stored) = &chunk.stored {
                assert!(stored.range.start < stored.range.end && stored.range.end <= end_of_blob);
            }
        }
        match &node.kind {
            NodeKind::File { size, .. } => assert_eq!(end, *size, "chunks are the whole file"),
            NodeKind::Directory { children, .. } => {
                assert!(children.is_sorted_by(|one, other| one.0 < other.0), "names are in order, each once");
                for (name, child) in children {
                    assert!(!name.is_empty() && !name.contains(&b'/') && **name != *b"." && **name != *b"..");
                    assert_eq!(layer.child(node, name), Some(*child));
                    names += 1;
                    if matches!(layer.node(*child).expect("it is a file").kind, NodeKind::Directory { .. }) {
                        pending.push(*child);
                    }
                }
            }
            _ => {}
        }
    }
    assert!(names <= layer.nodes() + most, "no directory is in itself");
}

/// What a footer or an annotation says lies within the blob.
pub(crate) fn stargz_footer(input: &[u8]) {
    let within = |position: Position, size: u64| {
        assert!(position.table.start < position.table.end && position.table.end <= size);
        assert!(position.payload_end <= position.table.start);
    };
    for size in [input.len() as u64, 1 << 20, u64::MAX] {
        let tail = &input[input.len().saturating_sub(TAIL as usize)..];
        if let Ok(position) = Position::from_tail(tail, size) {
            within(position, size);
        }
        if let Ok(position) = Position::from_annotation(&String::from_utf8_lossy(input), size) {
            within(position, size);
        }
    }
}

/// A tree with one file.
struct One;

impl Tree for One {
    fn open(&mut self, path: &[u8]) -> std::io::Result<Option<Box<dyn std::io::Read>>> {
        assert_eq!(berth_archive::clean(path), path, "a path that leads elsewhere");
        Ok((path == b"file").then(|| Box::new(&b"the bytes of the only file"[..]) as Box<dyn std::io::Read>))
    }
}

/// A layer whose recipe can be made is made again by it.
pub(crate) fn deflate(input: &[u8]) {
    let mut recipe = Vec::new();
    if berth_remake::make(input, &mut One, &mut recipe, u64::MAX).is_err() {
        return;
    }
    let mut again = Vec::new();
    berth_remake::remake(|| Ok(&recipe[..]), &mut One, &mut again).expect("a recipe that was made is good");
    assert!(again == input, "another layer came of the recipe");
}

/// A recipe that nobody wrote makes something or is an error. The first two bytes say where its lanes meet.
pub(crate) fn recipe(input: &[u8]) {
    let Some((&[low, high], lanes)) = input.split_first_chunk::<2>() else { return };
    let (archive, compression) =
        lanes.split_at(lanes.len().min(usize::from(u16::from_le_bytes([low, high]))));
    let _ = berth_remake::remake_lanes(archive, compression, &mut One, Room::default());
    let _ = berth_remake::remake(|| Ok(lanes), &mut One, Room::default());
}
