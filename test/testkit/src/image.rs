//! Images made in memory: honest ones to run, and hostile ones to refuse.

mod archive;
mod estargz;
mod layer;
pub mod tar;

pub use archive::{Image, architecture, digest};
pub use estargz::Estargz;
pub use layer::Layer;
pub use tar::{Entry, Kind as EntryKind, Tar};

use std::path::Path;

use crate::{Invocation, need};

/// An image with Debian's static busybox, a link for each of its programs, and the few files that
/// a shell expects.
pub fn busybox() -> Result<Image, need::Missing> {
    let program = need::program("busybox")?;
    let bytes = std::fs::read(&program).expect("a program that was found can be read");
    let mut layer = Layer::new().dir("bin", 0o755).file("bin/busybox", &bytes, 0o755);
    for applet in applets(&program) {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    let layer = layer
        .dir("etc", 0o755)
        .file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", 0o644)
        .file("etc/group", b"root:x:0:\nstaff:x:50:nobody\nnogroup:x:65534:\n", 0o644)
        .dir("root", 0o700)
        .dir("tmp", 0o1777)
        .dir("proc", 0o755)
        .dir("sys", 0o755)
        .dir("dev", 0o755);
    Ok(Image::new("berth.test/busybox:1").layer(layer).cmd(&["sh"]))
}

/// An image that holds nothing but busybox as `/init`, which sees its own name and does nothing else.
pub fn scratch() -> Result<Image, need::Missing> {
    let program = need::program("busybox")?;
    let bytes = std::fs::read(&program).expect("a program that was found can be read");
    let layer = Layer::new().file("true", &bytes, 0o755);
    Ok(Image::new("berth.test/scratch:1").layer(layer).cmd(&["/true"]))
}

fn applets(program: &Path) -> Vec<String> {
    let list = Invocation::new(program).arg("--list").ok();
    list.lines().filter(|name| *name != "busybox").map(str::to_owned).collect()
}
