//! The folder of one ingest, and what is in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_archive::Hasher;
use berth_types::{Algorithm, IngestRef, IngestStatus};

use crate::error::ContentError;

/// How much is read at a time when the hash of an ingest is found again.
const CHUNK: usize = 1 << 20;

/// The folder of an ingest.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// An ingest that can be written on.
pub(crate) struct Resumed {
    pub(crate) file: File,
    pub(crate) hasher: Hasher,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) started_at: SystemTime,
    pub(crate) updated_at: SystemTime,
}

impl Folder {
    /// Where the ingest of a reference is: by the hash of it, which has one length and no
    /// slashes.
    pub(crate) fn of(root: &Path, reference: &IngestRef) -> Self {
        let name = Hasher::digest(reference.as_str().as_bytes());
        Self { path: root.join("ingest").join(name.hex()) }
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Its bytes, to be read; `None` if they are not there.
    pub(crate) fn read_data(&self) -> Result<Option<File>, ContentError> {
        let data = self.data();
        match File::open(&data) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ContentError::io("open", &data)(error)),
        }
    }

    /// What is known of it; `None` if it isn't there, or is broken.
    pub(crate) fn status(&self) -> Result<Option<IngestStatus>, ContentError> {
        let data = self.data();
        let metadata = match fs::metadata(&data) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ContentError::io("look at", &data)(error)),
        };
        let (Some(reference), Some(started_at)) = (self.reference()?, self.time("startedat")?) else {
            return Ok(None);
        };
        // The kernel's clock of files is coarser than ours, and may be behind it.
        let modified = metadata.modified().unwrap_or(started_at).max(started_at);
        Ok(Some(IngestStatus {
            reference,
            offset: metadata.len(),
            total: self.read("total")?.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            expected: None,
            started_at,
            updated_at: self.time("updatedat")?.map_or(modified, |noted| noted.max(modified)),
        }))
    }

    pub(crate) fn reference(&self) -> Result<Option<IngestRef>, ContentError> {
        Ok(self.read("ref")?.and_then(|text| text.parse().ok()))
    }

    /// Takes the ingest up where it stopped, or begins it.
    pub(crate) fn open(
        &self,
        reference: &IngestRef,
        total: u64,
        algorithm: Algorithm,
    ) -> Result<Resumed, ContentError> {
        if let Some(status) = self.status()?
            && status.reference == *reference
            && (total == 0 || status.total == 0 || status.total == total)
            && self.is_trusted(&status)?
        {
            return self.resume(status, algorithm);
        }
        self.begin(reference, total, algorithm)
    }

    fn resume(&self, status: IngestStatus, algorithm: Algorithm) -> Result<Resumed, ContentError> {
        let data = self.data();
        let mut file =
            OpenOptions::new().read(true).write(true).open(&data).map_err(ContentError::io("open", &data))?;
        let mut hasher = Hasher::new(algorithm);
        let offset = hash(&mut file, &mut hasher, u64::MAX).map_err(ContentError::io("read", &data))?;
        let IngestStatus { total, started_at, updated_at, .. } = status;
        Ok(Resumed { file, hasher, offset, total, started_at, updated_at })
    }

    fn begin(
        &self,
        reference: &IngestRef,
        total: u64,
        algorithm: Algorithm,
    ) -> Result<Resumed, ContentError> {
        fs::create_dir_all(&self.path).map_err(ContentError::io("make", &self.path))?;
        let now = SystemTime::now();
        let data = self.data();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&data)
            .map_err(ContentError::io("make", &data))?;
        self.write("startedat", &time_text(now))?;
        self.write("updatedat", &time_text(now))?;
        if total > 0 {
            self.write("total", &total.to_string())?;
        } else {
            let path = self.path.join("total");
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ContentError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        // Last: without it the folder is none, and is begun again.
        self.write("ref", reference.as_str())?;
        Ok(Resumed {
            file,
            hasher: Hasher::new(algorithm),
            offset: 0,
            total,
            started_at: now,
            updated_at: now,
        })
    }

    /// Whether the bytes are what was written. Since the machine started, they are; before that,
    /// those that were synced when their writer let go ([`Folder::note`]).
    fn is_trusted(&self, status: &IngestStatus) -> Result<bool, ContentError> {
        let data = self.data();
        let modified = fs::metadata(&data)
            .and_then(|metadata| metadata.modified())
            .map_err(ContentError::io("look at", &data))?;
        let synced = self.time("updatedat")?.is_some_and(|noted| noted >= modified);
        Ok(status.offset == 0 || synced || modified >= machine_start())
    }

    /// Notes that everything up to now is on disk. Never makes the file: whoever aborts the ingest at this moment
    /// must not find something new in the folder that it is removing.
    pub(crate) fn note(&self, updated_at: SystemTime) -> Result<(), ContentError> {
        let path = self.path.join("updatedat");
        let noted = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .and_then(|mut file| file.write_all(time_text(updated_at).as_bytes()));
        match noted {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            noted => noted.map_err(ContentError::io("write", &path)),
        }
    }

    /// Removes it; answers whether it was there.
    pub(crate) fn remove(&self) -> Result<bool, ContentError> {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(ContentError::io("remove", &self.path)(error)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<String>, ContentError> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                Ok(None)
            }
            Err(error) => Err(ContentError::io("read", &path)(error)),
        }
    }

    fn time(&self, name: &str) -> Result<Option<SystemTime>, ContentError> {
        let text = self.read(name)?;
        let time = text.and_then(|text| text.trim().parse::<jiff::Timestamp>().ok());
        Ok(time.and_then(|time| SystemTime::try_from(time).ok()))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), ContentError> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(ContentError::io("write", &path))
    }
}

/// Takes up to `limit` bytes from the file's position into the hash; answers how many there were.
pub(crate) fn hash(file: &mut File, hasher: &mut Hasher, limit: u64) -> io::Result<u64> {
    let mut file = file.take(limit);
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn time_text(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// When the kernel started.
fn machine_start() -> SystemTime {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = Duration::new(up.tv_sec.max(0) as u64, up.tv_nsec as u32);
    SystemTime::now().checked_sub(up).unwrap_or(SystemTime::UNIX_EPOCH)
}
