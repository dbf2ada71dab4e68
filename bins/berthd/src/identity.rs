//! Under which name the program runs: its own, or containerd's for whatever starts `containerd`.

use std::path::Path;

/// The release of containerd whose API is served; clients decide by it what they may ask for.
pub(crate) const API: &str = "2.3.4";

/// The names and places that go with a program's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: &'static str,
    /// The second word of `--version`.
    pub(crate) package: &'static str,
    pub(crate) root: &'static str,
    pub(crate) state: &'static str,
    pub(crate) address: &'static str,
    pub(crate) config: &'static str,
    pub(crate) imports: &'static str,
}

const BERTH: Identity = Identity {
    name: "berthd",
    package: "berth",
    root: "/var/lib/berth",
    state: "/run/berth",
    address: "/run/berth/berth.sock",
    config: "/etc/berth/config.toml",
    imports: "/etc/berth/conf.d/*.toml",
};

const CONTAINERD: Identity = Identity {
    name: "containerd",
    package: "github.com/containerd/containerd/v2",
    root: "/var/lib/containerd",
    state: "/run/containerd",
    address: "/run/containerd/containerd.sock",
    config: "/etc/containerd/config.toml",
    imports: "/etc/containerd/conf.d/*.toml",
};

impl Identity {
    /// The one that belongs to the program's first word.
    pub(crate) fn of(program: &Path) -> &'static Self {
        let name = program.file_name().and_then(|name| name.to_str());
        if name == Some("containerd") { &CONTAINERD } else { &BERTH }
    }

    /// `containerd github.com/containerd/containerd/v2 VERSION REVISION`, which scripts take apart at blanks.
    pub(crate) fn version_line(&self) -> String {
        format!("{} {} {} {}", self.name, self.package, version(), revision())
    }
}

/// The API's release, with berth's own version as the build metadata of a semantic version.
pub(crate) fn version() -> String {
    format!("{API}+berth.{}", env!("CARGO_PKG_VERSION"))
}

/// The commit, when the build was told it.
pub(crate) fn revision() -> &'static str {
    option_env!("BERTH_REVISION").unwrap_or("unknown")
}

/// The platform in containerd's form.
pub(crate) fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        "riscv64" => "linux/riscv64",
        "powerpc64" => "linux/ppc64le",
        "s390x" => "linux/s390x",
        _ => "linux/unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_chooses_the_places() {
        assert_eq!(Identity::of(Path::new("/usr/bin/containerd")).root, "/var/lib/containerd");
        assert_eq!(Identity::of(Path::new("berthd")).root, "/var/lib/berth");
        assert_eq!(Identity::of(Path::new("")).name, "berthd");
    }

    #[test]
    fn the_version_has_four_words() {
        let line = Identity::of(Path::new("containerd")).version_line();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words.len(), 4, "{line}");
        assert_eq!(words[..2], ["containerd", "github.com/containerd/containerd/v2"]);
        assert!(words[2].starts_with("2."));
    }
}
