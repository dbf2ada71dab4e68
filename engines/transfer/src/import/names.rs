//! How imported images are called.

use berth_core::OtherNames;
use berth_types::{Descriptor, ImageName, ImageRef, Result};

/// An image's full name, as containerd writes it.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

/// A tag, or a full name (image-spec, `annotations.md`).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How images are named. The default takes the full names that an archive has.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// A repository: an image that has only a tag is called `BASE:TAG`.
    pub base: Option<String>,
    /// Leaves out images whose full name is not in the base's repository.
    pub only_base: Only,
    /// Names `BASE@DIGEST`, and for which images.
    pub digests: Option<(String, Digests)>,
    /// A name for the archive's index as a whole.
    pub index: Option<ImageName>,
    /// A name for the one image of an archive that names none.
    pub fallback: Option<ImageName>,
    /// Only the image with this tag or name.
    pub pick: Option<String>,
}

/// Which images of an archive are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Only {
    /// All that have a name.
    #[default]
    All,
    /// Those whose names are of the base.
    Base,
}

/// Which images get a name by digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digests {
    /// Those without another name.
    Unnamed,
    /// Every one.
    Every,
}

impl Names {
    /// Whether an image is one of those that are wanted.
    pub(super) fn picks(&self, target: &Descriptor) -> bool {
        let Some(pick) = &self.pick else { return true };
        [IMAGE_NAME, REF_NAME].iter().any(|key| target.annotations.get(*key) == Some(pick))
    }

    /// The names of one of an archive's images.
    pub(super) fn of(&self, target: &Descriptor, single: bool) -> Result<Vec<ImageName>> {
        let given = target.annotations.get(IMAGE_NAME).filter(|name| !name.is_empty());
        let tag = target.annotations.get(REF_NAME).filter(|name| !name.is_empty());
        let mut names: Vec<ImageName> = Vec::new();
        if let Some(name) = given.cloned().or_else(|| tag.and_then(|tag| self.full(tag))) {
            names.push(normal(&name)?);
        }
        if let Some((base, which)) = &self.digests
            && (names.is_empty() || *which == Digests::Every)
        {
            names.push(format!("{base}@{}", target.digest).parse()?);
        }
        if names.is_empty() && (single || self.pick.is_some()) {
            names.extend(self.fallback.clone());
        }
        Ok(names)
    }

    /// The full name behind a tag.
    fn full(&self, tag: &str) -> Option<String> {
        let others = match self.only_base {
            Only::All => OtherNames::Taken,
            Only::Base => OtherNames::LeftOut,
        };
        match &self.base {
            Some(base) => full(base, tag, others),
            None => tag.contains(['/', ':', '@']).then(|| tag.to_owned()),
        }
    }
}

/// The full name that a tag or a full name means in a repository, or in one below it.
pub(crate) fn full(base: &str, text: &str, others: OtherNames) -> Option<String> {
    if !text.contains(['/', ':', '@']) {
        return Some(format!("{base}:{text}"));
    }
    let is_own =
        text.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
    (is_own || others == OtherNames::Taken).then(|| text.to_owned())
}

/// Names come from whoever made the archive: only references become records, in their full form.
fn normal(name: &str) -> Result<ImageName> {
    let reference: ImageRef = name.parse()?;
    reference.to_string().parse()
}

/// The annotations of an image of that name.
pub(crate) fn annotate(target: &mut Descriptor, name: &str) {
    let tag = name.parse::<ImageRef>().ok().and_then(|name| name.tag().map(str::to_owned));
    target.annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
    target.annotations.insert(REF_NAME.to_owned(), tag.unwrap_or_else(|| name.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(annotations: &[(&str, &str)]) -> Descriptor {
        let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let mut target = Descriptor::new("m", digest, 1);
        target.annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        target
    }

    fn names(names: &Names, annotations: &[(&str, &str)]) -> Vec<String> {
        names.of(&image(annotations), true).unwrap().into_iter().map(String::from).collect()
    }

    #[test]
    fn a_full_name_is_taken_and_a_tag_needs_a_base() {
        let none = Names::default();
        let based = Names { base: Some("berth.test/a".into()), ..Names::default() };
        assert_eq!(names(&none, &[(IMAGE_NAME, "berth.test/x:2"), (REF_NAME, "2")]), ["berth.test/x:2"]);
        assert_eq!(names(&none, &[(REF_NAME, "2")]), Vec::<String>::new());
        assert_eq!(names(&based, &[(REF_NAME, "2")]), ["berth.test/a:2"]);
        assert_eq!(names(&based, &[(REF_NAME, "other.test/b:1")]), ["other.test/b:1"]);
        let only = Names { only_base: Only::Base, ..based };
        assert_eq!(names(&only, &[(REF_NAME, "other.test/b:1")]), Vec::<String>::new());
        assert_eq!(names(&only, &[(REF_NAME, "berth.test/ab:1")]), Vec::<String>::new());
        assert_eq!(names(&only, &[(REF_NAME, "berth.test/a/b:1")]), ["berth.test/a/b:1"]);
    }

    #[test]
    fn digests_and_a_fallback_name_what_has_no_name() {
        let digest = format!("base@sha256:{}", "a".repeat(64));
        let unnamed = Names { digests: Some(("base".into(), Digests::Unnamed)), ..Names::default() };
        assert_eq!(names(&unnamed, &[]), std::slice::from_ref(&digest));
        assert_eq!(names(&unnamed, &[(IMAGE_NAME, "b.test/c:1")]), ["b.test/c:1"]);
        let every = Names { digests: Some(("base".into(), Digests::Every)), ..Names::default() };
        assert_eq!(names(&every, &[(IMAGE_NAME, "b.test/c:1")]), ["b.test/c:1".to_owned(), digest]);
        let fallback = Names { fallback: Some("f".parse().unwrap()), ..Names::default() };
        assert_eq!(names(&fallback, &[]), ["f"]);
    }

    #[test]
    fn a_name_that_is_no_reference_is_refused() {
        assert!(Names::default().of(&image(&[(IMAGE_NAME, "../etc")]), true).is_err());
    }
}
