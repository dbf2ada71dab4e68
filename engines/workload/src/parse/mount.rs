//! What is mounted into a container: `-v`, `--mount` and `--tmpfs`.

use std::path::{Component, Path, PathBuf};

use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or folder of the host.
    #[default]
    Bind,
    /// A volume of ours.
    Volume,
    /// Memory.
    Tmpfs,
}

/// Details of a bind mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `rprivate`, `rslave`, `rshared`, `private`, `slave` or `shared`; empty for `rprivate`.
    pub propagation: String,
    /// Whether mounts beneath it stay outside.
    pub non_recursive: bool,
    /// Whether a missing source is made a folder, as `-v` does and `--mount` does not.
    pub create_mountpoint: bool,
    /// Whether `ro` holds for mounts beneath it, too.
    pub read_only_force_recursive: bool,
}

/// One mount that somebody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountRequest {
    /// What.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// A path of the host, or a volume's name; empty for a volume without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The path in the container.
    pub target: String,
    /// Whether it cannot be written to.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Details of a bind mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Whether a new volume stays empty instead of getting what the image has there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_copy: bool,
    /// A folder of the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// Options of a tmpfs as mount(8) takes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs_options: Vec<String>,
    /// What the user wrote after the last colon.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
}

fn invalid(text: &str, why: &str) -> Error {
    Error::invalid_argument(format!("invalid mount {text:?}: {why}"))
}

/// The path inside the container: absolute, cleaned, not the root.
fn destination(text: &str, path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(invalid(text, &format!("the path in the container must be absolute: '{path}'")));
    }
    let clean = clean(Path::new(path));
    if clean == Path::new("/") {
        return Err(invalid(text, "the path in the container can't be '/'"));
    }
    Ok(clean.to_string_lossy().into_owned())
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn is_volume_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Refuses what cannot be a volume's name.
pub(crate) fn check_volume_name(name: &str) -> Result<()> {
    if is_volume_name(name) {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "{name:?} is no name for a volume: use two or more of a-z, A-Z, 0-9, '_', '.' and '-', or an absolute path for a folder of the host"
    )))
}

/// `[SOURCE:]TARGET[:OPTIONS]`. A source is a volume's name or a path; one that begins with a dot is
/// taken from `cwd`.
pub fn volume(text: &str, cwd: &Path) -> Result<MountRequest> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(invalid(text, "expected [SOURCE:]TARGET[:OPTIONS]")),
    };
    if parts.len() > 1 && source.is_empty() {
        return Err(invalid(text, "the source is empty"));
    }
    let mut request =
        MountRequest { target: destination(text, target)?, mode: mode.to_owned(), ..MountRequest::default() };
    if source.starts_with('/') || source.starts_with('.') || source.starts_with('~') {
        if source.starts_with('~') {
            return Err(invalid(text, "'~' is for the shell; write the whole path"));
        }
        request.kind = MountKind::Bind;
        request.source = clean(&cwd.join(source)).to_string_lossy().into_owned();
        request.bind_options = Some(BindOptions { create_mountpoint: true, ..BindOptions::default() });
    } else {
        request.kind = MountKind::Volume;
        if !source.is_empty() {
            check_volume_name(source)?;
        }
        source.clone_into(&mut request.source);
    }
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        let bind = &mut request.bind_options;
        match option {
            "ro" | "readonly" => request.read_only = true,
            "rro" => {
                request.read_only = true;
                bind.get_or_insert_default().read_only_force_recursive = true;
            }
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" if request.kind == MountKind::Volume => request.no_copy = true,
            "bind" => bind.get_or_insert_default().non_recursive = true,
            "rbind" => bind.get_or_insert_default().non_recursive = false,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
                if request.kind == MountKind::Bind =>
            {
                option.clone_into(&mut bind.get_or_insert_default().propagation);
            }
            other => return Err(invalid(text, &format!("unknown option '{other}'"))),
        }
    }
    Ok(request)
}

/// `TARGET[:OPTIONS]` of `--tmpfs`.
pub fn tmpfs(text: &str) -> Result<MountRequest> {
    let (target, mode) = text.split_once(':').unwrap_or((text, ""));
    let options: Vec<String> = mode.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect();
    for option in &options {
        check_tmpfs_option(text, option)?;
    }
    Ok(MountRequest {
        kind: MountKind::Tmpfs,
        target: destination(text, target)?,
        read_only: options.iter().any(|option| option == "ro"),
        tmpfs_options: options,
        mode: mode.to_owned(),
        ..MountRequest::default()
    })
}

fn check_tmpfs_option(text: &str, option: &str) -> Result<()> {
    const FLAGS: [&str; 20] = [
        "ro",
        "rw",
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "private",
        "rprivate",
    ];
    const KEYS: [&str; 8] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"];
    let known = match option.split_once('=') {
        Some((key, _)) => KEYS.contains(&key),
        None => FLAGS.contains(&option),
    };
    if known { Ok(()) } else { Err(invalid(text, &format!("a tmpfs has no option '{option}'"))) }
}

/// The `KEY=VALUE,…` of `--mount`, a line of CSV.
pub fn mount(text: &str, cwd: &Path) -> Result<MountRequest> {
    let mut request = MountRequest { kind: MountKind::Volume, ..MountRequest::default() };
    let mut bind = BindOptions::default();
    let fields = csv(text).ok_or_else(|| invalid(text, "a quote is open"))?;
    for field in &fields {
        let (key, value) =
            field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let flag = || match value {
            None | Some("true" | "1" | "") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(invalid(text, &format!("{key} is true or false, not '{other}'"))),
        };
        let needed = || value.ok_or_else(|| invalid(text, &format!("{key} needs a value")));
        match key.to_ascii_lowercase().as_str() {
            "type" => {
                request.kind = match needed()? {
                    "bind" => MountKind::Bind,
                    "volume" => MountKind::Volume,
                    "tmpfs" => MountKind::Tmpfs,
                    other => {
                        let why = format!("type is bind, volume or tmpfs, not '{other}'");
                        return Err(invalid(text, &why));
                    }
                };
            }
            "source" | "src" => needed()?.clone_into(&mut request.source),
            "target" | "dst" | "destination" => request.target = destination(text, needed()?)?,
            "readonly" | "ro" => request.read_only = flag()?,
            "rro" => {
                request.read_only = flag()?;
                bind.read_only_force_recursive = request.read_only;
            }
            "bind-propagation" => bind.propagation = propagation(text, needed()?)?,
            "bind-nonrecursive" => bind.non_recursive = flag()?,
            "bind-recursive" => match needed()? {
                "enabled" | "writable" => {}
                "disabled" => bind.non_recursive = true,
                "readonly" => bind.read_only_force_recursive = true,
                other => return Err(invalid(text, &format!("bind-recursive can't be '{other}'"))),
            },
            "bind-create-src" => bind.create_mountpoint = flag()?,
            "volume-nocopy" => request.no_copy = flag()?,
            "volume-subpath" => needed()?.clone_into(&mut request.subpath),
            "volume-label" | "consistency" => {}
            "tmpfs-size" => request.tmpfs_options.push(format!("size={}", super::bytes(needed()?)?)),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(needed()?, 8).ok().filter(|mode| *mode <= 0o7777);
                let mode = mode.ok_or_else(|| invalid(text, "tmpfs-mode is an octal number"))?;
                request.tmpfs_options.push(format!("mode={mode:o}"));
            }
            other => return Err(invalid(text, &format!("unexpected key '{other}'"))),
        }
    }
    finish(text, cwd, request, bind)
}

fn finish(text: &str, cwd: &Path, mut request: MountRequest, bind: BindOptions) -> Result<MountRequest> {
    if request.target.is_empty() {
        return Err(invalid(text, "target is required"));
    }
    match request.kind {
        MountKind::Bind => {
            if request.source.is_empty() {
                return Err(invalid(text, "a bind mount needs a source"));
            }
            request.source = clean(&cwd.join(&request.source)).to_string_lossy().into_owned();
            request.bind_options = Some(bind);
        }
        MountKind::Volume if !request.source.is_empty() => check_volume_name(&request.source)?,
        MountKind::Tmpfs if !request.source.is_empty() => {
            return Err(invalid(text, "a tmpfs has no source"));
        }
        MountKind::Volume | MountKind::Tmpfs => {}
    }
    if request.kind != MountKind::Volume && (request.no_copy || !request.subpath.is_empty()) {
        return Err(invalid(text, "only a volume takes volume-nocopy and volume-subpath"));
    }
    if request.kind != MountKind::Tmpfs && !request.tmpfs_options.is_empty() {
        return Err(invalid(text, "only a tmpfs takes tmpfs-size and tmpfs-mode"));
    }
    if Path::new(&request.subpath).components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(invalid(text, "volume-subpath must be a path inside the volume"));
    }
    Ok(request)
}

fn propagation(text: &str, value: &str) -> Result<String> {
    if ["private", "rprivate", "shared", "rshared", "slave", "rslave"].contains(&value) {
        return Ok(value.to_owned());
    }
    Err(invalid(text, &format!("bind-propagation can't be '{value}'")))
}

/// One line of CSV: fields by commas, a field in double quotes may hold commas and doubled quotes.
fn csv(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> MountRequest {
        volume(text, Path::new("/work/here")).unwrap()
    }

    #[test]
    fn a_volume_has_up_to_three_parts() {
        let anonymous = v("/data");
        assert_eq!((anonymous.kind, anonymous.source.as_str()), (MountKind::Volume, ""));
        let named = v("data:/d:ro,nocopy");
        assert_eq!((named.kind, named.source.as_str(), named.read_only), (MountKind::Volume, "data", true));
        assert!(named.no_copy);
        let bind = v("./x/../y:/a/../b:rslave");
        assert_eq!((bind.source.as_str(), bind.target.as_str()), ("/work/here/y", "/b"));
        assert_eq!(bind.bind_options.unwrap().propagation, "rslave");
        assert!(v("/a:/b:rro").bind_options.unwrap().read_only_force_recursive);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in
            ["", "data:b", "/a:/", "/a:/..", "a:/b:x", ":/b", "/a:/b:ro:rw", "-x:/b", "~/x:/b", "a/b:/c"]
        {
            assert!(volume(bad, Path::new("/")).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_are_keys_and_values() {
        let cwd = Path::new("/work");
        let bind = mount("type=bind,src=x,dst=/y,readonly,bind-propagation=rshared", cwd).unwrap();
        assert_eq!((bind.source.as_str(), bind.target.as_str(), bind.read_only), ("/work/x", "/y", true));
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770", cwd).unwrap();
        assert_eq!(tmpfs.tmpfs_options, ["size=67108864", "mode=1770"]);
        let quoted = mount("type=bind,\"src=/a,b\",dst=/c", cwd).unwrap();
        assert_eq!(quoted.source, "/a,b");
        for bad in [
            "type=bind,dst=/y",
            "type=volume,src=a/b,dst=/y",
            "type=tmpfs,src=/x,dst=/y",
            "type=npipe,dst=/y",
            "dst=/y,color=red",
            "type=bind,src=/x",
            "type=bind,src=/x,dst=y",
            "type=volume,dst=/y,volume-subpath=../x",
            "\"dst=/y",
        ] {
            assert!(mount(bad, cwd).is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfs_options_are_the_filesystems() {
        assert_eq!(tmpfs("/run:size=1m,noexec").unwrap().tmpfs_options, ["size=1m", "noexec"]);
        assert!(tmpfs("/run:lowerdir=/").is_err());
        assert!(tmpfs("run").is_err());
    }
}
