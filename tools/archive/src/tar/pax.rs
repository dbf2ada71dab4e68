//! pax records: `LENGTH KEY=VALUE\n`.

use super::{Segment, Time};

/// The records of one extended header that mean something for a layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
    /// Which of the keys that may come once have come.
    seen: u8,
}

/// The `GNU.sparse.*` records, of any of the three versions.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) count: Option<u64>,
    /// Of version 0.0 and 0.1; of 1.0 they stand before the data.
    pub(super) segments: Vec<Segment>,
    /// An offset of version 0.0 whose length hasn't come yet.
    pending: Option<u64>,
}

impl Records {
    /// Parses a whole extended header; the error names the record.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = split(bytes).ok_or("pax record")?;
            records.take(key, value)?;
            bytes = rest;
        }
        if records.sparse.pending.is_some() {
            return Err("sparse map");
        }
        Ok(records)
    }

    /// Whether a *global* header with these records would change what the following entries are. Readers
    /// differ in whether they honour that; the harmless rest is ignored as containerd does.
    pub(super) fn redefines_entries(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some() || self.sparse.is_present()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.take_xattr(name, value);
        }
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.take(name, value);
        }
        // Whether the first or the last one counts, and what an empty one does then, is read differently.
        const KNOWN: [&[u8]; 6] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"];
        if let Some(number) = KNOWN.iter().position(|known| *known == key) {
            if self.seen & (1 << number) != 0 {
                return Err("repeated record");
            }
            self.seen |= 1 << number;
        }
        let given = !value.is_empty();
        match key {
            b"path" => self.path = text(value, "path")?,
            b"linkpath" => self.link = text(value, "linkpath")?,
            b"size" => self.size = given.then(|| number(value).ok_or("size")).transpose()?,
            b"uid" => self.uid = given.then(|| id(value).ok_or("uid")).transpose()?,
            b"gid" => self.gid = given.then(|| id(value).ok_or("gid")).transpose()?,
            b"mtime" => self.mtime = given.then(|| time(value).ok_or("mtime")).transpose()?,
            _ => {}
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if name.is_empty() || name.contains(&0) {
            return Err("xattr name");
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

impl Sparse {
    pub(super) fn is_present(&self) -> bool {
        self.major.is_some()
            || self.minor.is_some()
            || self.name.is_some()
            || self.size.is_some()
            || self.count.is_some()
            || !self.segments.is_empty()
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let parsed = || number(value).ok_or("sparse record");
        match name {
            b"major" => self.major = Some(parsed()?),
            b"minor" => self.minor = Some(parsed()?),
            b"name" => self.name = text(value, "sparse name")?,
            b"size" | b"realsize" => self.size = Some(parsed()?),
            b"numblocks" => self.count = Some(parsed()?),
            b"map" => self.segments = map(value).ok_or("sparse map")?,
            b"offset" => {
                let earlier = self.pending.replace(parsed()?);
                earlier.map_or(Ok(()), |_| Err("sparse map"))?;
            }
            b"numbytes" => {
                let offset = self.pending.take().ok_or("sparse map")?;
                self.segments.push(Segment { offset, length: parsed()? });
            }
            _ => {}
        }
        Ok(())
    }
}

/// Splits off one record: key, value, rest.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&bytes[..space])?).ok()?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return None;
    }
    let record = &bytes[space + 1..length - 1];
    let equals = record.iter().position(|byte| *byte == b'=')?;
    if equals == 0 {
        return None;
    }
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// An empty value takes the record back.
fn text(value: &[u8], what: &'static str) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err(what);
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// Decimal digits only, below 2^63 as everywhere in the format.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let number = value.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })?;
    i64::try_from(number).is_ok().then_some(number)
}

fn id(value: &[u8]) -> Option<u32> {
    u32::try_from(number(value)?).ok()
}

/// Seconds with any number of decimals; what is finer than a nanosecond is cut off.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &value[..0]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(number(whole)?).ok()?;
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0_u32, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos },
        (true, _) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// `offset,length,offset,length…`
fn map(value: &[u8]) -> Option<Vec<Segment>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    let numbers: Vec<u64> = value.split(|byte| *byte == b',').map(number).collect::<Option<_>>()?;
    let pairs = numbers.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Appends one record; the length counts its own digits.
pub(super) fn append(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// A time as a record's value, without trailing zeros.
pub(super) fn format_time(time: Time) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    format!("{sign}{seconds}.{nanos:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_that_lies_about_its_length_is_refused() {
        for bad in
            ["6 a=b\n", "4 a=b\n", "99 a=b\n", " a=b\n", "x a=b\n", "5 ab\n\n", "6 =ab\n", "6 a=bc", "5 a=b"]
        {
            let accepted = Records::parse(bad.as_bytes()).is_ok();
            assert_eq!(accepted, bad == "6 a=b\n", "{bad:?}");
        }
    }

    #[test]
    fn times_count_forward_before_the_epoch() {
        assert_eq!(time(b"-1.25"), Some(Time { seconds: -2, nanos: 750_000_000 }));
        assert_eq!(time(b"12.0000000019"), Some(Time { seconds: 12, nanos: 1 }));
        assert_eq!(time(b"1e5"), None);
        assert_eq!(time(b"."), None);
    }

    proptest! {
        #[test]
        fn what_is_appended_is_parsed(
            value in proptest::collection::vec(any::<u8>(), 0..1200),
            seconds in -(1_i64 << 40)..1 << 40,
            nanos in 0_u32..1_000_000_000,
        ) {
            let mut bytes = Vec::new();
            append(&mut bytes, b"SCHILY.xattr.user.x", &value);
            append(&mut bytes, b"mtime", format_time(Time { seconds, nanos }).as_bytes());
            let records = Records::parse(&bytes).unwrap();
            prop_assert_eq!(&records.xattrs[0].1, &value);
            prop_assert_eq!(records.mtime, Some(Time { seconds, nanos }));
        }

        #[test]
        fn nothing_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Records::parse(&bytes);
        }
    }
}
