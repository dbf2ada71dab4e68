//! Random trees, made and read back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A file as it was asked for.
#[derive(Clone, Debug)]
struct File {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
    size: usize,
}

fn file() -> impl Strategy<Value = File> {
    // Around the sizes at which data moves from behind an inode into blocks.
    let size = prop_oneof![Just(0), 1..64_usize, 2000..2100_usize, 4000..4200_usize, 8192..20_000_usize];
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (0..3_u8).prop_map(|byte| vec![byte; 100]),
        (3000..5000_usize).prop_map(|length| vec![9; length]),
    ];
    let xattrs = proptest::collection::btree_map("user\\.[a-c]", value, 0..3);
    (0..0o10_000_u32, any::<(u16, u32)>(), (any::<i32>(), 0..1_000_000_000_u32), xattrs, size).prop_map(
        |(mode, (uid, gid), (seconds, nanos), xattrs, size)| File {
            mode,
            owner: (uid.into(), gid >> 1),
            mtime: (seconds.into(), nanos),
            xattrs,
            size,
        },
    )
}

fn bytes(path: &str, size: usize) -> Vec<u8> {
    path.bytes().cycle().take(size).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_made_is_read_back(
        files in proptest::collection::btree_map("([a-d!~]{1,3}/){0,3}[e-h]{1,40}", file(), 1..60),
    ) {
        let mut layer = layer();
        for (path, file) in &files {
            let mut member = Entry::new(path.as_str(), Kind::File, file.mode);
            (member.uid, member.gid) = file.owner;
            member.mtime = Time { seconds: file.mtime.0, nanos: file.mtime.1 };
            member.size = file.size as u64;
            member.xattrs =
                file.xattrs.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect();
            layer.entry(&member, &mut &bytes(path, file.size)[..]).unwrap();
        }
        let made = image(layer);
        check(&made[..], made.len() as u64).unwrap();
        let image = Image::open(&made[..]).unwrap();
        for (path, file) in &files {
            let inode = find(&image, path).unwrap();
            prop_assert_eq!(u32::from(inode.mode), 0o100_000 | file.mode);
            prop_assert_eq!((inode.uid, inode.gid), file.owner);
            prop_assert_eq!((inode.seconds, inode.nanos), file.mtime);
            prop_assert_eq!(data(&image, path), bytes(path, file.size));
            let found = image.xattrs(&inode).unwrap().into_iter();
            let found = found.map(|(name, value)| (String::from_utf8(name).unwrap(), value)).collect::<BTreeMap<_, _>>();
            prop_assert_eq!(&found, &file.xattrs);
        }
    }
}
