//! Images between registries, archives and the image records of a namespace: what the transfer service asks for.
//!
//! A face says what is to go from where to where, an engine does it. Who asked for it is a [`Requester`]: it is
//! told how far things are, and once it has gone the transfer ends and leaves nothing behind.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use berth_types::{Descriptor, ImageName, ImageRef, Labels, Platform, Result, SnapshotterName};

/// The image records as source or destination: which images, and under which names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageStore {
    /// The image. For an archive that comes in, the name of its index as a whole.
    pub name: Option<ImageName>,
    /// Labels of the records that are made.
    pub labels: Labels,
    /// Whose images of an index; empty for all.
    pub platforms: Vec<Platform>,
    /// Takes manifests and configurations of every platform and the layers of those above.
    pub all_metadata: bool,
    /// How many manifests of an index at most; 0 for all.
    pub manifest_limit: usize,
    /// More names.
    pub references: Vec<Reference>,
    /// Where to unpack.
    pub unpacks: Vec<UnpackInto>,
    /// What becomes of the layers' blobs after that.
    pub blobs: UnpackedBlobs,
}

/// What becomes of blobs whose layers are unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnpackedBlobs {
    /// The image keeps them.
    #[default]
    Kept,
    /// The image does not keep them, but recipes to make them again, which takes its time.
    Recipes,
    /// The image does not keep them: containerd's `discard_unpacked_layers`. Who needs them fetches them again.
    LetGo,
}

/// One more name of an image, or how it is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The name itself.
    Exact(ImageName),
    /// A repository, to which a tag or a digest is added.
    Prefix {
        /// The repository.
        name: String,
        /// What becomes of an image whose archive gives it a full name of another repository.
        others: OtherNames,
        /// Which images get a name by their digest.
        digests: NamedByDigest,
    },
}

/// What becomes of a full name that is not of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherNames {
    /// It is taken as it is.
    Taken,
    /// It is no name for this prefix.
    LeftOut,
}

/// Which images get the name `PREFIX@DIGEST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedByDigest {
    /// None.
    None,
    /// Those without another name from the prefix.
    Unnamed,
    /// Every one.
    Every,
}

/// A platform's image is to be unpacked.
#[derive(Clone, Debug, PartialEq)]
pub struct UnpackInto {
    /// Whose; none for this machine.
    pub platform: Option<Platform>,
    /// Into which snapshotter; none for the default.
    pub snapshotter: Option<SnapshotterName>,
}

/// An archive that comes in, read by a thread of its own.
pub struct ImportArchive {
    /// Its bytes.
    pub archive: Box<dyn Read + Send>,
    /// What becomes of layers that a Docker archive has uncompressed.
    pub plain: PlainLayers,
}

/// What becomes of layers that are not compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainLayers {
    /// They stay so.
    #[default]
    Kept,
    /// They are compressed.
    Compressed,
}

/// An archive that goes out, written by a thread of its own. Dropping the writer ends it.
pub struct ExportArchive {
    /// Where its bytes go.
    pub archive: Box<dyn Write + Send>,
    /// Whose images of an index.
    pub platforms: ExportPlatforms,
    /// Whether Docker's `manifest.json` is left out.
    pub without_manifest_json: bool,
    /// Whether layers that must not be passed on are left out.
    pub without_foreign_layers: bool,
}

/// Whose images of an index go into an archive.
#[derive(Clone, Debug, PartialEq)]
pub enum ExportPlatforms {
    /// Everyone's. `manifest.json` lists those of the given ones, or of this machine.
    All(Vec<Platform>),
    /// Those of the given ones, or of this machine.
    Only(Vec<Platform>),
}

/// A registry as source or destination, as the requester wants it to be spoken to.
#[derive(Clone)]
pub struct RegistryEnd {
    /// The image.
    pub reference: ImageRef,
    /// Headers for the registry's own hosts.
    pub headers: Vec<(String, String)>,
    /// The folders with `HOST/hosts.toml`; empty for those of the daemon.
    pub hosts: Vec<PathBuf>,
    /// Whether it is spoken to without TLS where no file says otherwise.
    pub plain_http: bool,
    /// Who knows the credentials.
    pub logins: Option<Arc<dyn Logins>>,
    /// Who reads what goes to and fro.
    pub transcript: Option<Transcript>,
}

/// What goes between this machine and a registry, for somebody who looks for a fault. Credentials are not in it.
#[derive(Clone)]
pub struct Transcript {
    /// How much of it.
    pub detail: TranscriptDetail,
    /// Who reads it.
    pub reader: Arc<dyn TranscriptReader>,
}

/// What of a transcript is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranscriptDetail {
    /// Requests and answers.
    Messages,
    /// Who was connected to, and how long an answer took.
    Connections,
    /// Both.
    Everything,
}

/// Reads a transcript.
#[async_trait]
pub trait TranscriptReader: Send + Sync {
    /// Takes one entry, which is one or more whole lines. Returns when there is room for the next one; a reader that
    /// takes nothing more is no error.
    async fn read(&self, entry: String);
}

/// Who somebody is to a registry. Never shown, so `Debug` does not exist.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that a token service takes for new ones.
    Refresh(String),
    /// A token that the registry itself takes.
    Bearer(String),
}

/// Knows credentials.
#[async_trait]
pub trait Logins: Send + Sync {
    /// Those for a host (with its port, if it has one), if there are any.
    async fn login(&self, host: &str) -> Result<Option<Login>>;
}

/// One step of a transfer, in containerd's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransferStep {
    /// What happens: `downloading`, `saved` …
    pub event: String,
    /// To what: the reference of an ingest, an image's name, or nothing for the transfer as a whole.
    pub name: String,
    /// The names of those that list it.
    pub parents: Vec<String>,
    /// Bytes so far.
    pub progress: u64,
    /// Bytes in all.
    pub total: u64,
    /// What it is.
    pub target: Option<Descriptor>,
}

/// Who asked for a transfer.
#[async_trait]
pub trait Requester: Send + Sync {
    /// Whether it wants to be told anything.
    fn listens(&self) -> bool;

    /// Is told a step. Returns when there is room for the next one; a requester that does not listen is no error.
    async fn tell(&self, step: TransferStep);

    /// Resolves once it does not wait for the transfer any more.
    async fn gone(&self);
}

/// Moves the images of a namespace. Each operation ends early, with Cancelled, once its requester has gone.
#[async_trait]
pub trait Transfers: Send + Sync {
    /// Stores an archive's images, unpacks them and names them.
    async fn import(&self, from: ImportArchive, to: ImageStore, requester: &dyn Requester) -> Result<()>;

    /// Writes images as an archive.
    async fn export(&self, from: ImageStore, to: ExportArchive, requester: &dyn Requester) -> Result<()>;

    /// Pulls an image, unpacks it and names it.
    async fn pull(&self, from: RegistryEnd, to: ImageStore, requester: &dyn Requester) -> Result<()>;

    /// Pushes an image.
    async fn push(&self, from: ImageStore, to: RegistryEnd, requester: &dyn Requester) -> Result<()>;

    /// Unpacks an index's or manifest's image that is there. What is unpacked already is left as it is.
    async fn unpack(&self, target: &Descriptor, into: &UnpackInto) -> Result<()>;

    /// Gives an image more names.
    async fn tag(&self, from: ImageStore, to: ImageStore) -> Result<()>;
}
