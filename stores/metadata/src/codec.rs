//! The form of a record's value: a version byte, then its fields in order, each with its length.
//!
//! Fields are only ever added at the end. A reader that knows fewer ignores the rest, one that
//! knows more takes the default for what is missing, so a newer daemon's records can be read by
//! an older one and the other way round.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_types::{Any, Labels};

const VERSION: u8 = 1;

/// A value that is none of ours, or was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the record is damaged: {0}")]
pub(crate) struct Damaged(pub(crate) &'static str);

/// Writes fields.
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn new() -> Self {
        Self(vec![VERSION])
    }

    pub(crate) fn number(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        self = self.number(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    /// Nanoseconds since 1970, as far as 64 bits reach; before that is 1970.
    pub(crate) fn time(self, value: SystemTime) -> Self {
        let since = value.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.number(since.as_nanos().try_into().unwrap_or(u64::MAX))
    }

    pub(crate) fn labels(mut self, labels: &Labels) -> Self {
        self = self.number(labels.len() as u64);
        for (key, value) in labels {
            self = self.text(key).text(value);
        }
        self
    }

    pub(crate) fn any(self, value: Option<&Any>) -> Self {
        match value {
            None => self.number(0),
            Some(any) => self.number(1).text(&any.type_url).bytes(&any.value),
        }
    }

    pub(crate) fn anys(mut self, map: &BTreeMap<String, Any>) -> Self {
        self = self.number(map.len() as u64);
        for (name, any) in map {
            self = self.text(name).any(Some(any));
        }
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields.
pub(crate) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn new(value: &'a [u8]) -> Result<Self, Damaged> {
        match value.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            Some(_) => Err(Damaged("unknown version")),
            None => Err(Damaged("empty")),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        let mut value = 0_u64;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f).checked_shl(index as u32 * 7).unwrap_or(0);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        if self.0.is_empty() { Ok(0) } else { Err(Damaged("number")) }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = usize::try_from(self.number()?).map_err(|_| Damaged("length"))?;
        let (value, rest) = self.0.split_at_checked(length).ok_or(Damaged("length"))?;
        self.0 = rest;
        Ok(value)
    }

    pub(crate) fn text(&mut self) -> Result<String, Damaged> {
        Ok(std::str::from_utf8(self.bytes()?).map_err(|_| Damaged("text"))?.to_owned())
    }

    pub(crate) fn time(&mut self) -> Result<SystemTime, Damaged> {
        Ok(UNIX_EPOCH + Duration::from_nanos(self.number()?))
    }

    pub(crate) fn labels(&mut self) -> Result<Labels, Damaged> {
        let mut labels = Labels::new();
        for _ in 0..self.number()? {
            if self.0.is_empty() {
                return Err(Damaged("labels"));
            }
            labels.insert(self.text()?, self.text()?);
        }
        Ok(labels)
    }

    pub(crate) fn any(&mut self) -> Result<Option<Any>, Damaged> {
        if self.number()? == 0 {
            return Ok(None);
        }
        Ok(Some(Any { type_url: self.text()?, value: self.bytes()?.to_vec() }))
    }

    pub(crate) fn anys(&mut self) -> Result<BTreeMap<String, Any>, Damaged> {
        let mut map = BTreeMap::new();
        for _ in 0..self.number()? {
            if self.0.is_empty() {
                return Err(Damaged("extensions"));
            }
            let name = self.text()?;
            if let Some(any) = self.any()? {
                map.insert(name, any);
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, text: String, bytes: Vec<u8>,
                                   labels: BTreeMap<String, String>, nanos: u64) {
            let time = UNIX_EPOCH + Duration::from_nanos(nanos);
            let any = Any::new(text.clone(), bytes.clone());
            let value = Encoder::new().number(number).text(&text).bytes(&bytes).labels(&labels).time(time)
                .any(Some(&any)).any(None).finish();
            let mut decoder = Decoder::new(&value).unwrap();
            prop_assert_eq!(decoder.number().unwrap(), number);
            prop_assert_eq!(decoder.text().unwrap(), text);
            prop_assert_eq!(decoder.bytes().unwrap(), &bytes);
            prop_assert_eq!(decoder.labels().unwrap(), labels);
            prop_assert_eq!(decoder.time().unwrap(), time);
            prop_assert_eq!(decoder.any().unwrap(), Some(any));
            prop_assert_eq!(decoder.any().unwrap(), None);
            // A field that a later version added.
            prop_assert_eq!(decoder.text().unwrap(), "");
        }

        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>) {
            if let Ok(mut decoder) = Decoder::new(&bytes) {
                let _ = decoder.labels();
                let _ = decoder.anys();
                let _ = decoder.time();
                let _ = decoder.any();
            }
        }
    }
}
