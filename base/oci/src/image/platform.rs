//! Which image of an index is for this machine.

use std::fmt;

use berth_types::{Descriptor, Error, Platform, Result};

/// The platform on which this program runs.
pub fn host_platform() -> Platform {
    normalize(Platform {
        os: std::env::consts::OS.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        ..Platform::default()
    })
}

/// Reads `OS/ARCH[/VARIANT]`, `ARCH` or `OS`, with the usual other names of architectures.
pub fn parse_platform(text: &str) -> Result<Platform> {
    let parts: Vec<&str> = text.split('/').collect();
    let valid = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    if parts.len() > 3 || !parts.iter().all(valid) {
        return Err(Error::invalid_argument(format!(
            "invalid platform {text:?}: expected OS/ARCH[/VARIANT]"
        )));
    }
    let host = host_platform();
    let platform = |os: &str, architecture: &str, variant: &str| {
        normalize(Platform {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_ascii_lowercase(),
            variant: variant.to_ascii_lowercase(),
            ..Platform::default()
        })
    };
    Ok(match parts[..] {
        [os @ ("linux" | "windows" | "freebsd" | "darwin")] => {
            platform(os, &host.architecture, &host.variant)
        }
        [architecture] => platform(&host.os, architecture, ""),
        [os, architecture] => platform(os, architecture, ""),
        [os, architecture, variant, ..] => platform(os, architecture, variant),
        [] => host,
    })
}

/// `OS/ARCH[/VARIANT]`.
pub fn platform_string(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    text
}

/// The one name of each architecture and variant, as containerd's `platforms` normalizes them.
fn normalize(mut platform: Platform) -> Platform {
    let (architecture, variant) = match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("i386" | "x86" | "386", _) => ("386", ""),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0" | "") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64le", variant) => ("ppc64le", variant),
        (architecture, variant) => (architecture, variant),
    };
    (platform.architecture, platform.variant) = (architecture.to_owned(), variant.to_owned());
    platform
}

/// The platforms that somebody can run, best first.
#[derive(Clone, Debug)]
pub struct PlatformMatch {
    accepted: Vec<Platform>,
}

impl fmt::Display for PlatformMatch {
    /// The platforms, the best one first: `linux/arm/v7, linux/arm/v6`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted: Vec<String> = self.accepted.iter().map(platform_string).collect();
        f.write_str(&accepted.join(", "))
    }
}

impl PlatformMatch {
    /// What runs on `platform`: itself, then older variants of it.
    pub fn only(platform: &Platform) -> Self {
        let platform = normalize(platform.clone());
        let older: &[&str] = match (platform.architecture.as_str(), platform.variant.as_str()) {
            ("arm", "v8") => &["v7", "v6", "v5"],
            ("arm", "v7") => &["v6", "v5"],
            ("arm", "v6") => &["v5"],
            ("amd64", "v4") => &["v3", "v2", ""],
            ("amd64", "v3") => &["v2", ""],
            ("amd64", "v2") => &[""],
            ("arm64", variant) if !variant.is_empty() => &[""],
            _ => &[],
        };
        let older =
            older.iter().map(|variant| Platform { variant: (*variant).to_owned(), ..platform.clone() });
        Self { accepted: std::iter::once(platform.clone()).chain(older).collect() }
    }

    /// What runs on any of `platforms`, those of the first one best; for none, on this machine.
    pub fn any(platforms: &[Platform]) -> Self {
        match platforms {
            [] => Self::host(),
            platforms => {
                Self { accepted: platforms.iter().flat_map(|one| Self::only(one).accepted).collect() }
            }
        }
    }

    /// What runs on this machine.
    pub fn host() -> Self {
        Self::only(&host_platform())
    }

    /// How well a platform fits: 0 is best, none is not at all.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        let platform = normalize(platform.clone());
        self.accepted.iter().position(|accepted| {
            (&accepted.os, &accepted.architecture, &accepted.variant)
                == (&platform.os, &platform.architecture, &platform.variant)
        })
    }

    /// The best of an index's manifests: of two for one platform the one that asks for fewer features of the system, such
    /// as layers that are file systems. One without a platform fits everything, last, and one that says it is an artifact
    /// and no image (a SOCI index has its image's platform) after those. Attestations (`unknown/unknown`) never fit.
    pub fn best<'a>(&self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        manifests
            .iter()
            .filter_map(|descriptor| {
                let rank =
                    descriptor.platform.as_ref().map_or(Some(usize::MAX), |platform| self.rank(platform))?;
                let features = descriptor.platform.as_ref().map_or(0, |platform| platform.os_features.len());
                Some(((descriptor.artifact_type.is_some(), rank, features), descriptor))
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, descriptor)| descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_of_an_architecture_are_the_same() {
        for (typed, full) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
        ] {
            assert_eq!(platform_string(&parse_platform(typed).unwrap()), full);
        }
        assert!(parse_platform("a/b/c/d").is_err());
        assert!(parse_platform("linux/").is_err());
    }

    #[test]
    fn of_two_for_one_platform_the_one_that_asks_for_less_is_the_best() {
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(64)).parse().unwrap();
        let with = |byte, features: &[&str]| {
            let os_features = features.iter().map(|&feature| feature.to_owned()).collect();
            let platform = Some(Platform { os_features, ..host_platform() });
            Descriptor { platform, ..Descriptor::new("m", digest(byte), 1) }
        };
        let listed = [with("a", &["erofs"]), with("b", &[])];
        assert_eq!(PlatformMatch::host().best(&listed), Some(&listed[1]));
        assert_eq!(PlatformMatch::host().best(&listed[..1]), Some(&listed[0]));
    }

    #[test]
    fn several_platforms_are_accepted_in_their_order_and_none_means_this_machine() {
        let platforms = ["linux/arm64", "linux/amd64"].map(|text| parse_platform(text).unwrap());
        let any = PlatformMatch::any(&platforms);
        assert_eq!(platforms.each_ref().map(|one| any.rank(one)), [Some(0), Some(1)]);
        assert_eq!(any.rank(&parse_platform("linux/s390x").unwrap()), None);
        assert_eq!(PlatformMatch::any(&[]).rank(&host_platform()), Some(0));
    }

    #[test]
    fn an_artifact_for_a_platform_is_taken_after_every_image() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse().unwrap();
        let platform = Some(host_platform());
        let artifact = Descriptor {
            platform: platform.clone(),
            artifact_type: Some("application/vnd.amazon.soci.index.v2+json".to_owned()),
            ..Descriptor::new("m", digest("a"), 1)
        };
        let image = Descriptor { platform, ..Descriptor::new("m", digest("b"), 1) };
        let anywhere = Descriptor::new("m", digest("c"), 1);
        let host = PlatformMatch::host();
        assert_eq!(host.best(&[artifact.clone(), anywhere.clone(), image.clone()]), Some(&image));
        assert_eq!(host.best(&[artifact.clone(), anywhere.clone()]), Some(&anywhere));
        assert_eq!(host.best(std::slice::from_ref(&artifact)), Some(&artifact));
    }

    #[test]
    fn an_older_variant_is_second_choice_and_a_newer_none() {
        let v7 = PlatformMatch::only(&parse_platform("linux/arm/v7").unwrap());
        assert_eq!(v7.rank(&parse_platform("linux/arm/v7").unwrap()), Some(0));
        assert_eq!(v7.rank(&parse_platform("linux/arm/v6").unwrap()), Some(1));
        assert_eq!(v7.rank(&parse_platform("linux/arm/v8").unwrap()), None);
    }
}
