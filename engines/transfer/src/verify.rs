//! Programs that judge an image before it is pulled: containerd's image verifiers
//! (`io.containerd.image-verifier.v1.bindir`).
//!
//! ```text
//!   resolved ─▶ each program of the folder, by name ─▶ all of them content: pulled
//!     FOLDER/PROGRAM -name REFERENCE -digest DIGEST -stdin-media-type application/vnd.oci.descriptor.v1+json
//!     standard input: the descriptor · status 0: content · standard output: why
//! ```
//! A program that is missing, hangs, crashes or cannot be run gives no judgement, and without one nothing is pulled.
//! Nor is anything pulled once the folder that the configuration names is gone or empty; only the default folder need
//! not be there.
//!
//! Which programs there are is the daemon's to say. It tells in its introspection, so that the engine asks wherever it
//! runs: in the daemon for clients of its API, and in the command line, whose pulls are its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_core::Catalog;
use berth_sys::launch::Ended;
use berth_sys::piped::{Patience, Piped};
use berth_types::{Descriptor, Error, ImageRef, PluginInfo, PluginState, Result};

/// Bytes that a verifier may give as its reason.
const REASON: usize = 32 << 10;

/// The type of what a verifier reads.
const DESCRIPTOR: &str = "application/vnd.oci.descriptor.v1+json";

/// The verifiers of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifiers {
    /// The folder of programs.
    pub folder: PathBuf,
    /// How many of them are run at most, in the order of their names.
    pub at_most: Option<usize>,
    /// How long each may take.
    pub each: Duration,
    /// Whether nothing may be pulled when there are none.
    pub required: bool,
}

impl Verifiers {
    /// The kind of the plugin, as introspection names it.
    pub const KIND: &str = "io.containerd.image-verifier.v1";
    /// Its id.
    pub const ID: &str = "bindir";

    /// Those of a daemon, if it has any to tell of.
    pub async fn of(catalog: &dyn Catalog) -> Result<Option<Self>> {
        let filter = format!("type=={},id=={}", Self::KIND, Self::ID);
        let found = catalog
            .introspection()
            .plugins(&[filter])
            .await
            .map_err(|error| error.context("cannot ask which programs verify images"))?;
        let Some(plugin) = found.into_iter().find(|plugin| plugin.id == Self::ID) else { return Ok(None) };
        match &plugin.state {
            PluginState::Ready => Self::read(&plugin),
            PluginState::Skipped(_) => Ok(None),
            PluginState::Failed(why) => {
                Err(Error::failed_precondition(format!("images cannot be verified: {why}")))
            }
        }
    }

    /// What introspection tells of them.
    pub fn exports(&self) -> BTreeMap<String, String> {
        let at_most = self.at_most.map_or_else(|| "-1".to_owned(), |number| number.to_string());
        let facts = [
            ("bin_dir", self.folder.display().to_string()),
            ("max_verifiers", at_most),
            ("per_verifier_timeout", format!("{}ms", self.each.as_millis())),
            ("required", self.required.to_string()),
        ];
        facts.map(|(name, fact)| (name.to_owned(), fact)).into()
    }

    /// Another daemon's that does not tell runs them for its own pulls only.
    fn read(plugin: &PluginInfo) -> Result<Option<Self>> {
        let Some(folder) = plugin.exports.get("bin_dir") else { return Ok(None) };
        let fact = |name: &str| plugin.exports.get(name).map_or("", String::as_str);
        let bad = |name: &str| {
            let text = format!("the daemon tells no valid {name} of its image verifiers: {:?}", fact(name));
            Error::failed_precondition(text)
        };
        let at_most: i64 = fact("max_verifiers").parse().map_err(|_| bad("max_verifiers"))?;
        let each = fact("per_verifier_timeout").strip_suffix("ms").and_then(|text| text.parse().ok());
        Ok(Some(Self {
            folder: PathBuf::from(folder),
            at_most: usize::try_from(at_most).ok(),
            each: Duration::from_millis(each.ok_or_else(|| bad("per_verifier_timeout"))?),
            required: fact("required") != "false",
        }))
    }

    /// Asks every verifier; an error unless all are content.
    pub async fn judge(&self, reference: &ImageRef, target: &Descriptor) -> Result<()> {
        let (own, name, target) = (self.clone(), reference.to_string(), target.clone());
        tokio::task::spawn_blocking(move || own.judge_blocking(&name, &target))
            .await
            .map_err(|error| Error::internal("an image verifier's judgement was lost").caused_by(error))?
    }

    fn judge_blocking(&self, name: &str, target: &Descriptor) -> Result<()> {
        let place = format!("{name} with digest {}", target.digest);
        let none = |why: String| {
            let text = format!("blocking pull of {place}: image verifier {} returned error: {why}", Self::ID);
            Error::unknown(text)
        };
        let programs = self.programs().map_err(none)?;
        let wanted = self.at_most.unwrap_or(usize::MAX);
        if programs.len() > wanted {
            tracing::warn!(
                folder = %self.folder.display(),
                found = programs.len(),
                max_verifiers = wanted,
                "image verifiers are being skipped: there are more than the configured maximum"
            );
        }
        for program in programs.into_iter().take(wanted) {
            let began = Instant::now();
            let shown = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let verdict = self.run(&program, name, target).map_err(|why| {
                none(format!("failed to call verifier {shown} (runtime {:.1?}): {why}", began.elapsed()))
            })?;
            let Verdict { status, reason } = verdict;
            tracing::debug!(verifier = shown, status, reason, image = name, "an image verifier has judged");
            if status != 0 {
                return Err(Error::unknown(format!(
                    "image verifier {} blocked pull of {place} for reason: verifier {shown} rejected image \
                     (exit code {status}): {reason}",
                    Self::ID
                )));
            }
        }
        Ok(())
    }

    /// The programs in the order of their names.
    fn programs(&self) -> std::result::Result<Vec<PathBuf>, String> {
        let folder = self.folder.display();
        let listed = fs::read_dir(&self.folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
        let mut programs = match listed {
            Ok(programs) => programs,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.required => Vec::new(),
            Err(error) => {
                return Err(format!(
                    "cannot list {folder}: {error}; put verifiers there or take bin_dir from the configuration"
                ));
            }
        };
        if programs.is_empty() && self.required {
            return Err(format!(
                "{folder} holds no verifier; put one there or take bin_dir from the configuration"
            ));
        }
        programs.sort();
        Ok(programs)
    }

    fn run(&self, program: &Path, name: &str, target: &Descriptor) -> std::result::Result<Verdict, String> {
        let patience = Patience::Until(Instant::now() + self.each);
        let mut descriptor = serde_json::to_vec(target).map_err(|error| error.to_string())?;
        descriptor.push(b'\n');
        let digest = target.digest.to_string();
        let arguments = ["-name", name, "-digest", &digest, "-stdin-media-type", DESCRIPTOR];
        let mut piped = Piped::start(program, &arguments.map(str::to_owned), std::env::vars_os(), None)
            .map_err(|error| format!("starting process: {error}"))?;
        let mut verdict = || {
            let (mut input, mut reason, mut surplus) = (Cursor::new(&descriptor), Vec::new(), false);
            let mut buffer = [0; 4096];
            loop {
                let length = piped.read(&mut input, &mut buffer, patience)?;
                if length == 0 {
                    break;
                }
                let room = (REASON - reason.len()).min(length);
                reason.extend_from_slice(&buffer[..room]);
                surplus |= room < length;
            }
            Ok((piped.finish(patience)?, reason, surplus))
        };
        let verdict: io::Result<_> = verdict();
        match verdict {
            Ok((Ended::Status(status), reason, surplus)) => {
                let mut reason = plain(&String::from_utf8_lossy(&reason));
                if surplus {
                    reason.push_str("(stdout truncated)");
                }
                if reason.is_empty() {
                    reason = piped.said();
                }
                Ok(Verdict { status, reason })
            }
            Ok((Ended::Signal(signal), ..)) => {
                Err(format!("it was killed by signal {signal}: {}", piped.said()))
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(format!("no judgement within {:?} (per_verifier_timeout)", self.each))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What one verifier says.
struct Verdict {
    status: i32,
    reason: String,
}

/// A program's words without what a terminal would obey.
fn plain(text: &str) -> String {
    text.trim().chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use testkit::Scratch;

    use super::*;

    fn script(scratch: &Scratch, name: &str, text: &str) {
        let path = scratch.file(name, format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn verifiers(scratch: &Scratch) -> Verifiers {
        let folder = scratch.folder().to_owned();
        Verifiers { folder, at_most: Some(10), each: Duration::from_mins(1), required: true }
    }

    fn judge(verifiers: &Verifiers) -> std::result::Result<(), String> {
        let digest = format!("sha256:{:064}", 7).parse().unwrap();
        let target = Descriptor::new("application/vnd.oci.image.manifest.v1+json", digest, 42);
        verifiers.judge_blocking("r.test/a:1", &target).map_err(|error| error.chain())
    }

    #[test]
    fn a_verifier_gets_the_image_as_containerd_gives_it() {
        let scratch = Scratch::new();
        let seen = Scratch::new();
        let out = seen.path("seen");
        script(&scratch, "one", &format!("{{ echo \"$@\"; cat; }} > {}", out.display()));
        judge(&verifiers(&scratch)).unwrap();
        let digest = format!("sha256:{:064}", 7);
        let wanted = format!(
            "-name r.test/a:1 -digest {digest} -stdin-media-type {DESCRIPTOR}\n\
             {{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"{digest}\",\"size\":42}}\n"
        );
        assert_eq!(fs::read_to_string(out).unwrap(), wanted);
    }

    #[test]
    fn all_have_to_be_content_and_the_first_that_is_not_says_why() {
        let scratch = Scratch::new();
        script(&scratch, "a", "echo fine");
        judge(&verifiers(&scratch)).unwrap();
        script(&scratch, "b", "printf ' no \\033[1msignature\\n'; exit 3");
        script(&scratch, "c", "echo never asked; exit 4");
        let error = judge(&verifiers(&scratch)).unwrap_err();
        let wanted = "for reason: verifier b rejected image (exit code 3): no  [1msignature";
        assert!(
            error.starts_with("image verifier bindir blocked pull of r.test/a:1 with digest sha256:"),
            "{error}"
        );
        assert!(error.ends_with(wanted), "{error}");
        // As many as are wanted are asked, in the order of their names.
        judge(&Verifiers { at_most: Some(1), ..verifiers(&scratch) }).unwrap();
        judge(&Verifiers { at_most: Some(0), ..verifiers(&scratch) }).unwrap();
        judge(&Verifiers { at_most: None, ..verifiers(&scratch) }).unwrap_err();
    }

    #[test]
    fn no_judgement_is_no_pull() {
        let blocked = |text: &str, limit: Duration, why: &str| {
            let scratch = Scratch::new();
            script(&scratch, "v", text);
            let error = judge(&Verifiers { each: limit, ..verifiers(&scratch) }).unwrap_err();
            assert!(error.starts_with("blocking pull of r.test/a:1"), "{error}");
            assert!(error.contains("failed to call verifier v") && error.contains(why), "{why}: {error}");
        };
        let (long, short) = (Duration::from_mins(1), Duration::from_millis(50));
        blocked("sleep 1000", short, "no judgement within 50ms (per_verifier_timeout)");
        // One whose child keeps the output open, and one that never stops talking.
        blocked("sleep 1000 & exit 0", short, "no judgement within");
        blocked("while :; do echo more; done", short, "no judgement within");
        blocked("echo ouch >&2; kill -SEGV $$", long, "killed by signal 11: ouch");
        let scratch = Scratch::new();
        scratch.file("v", "no program");
        let error = judge(&verifiers(&scratch)).unwrap_err();
        assert!(error.contains("failed to call verifier v") && error.contains("starting process"), "{error}");
    }

    #[test]
    fn a_folder_that_is_gone_or_empty_blocks_where_it_was_asked_for() {
        let scratch = Scratch::new();
        let missing = Verifiers { folder: scratch.path("none"), ..verifiers(&scratch) };
        for (verifiers, why) in [(missing, "cannot list"), (verifiers(&scratch), "holds no verifier")] {
            let error = judge(&verifiers).unwrap_err();
            assert!(error.contains(why) && error.contains("bin_dir"), "{error}");
            judge(&Verifiers { required: false, ..verifiers }).unwrap();
        }
        let file = Verifiers { folder: scratch.file("f", ""), required: false, ..verifiers(&scratch) };
        judge(&file).unwrap_err();
    }

    #[test]
    fn more_than_the_limit_of_reasons_is_cut_off() {
        let scratch = Scratch::new();
        script(&scratch, "v", "head -c 100000 /dev/zero | tr '\\0' x; exit 1");
        let error = judge(&verifiers(&scratch)).unwrap_err();
        assert!(error.ends_with("x(stdout truncated)"), "{error}");
        assert!(error.len() < REASON + 500);
    }

    #[test]
    fn what_a_daemon_tells_is_read_back() {
        let scratch = Scratch::new();
        for wanted in
            [verifiers(&scratch), Verifiers { at_most: None, required: false, ..verifiers(&scratch) }]
        {
            let plugin = PluginInfo {
                kind: Verifiers::KIND.into(),
                id: Verifiers::ID.into(),
                requires: Vec::new(),
                platforms: Vec::new(),
                exports: wanted.exports(),
                capabilities: Vec::new(),
                state: PluginState::Ready,
            };
            assert_eq!(Verifiers::read(&plugin).unwrap(), Some(wanted));
            let spoilt =
                PluginInfo { exports: [("bin_dir".to_owned(), "/x".to_owned())].into(), ..plugin.clone() };
            assert!(Verifiers::read(&spoilt).is_err());
            assert_eq!(Verifiers::read(&PluginInfo { exports: BTreeMap::new(), ..plugin }).unwrap(), None);
        }
    }
}
