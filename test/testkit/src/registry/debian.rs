//! Debian's `docker-registry` (distribution 2.8) on a loopback port.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::image::{Image, digest};
use crate::wait::{self, Watched};
use crate::{Scratch, need};

/// A registry that runs; dropping it ends it.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    address: SocketAddr,
    scratch: Scratch,
}

/// The media type of what [`Image::manifest`] gives.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a registry with a login takes.
const LOGIN: (&str, &str) = ("berth", "U*U");

/// The password's hash, one of bcrypt's published test vectors.
const HTPASSWD: &str = "berth:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";

impl DockerRegistry {
    /// Starts one that takes everything from everybody.
    #[track_caller]
    pub fn start() -> Result<Self, need::Missing> {
        Self::launch(false)
    }

    /// Starts one that wants a name and a password ([`DockerRegistry::login`]).
    #[track_caller]
    pub fn with_login() -> Result<Self, need::Missing> {
        Self::launch(true)
    }

    /// `127.0.0.1:PORT`, as references name it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Name and password, for one with a login.
    pub fn login(&self) -> (&'static str, &'static str) {
        LOGIN
    }

    #[track_caller]
    fn launch(login: bool) -> Result<Self, need::Missing> {
        let program = need::program("docker-registry")?;
        let scratch = Scratch::new();
        // The registry does not tell which port it was given, so one is chosen for it.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("loopback has a free port");
        let passwords = scratch.file("htpasswd", HTPASSWD);
        let auth = if login {
            format!("auth:\n  htpasswd:\n    realm: berth\n    path: {}\n", passwords.display())
        } else {
            String::new()
        };
        let config = scratch.file(
            "config.yml",
            format!(
                "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n  secret: test\n{auth}",
                scratch.path("data").display()
            ),
        );
        let log = std::fs::File::create(scratch.path("log")).expect("the scratch folder takes a log");
        let child = Command::new(&program)
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be copied"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let registry = Self { child, address, scratch };
        let watched = Watched::open(registry.child.id()).expect("an unreaped child is there");
        wait::soon("the registry's port", || {
            assert!(!watched.ends_within(std::time::Duration::ZERO), "it ended: {}", registry.log());
            TcpStream::connect(registry.address).is_ok()
        });
        Ok(registry)
    }

    /// Puts an image into a repository of one without a login.
    #[track_caller]
    pub fn put(&self, image: &Image, repository: &str, tag: &str) {
        for blob in image.blobs().iter().chain([&image.config()]) {
            self.put_blob(repository, blob);
        }
        self.put_document(repository, tag, MANIFEST, &image.manifest());
    }

    /// Puts a blob into a repository.
    #[track_caller]
    pub fn put_blob(&self, repository: &str, blob: &[u8]) {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        let place = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        let place = place.unwrap_or_else(|| panic!("no place for a blob in {answer}"));
        let path = place.trim_start_matches(&format!("http://{}", self.address));
        let stored = format!("{path}&digest={}", digest(blob));
        let answer = self.send("PUT", &stored, "application/octet-stream", blob);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Puts a manifest or an index into a repository, under a tag or its digest.
    #[track_caller]
    pub fn put_document(&self, repository: &str, reference: &str, kind: &str, document: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.send("PUT", &path, kind, document);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// The file in which it has a blob, for a test that spoils it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.scratch.path("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// One request, with a connection of its own.
    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> String {
        let exchange = || {
            let mut stream = TcpStream::connect(self.address)?;
            let (address, length) = (self.address, body.len());
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
                 Content-Length: {length}\r\n\r\n"
            )?;
            stream.write_all(body)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        exchange().unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // A child that has ended cannot be killed, and is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
