use super::*;

fn written() -> Vec<u8> {
    let (mut writer, root) = Writer::new();
    let fields = [Field::Later, Field::Byte(7), Field::Long(-5), Field::Later, Field::Int(9), Field::Later];
    let [text, inner, list] = writer.table(root, &fields)[..] else { panic!("three are written later") };
    writer.string(text, b"abc");
    writer.table(inner, &[Field::Int(1)]);
    let slots = writer.vector(list, 3);
    for (number, slot) in slots.into_iter().enumerate() {
        let [text] = writer.table(slot, &[Field::Later])[..] else { panic!("one is written later") };
        writer.string(text, &vec![b'x'; number]);
    }
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read() {
    let bytes = written();
    let buffer = Buffer::new(&bytes);
    let root = buffer.root().unwrap();
    assert_eq!(root.bytes(0).unwrap(), b"abc");
    assert_eq!((root.byte(1).unwrap(), root.long(2).unwrap(), root.int(4).unwrap()), (Some(7), -5, 9));
    assert_eq!(root.table(3).unwrap().unwrap().int(0).unwrap(), 1);
    assert_eq!((root.int(6).unwrap(), root.byte(7).unwrap()), (0, None), "not there");
    let list = root.vector(5).unwrap();
    let texts: Vec<usize> = list.tables().map(|table| table.unwrap().bytes(0).unwrap().len()).collect();
    assert_eq!(texts, [0, 1, 2]);
}

#[test]
fn one_that_is_cut_or_changed_is_an_error_or_something_else_but_no_panic() {
    let whole = written();
    let read = |bytes: &[u8]| -> Option<usize> {
        let buffer = Buffer::new(bytes);
        let root = buffer.root().ok()?;
        root.bytes(0).ok()?;
        root.table(3).ok()??.int(0).ok()?;
        let list = root.vector(5).ok()?;
        list.tables().map(|table| Some(table.ok()?.bytes(0).ok()?.len())).sum()
    };
    assert_eq!(read(&whole), Some(3));
    for length in 0..whole.len() - 1 {
        assert_ne!(read(&whole[..length]), Some(3), "cut at {length}");
    }
    for at in 0..whole.len() {
        for change in [1, 0x80, 0xff] {
            let mut other = whole.clone();
            other[at] ^= change;
            read(&other);
        }
    }
}

#[test]
fn the_same_bytes_are_not_read_without_end() {
    // A vector of a million places that all lead to one long string.
    let (mut writer, root) = Writer::new();
    let [list, text] = writer.table(root, &[Field::Later, Field::Later])[..] else { panic!() };
    let slots = writer.vector(list, 100_000);
    writer.string(text, &vec![b'x'; 1_000_000]);
    let mut bytes = writer.finish().unwrap();
    let end = bytes.len() - 1_000_001 - 4;
    for (number, _) in slots.iter().enumerate() {
        let at = bytes.len() - 1_000_001 - 4 - (100_000 - number) * 4;
        let distance = (end - at) as u32;
        bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
    }
    let buffer = Buffer::new(&bytes);
    let list = buffer.root().unwrap().vector(0).unwrap();
    assert!(list.strings().next().unwrap().is_ok());
    assert!(list.strings().any(|text| text.is_err()));
}
