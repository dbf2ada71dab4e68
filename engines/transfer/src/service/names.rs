//! Under which names an image store keeps what comes to it: containerd's rules.
//!
//! An image that an archive lists is named by its annotations, through the prefixes. Everything else, an archive's
//! index among it, has the store's own name and the exact ones, and the prefixes' names by digest.

use std::time::SystemTime;

use berth_core::{ImageStore, Images, NamedByDigest, OtherNames, Reference};
use berth_types::{Descriptor, Error, Image, ImageName, ImageRef, Labels, Result};

use crate::image::publish;
use crate::import::{IMAGE_NAME, REF_NAME, full};

/// Keeps an image only as long as the one that it names.
const BACK_REFERENCE: &str = "containerd.io/gc.bref.image";
const EXPIRE: &str = "containerd.io/gc.expire";

/// The records of one of an archive's images; none if nothing names it.
pub(super) fn listed(store: &ImageStore, image: &Descriptor) -> Result<Vec<Image>> {
    let mut names: Vec<ImageName> = Vec::new();
    for reference in &store.references {
        let Reference::Prefix { name: prefix, others, digests } = reference else { continue };
        let named = annotated(image, prefix, *others);
        let by_digest = match digests {
            NamedByDigest::None => false,
            NamedByDigest::Unnamed => named.is_none(),
            NamedByDigest::Every => true,
        };
        if let Some(name) = named {
            // Names come from whoever made the archive: only references become records.
            name.parse::<ImageRef>()?;
            names.push(name.parse()?);
        }
        if by_digest {
            names.push(format!("{prefix}@{}", image.digest).parse()?);
        }
    }
    let labels = beside(store);
    Ok(names.into_iter().map(|name| record(name, image, &labels)).collect())
}

/// The name that annotations give through a prefix.
fn annotated(image: &Descriptor, prefix: &str, others: OtherNames) -> Option<String> {
    let full = |text: &str| if prefix.is_empty() { None } else { full(prefix, text, others) };
    let given = |key: &str| image.annotations.get(key).filter(|text| !text.is_empty());
    match given(IMAGE_NAME) {
        // containerd's own annotation has a full name or none.
        Some(name) => full(name).filter(|full| full == name),
        None => given(REF_NAME).and_then(|tag| full(tag)),
    }
}

/// The records of anything that no archive lists.
pub(super) fn whole(store: &ImageStore, target: &Descriptor) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    if let Some(name) = &store.name {
        images.push(record(name.clone(), target, &store.labels));
    }
    let labels = beside(store);
    for reference in &store.references {
        let name = match reference {
            Reference::Exact(name) => name.clone(),
            Reference::Prefix { digests: NamedByDigest::None, .. } => continue,
            Reference::Prefix { name, .. } => format!("{name}@{}", target.digest).parse()?,
        };
        images.push(record(name, target, &labels));
    }
    Ok(images)
}

/// Whether `whole` will find a name.
pub(super) fn is_named(store: &ImageStore) -> bool {
    let names =
        |reference: &Reference| !matches!(reference, Reference::Prefix { digests: NamedByDigest::None, .. });
    store.name.is_some() || store.references.iter().any(names)
}

/// The names of a source, each of which must be there.
pub(super) fn wanted(store: &ImageStore) -> Result<Vec<ImageName>> {
    let mut names: Vec<ImageName> = store.name.iter().cloned().collect();
    for reference in &store.references {
        match reference {
            Reference::Exact(name) => names.push(name.clone()),
            Reference::Prefix { name, .. } => {
                let text = format!("images are not found by a prefix ({name}): name each one");
                return Err(Error::not_implemented(text));
            }
        }
    }
    Ok(names)
}

/// The one image of a source.
pub(super) fn only(store: &ImageStore) -> Result<&ImageName> {
    store.name.as_ref().ok_or_else(|| Error::invalid_argument("no image is named as the source"))
}

/// Labels of the names beside the store's own, which go when that one goes.
fn beside(store: &ImageStore) -> Labels {
    let mut labels = store.labels.clone();
    if let Some(name) = &store.name {
        labels.insert(BACK_REFERENCE.to_owned(), name.to_string());
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        labels.insert(EXPIRE.to_owned(), now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    labels
}

fn record(name: ImageName, target: &Descriptor, labels: &Labels) -> Image {
    Image { labels: labels.clone(), ..Image::new(name, target.clone()) }
}

/// Stores records, in place of those of their names.
pub(super) async fn store(images: &dyn Images, records: Vec<Image>) -> Result<Vec<Image>> {
    let mut stored = Vec::with_capacity(records.len());
    for record in records {
        stored.push(publish(images, record).await?);
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(annotations: &[(&str, &str)]) -> Descriptor {
        let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let mut image = Descriptor::new("m", digest, 1);
        image.annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        image
    }

    fn prefix(name: &str, others: OtherNames, digests: NamedByDigest) -> Reference {
        Reference::Prefix { name: name.to_owned(), others, digests }
    }

    fn names(records: &[Image]) -> Vec<&str> {
        records.iter().map(|record| record.name.as_str()).collect()
    }

    #[test]
    fn a_listed_image_is_named_through_each_prefix() {
        let store = ImageStore {
            references: vec![
                prefix("import", OtherNames::Taken, NamedByDigest::Unnamed),
                prefix("b.test/a", OtherNames::LeftOut, NamedByDigest::Every),
            ],
            ..ImageStore::default()
        };
        let digest = "a".repeat(64);
        let of = |annotations: &[(&str, &str)]| {
            let records = listed(&store, &image(annotations)).unwrap();
            names(&records).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let (unnamed, every) = (format!("import@sha256:{digest}"), format!("b.test/a@sha256:{digest}"));
        assert_eq!(of(&[]), [unnamed.clone(), every.clone()]);
        assert_eq!(of(&[(REF_NAME, "2")]), ["import:2", "b.test/a:2", &every]);
        assert_eq!(of(&[(REF_NAME, "c.test/d:1")]), ["c.test/d:1", &every]);
        assert_eq!(of(&[(IMAGE_NAME, "b.test/a:3"), (REF_NAME, "3")]), ["b.test/a:3", "b.test/a:3", &every]);
        assert_eq!(of(&[(IMAGE_NAME, "b.test/ab:3"), (REF_NAME, "3")]), ["b.test/ab:3", &every]);
        // An incomplete name is none, and the tag beside it does not count.
        assert_eq!(of(&[(IMAGE_NAME, "odd"), (REF_NAME, "3")]), [unnamed, every]);
    }

    #[test]
    fn a_name_that_is_no_reference_is_refused() {
        let references = vec![prefix("import", OtherNames::Taken, NamedByDigest::None)];
        let store = ImageStore { references, ..ImageStore::default() };
        assert!(listed(&store, &image(&[(IMAGE_NAME, "../etc")])).is_err());
    }

    #[test]
    fn more_names_go_with_the_stores_own() {
        let references = vec![
            Reference::Exact("b.test/x:1".parse().unwrap()),
            prefix("b.test/y", OtherNames::Taken, NamedByDigest::Unnamed),
            prefix("b.test/z", OtherNames::Taken, NamedByDigest::None),
        ];
        let labels = Labels::from([("k".to_owned(), "v".to_owned())]);
        let mut store = ImageStore { references, labels, ..ImageStore::default() };
        let by_digest = format!("b.test/y@sha256:{}", "a".repeat(64));
        let records = whole(&store, &image(&[])).unwrap();
        assert_eq!(names(&records), ["b.test/x:1", &by_digest]);
        assert!(!records[0].labels.contains_key(BACK_REFERENCE));
        store.name = Some("b.test/own:1".parse().unwrap());
        let records = whole(&store, &image(&[])).unwrap();
        assert_eq!(names(&records), ["b.test/own:1", "b.test/x:1", &by_digest]);
        assert_eq!(records[0].labels, store.labels);
        assert_eq!(records[1].labels[BACK_REFERENCE], "b.test/own:1");
        assert!(records[2].labels.contains_key(EXPIRE) && records[2].labels.contains_key("k"));
    }

    #[test]
    fn a_source_is_named_and_not_searched() {
        let exact = Reference::Exact("b.test/x:1".parse().unwrap());
        let store = ImageStore { references: vec![exact.clone()], ..ImageStore::default() };
        assert_eq!(wanted(&store).unwrap().len(), 1);
        assert!(only(&store).is_err());
        let searched = vec![exact, prefix("b.test", OtherNames::Taken, NamedByDigest::None)];
        let store = ImageStore { references: searched, ..ImageStore::default() };
        assert_eq!(wanted(&store).unwrap_err().kind(), berth_types::ErrorKind::NotImplemented);
    }
}
