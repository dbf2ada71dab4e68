//! containerd's filter language: `name==foo,labels."a.b"~=^x`. The selectors of one filter all
//! have to hold; of several filters one has to.
//!
//! A selector is a field path, alone (the field is there) or with `==`, `!=` or `~=` and a value.
//! Path parts and values may be quoted like Go strings; a pattern may stand between `/` or `|`.

mod parse;
mod record;

use regex::Regex;

use crate::Result;

/// A record whose fields can be asked for by path.
pub trait Fields {
    /// The value at a path, if the record has it.
    fn field(&self, path: &[&str]) -> Option<String>;
}

/// A list of filters, of which one has to hold. An empty list holds for everything.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    filters: Vec<Vec<Selector>>,
    texts: Vec<String>,
}

#[derive(Clone, Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equals(String),
    Differs(String),
    Matches(Regex),
}

impl Filters {
    /// Parses each text; the error names the place where it went wrong.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self> {
        let texts: Vec<String> = filters.iter().map(|text| text.as_ref().to_owned()).collect();
        let filters = texts.iter().map(|text| parse::filter(text)).collect::<Result<_>>()?;
        Ok(Self { filters, texts })
    }

    /// Whether a record passes.
    pub fn matches(&self, record: &impl Fields) -> bool {
        self.filters.is_empty()
            || self.filters.iter().any(|all| all.iter().all(|selector| selector.matches(record)))
    }

    /// The filters as they were written, for whoever passes them on.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

impl Selector {
    fn matches(&self, record: &impl Fields) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = record.field(&path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equals(wanted) => value.as_ref() == Some(wanted),
            // As in containerd, a field that is not there differs from every value.
            Test::Differs(other) => value.unwrap_or_default() != *other,
            Test::Matches(pattern) => pattern.is_match(&value.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Record(BTreeMap<&'static str, &'static str>);

    impl Fields for Record {
        fn field(&self, path: &[&str]) -> Option<String> {
            self.0.get(path.join("/").as_str()).map(|&value| value.to_owned())
        }
    }

    fn matches(filters: &[&str]) -> bool {
        let record = Record(BTreeMap::from([("name", "foo"), ("labels/a.b/c", "bar baz"), ("empty", "")]));
        Filters::parse(filters).unwrap().matches(&record)
    }

    #[test]
    fn selectors_and_or() {
        assert!(matches(&[]));
        assert!(matches(&["name==foo"]));
        assert!(matches(&["name==foo,labels.\"a.b/c\"==\"bar baz\""]));
        assert!(!matches(&["name==foo,name==bar"]));
        assert!(matches(&["name==bar", "name==foo"]));
        assert!(matches(&["labels.\"a.b/c\"~=^bar"]));
        assert!(matches(&["labels.\"a.b/c\"~=/ba. b/"]));
        assert!(matches(&["labels.\"a.b/c\"~=|^bar|,name"]));
        assert!(matches(&["missing!=x"]));
        assert!(!matches(&["missing"]));
        assert!(matches(&["empty"]));
    }

    #[test]
    fn blanks_stand_where_containerd_takes_them() {
        assert!(matches(&["name==foo, empty"]));
        assert!(matches(&[" name == foo"]));
        for bad in ["name==foo ,empty", "name==foo ", "name "] {
            assert!(Filters::parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in
            ["name==", "==x", "name=x", "name~=(", "a..b", "name==foo,", "\"open", "name==\"open", "a b"]
        {
            assert!(Filters::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
