//! The images that critest asks for, under the names that it has for them.

use std::path::{Path, PathBuf};

use serde_json::json;
use testkit::image::{Entry, EntryKind, Image, Layer, digest};
use testkit::registry::DockerRegistry;
use testkit::{Invocation, image, need, programs};

/// The two repositories.
const TESTS: &str = "e2e-test-images";
const TOOLS: &str = "k8s-staging-cri-tools";
/// The users that its images are expected to have.
const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n\
                        default-user:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
const GROUP: &[u8] = b"root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\n\
                       group-defined-in-image:x:50000:default-user\n";

/// Puts them all into a registry, and gives the digest of the one that is asked for by its digest.
pub(crate) fn push(registry: &DockerRegistry) -> String {
    let standin = std::fs::read(env!("CARGO_BIN_EXE_critest-standin")).expect("cargo has built it");
    let with = |base: &Image, path: &str, mode: u32, words: &[&str]| {
        base.clone().layer(Layer::new().dir("usr/sbin", 0o755).file(path, &standin, mode)).cmd(words)
    };
    let base = base();
    let put = |image: &Image, repository: &str, name: &str, tag: &str| {
        registry.put(image, &format!("{repository}/{name}"), tag);
    };
    put(&base, TESTS, "busybox", "1.29-2");
    put(&with(&base, "usr/sbin/nginx", 0o755, &["/usr/sbin/nginx"]), TESTS, "nginx", "1.14-2");
    put(&with(&base, "usr/sbin/httpd", 0o755, &["/usr/sbin/httpd"]), TESTS, "httpd", "2.4.39-4");
    let rights = with(&base, "usr/sbin/nonewprivs", 0o4755, &["/usr/sbin/nonewprivs"]);
    put(&rights, TESTS, "nonewprivs", "1.3");
    let hosts = with(&base, "usr/sbin/nginx", 0o755, &["/usr/sbin/nginx", "12003"]);
    put(&hosts, TOOLS, &format!("hostnet-nginx-{}", image::architecture()), "latest");

    let pause = |label: &str| labelled(&base.clone().cmd(&["sleep", "1000000"]), label);
    for tag in ["3.9", "3.10.1"] {
        registry.put(&pause(tag), "pause", tag);
    }
    let users = [
        ("user-uid", "1002"),
        ("user-username", "www-data"),
        ("user-uid-group", "1003:www-data"),
        ("user-username-group", "www-data:www-data"),
        ("predefined-group", "1000"),
    ];
    for (name, user) in users {
        let image = base.clone().set("User", json!(user));
        put(&image, TOOLS, &format!("test-image-{name}"), "latest");
    }
    for name in ["latest", "digest", "1", "2", "3"] {
        put(&labelled(&base, name), TOOLS, &format!("test-image-{name}"), "latest");
    }
    for tag in ["test", "all"] {
        put(&labelled(&base, tag), TOOLS, "test-image-tag", tag);
    }
    for tag in ["1", "2", "3"] {
        put(&labelled(&base, "tags"), TOOLS, "test-image-tags", tag);
    }
    digest(&labelled(&base, "digest").manifest())
}

/// The same files under another digest.
fn labelled(image: &Image, label: &str) -> Image {
    image.clone().set("Labels", json!({ "is": label }))
}

/// Busybox and what critest misses in it. Each program is a name of its own of the one file: critest masks `/bin/ls`, and
/// a mask over a link would be one over all of them. For its sake the shell is another busybox', which looks for programs
/// where this one would do itself what it can.
fn base() -> Image {
    let program = need::program("busybox").expect("Debian's peers were looked for");
    let bytes = std::fs::read(&program).expect("a program that was found can be read");
    let mut layer = Layer::new().dir("bin", 0o755).file("bin/busybox", &bytes, 0o755);
    for applet in applets(&program) {
        // A name carries the mode of what it names.
        let name = Entry::new(EntryKind::Hardlink, &format!("bin/{applet}"));
        layer = layer.entry(&Entry { mode: 0o755, link: "bin/busybox".to_owned(), ..name });
    }
    layer = with_shell(layer);
    for (folder, mode) in [
        ("etc", 0o755),
        ("tmp", 0o1777),
        ("root", 0o700),
        ("home", 0o755),
        ("var", 0o755),
        ("proc", 0o755),
        ("sys", 0o755),
        ("dev", 0o755),
    ] {
        layer = layer.dir(folder, mode);
    }
    let layer = layer
        .file("bin/pgrep", b"#!/bin/sh\nexec pidof \"$1\"\n", 0o755)
        .file("bin/ipcs", b"#!/bin/sh\nexec cat /proc/sysvipc/shm\n", 0o755)
        .file("etc/passwd", PASSWD, 0o644)
        .file("etc/group", GROUP, 0o644);
    Image::new("critest").layer(layer).cmd(&["sh"])
}

/// The program whose shell looks programs up.
pub(crate) fn shell() -> PathBuf {
    programs::peers().join("busybox-12/bin/busybox")
}

/// Adds that shell, with the loader and the libraries that it names.
fn with_shell(layer: Layer) -> Layer {
    let read = |path: &Path| std::fs::read(path).expect("what a program is loaded with can be read");
    let loaded = Invocation::new("ldd").arg(shell()).ok();
    let libraries = loaded.split_whitespace().filter(|word| word.starts_with('/'));
    libraries.fold(layer.file("bin/sh", &read(&shell()), 0o755), |layer, path| {
        layer.file(path.trim_start_matches('/'), &read(Path::new(path)), 0o755)
    })
}

fn applets(program: &Path) -> Vec<String> {
    let list = Invocation::new(program).arg("--list").ok();
    let own = ["busybox", "sh", "pgrep", "ipcs"];
    list.lines().filter(|name| !own.contains(name)).map(str::to_owned).collect()
}
