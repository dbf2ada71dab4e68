//! Pulling over a link that is slower than this machine: a network namespace whose loopback lets only so much through.
//!
//! The kernel's `tbf` shapes the rate. Delay would be `netem`'s work, which not every kernel has.

use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::UnshareFlags;
use testkit::Invocation;
use testkit::registry::DockerRegistry;

use super::pull::{LONG, large_layer, publish};
use crate::measure::{Samples, time};
use crate::subject::{Puller, Subject};
use crate::table::{Better, Table};

/// Megabits a second, and mebibytes of the layer when it is unpacked.
const LINKS: [(u32, usize); 2] = [(100, 32), (1000, 256)];

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    for (rate, mebibytes) in LINKS {
        // A namespace is a thread's, and what the thread starts is in it.
        let measured = thread::spawn(move || measure(rounds, rate, mebibytes)).join();
        let (least, samples) = measured.map_err(|_| anyhow!("the measuring thread panicked"))??;
        let title = format!("pull over {rate} Mbit/s, {least:.0} at least");
        table.add(("link", &title, "ms"), Better::Less, samples);
    }
    Ok(())
}

/// Answers also how many milliseconds the bytes alone take.
fn measure(rounds: usize, rate: u32, mebibytes: usize) -> Result<(f64, [Samples; 2])> {
    let registry = shape(rate)?;
    let reference = format!("{}/bench/link:1", registry.address());
    let image = large_layer(reference.clone(), mebibytes);
    let bits: usize = image.blobs().iter().map(|blob| blob.len() * 8).sum();
    publish(&image, &reference)?;
    let mut samples = [Samples::default(), Samples::default()];
    for _ in 0..rounds.div_ceil(5) {
        for (puller, samples) in [Puller::Berth, Puller::Defaults].into_iter().zip(&mut samples) {
            let subject = Subject::puller(puller)?;
            let command = subject.pull(&reference)?.within(LONG);
            samples.push_time(time(|| command.ok()).0);
        }
    }
    Ok((bits as f64 / f64::from(rate) / 1e3, samples))
}

/// Takes this thread into a network of its own, where so many megabits a second get through, and starts a registry there.
pub(super) fn shape(rate: u32) -> Result<DockerRegistry> {
    berth_sys::child::unshare(UnshareFlags::NEWNET.bits() as i32)
        .context("cannot have a network of our own")?;
    Invocation::new("ip").args(["link", "set", "lo", "up"]).ok();
    let registry = DockerRegistry::start()?;
    let speed = format!("{rate}mbit");
    let shape =
        ["qdisc", "add", "dev", "lo", "root", "tbf", "rate", &speed, "burst", "256kb", "latency", "400ms"];
    Invocation::new("tc").args(shape).ok();
    Ok(registry)
}
