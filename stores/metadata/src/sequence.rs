//! The numbers in backend keys, which never come twice, whatever a crash takes back.
//!
//! The database holds a number that no key has reached yet; it is raised, and synced, once for
//! many keys.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use berth_types::Result;
use tokio::sync::Mutex;

use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};
use crate::ledger::{Durability, Ledger};
use crate::record::{Record, decode, load, store};
use crate::storage::Write;

/// How many numbers one sync reserves.
const RESERVE: u64 = 1024;

pub(crate) struct Sequence {
    next: AtomicU64,
    reserved: AtomicU64,
    reserving: Mutex<()>,
}

struct Reserved(u64);

impl Record for Reserved {
    fn write(&self, to: Encoder) -> Encoder {
        to.number(self.0)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.number()?))
    }
}

fn meta() -> Vec<u8> {
    key(Kind::Meta, &["sequence"])
}

/// Goes far beyond what a lost database may have reached.
pub(crate) fn leap(records: &mut dyn Write) -> Result<()> {
    let key = meta();
    let reserved = match records.load(&key)? {
        Some(value) => decode::<Reserved>(&key, &value)?.0,
        None => 0,
    };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let beyond = Reserved(since.as_secs().max(reserved + RESERVE));
    records.store(&key, &beyond.write(Encoder::new()).finish()).map(drop)
}

impl Sequence {
    /// Goes on after everything that was ever reserved.
    pub(crate) fn load(ledger: &Ledger) -> Result<Self> {
        let reserved = ledger.view(|read| load::<Reserved>(read, &meta()))?.map_or(1, |reserved| reserved.0);
        Ok(Self {
            next: AtomicU64::new(reserved),
            reserved: AtomicU64::new(reserved),
            reserving: Mutex::new(()),
        })
    }

    /// A number that no key has had.
    pub(crate) async fn next(&self, ledger: &Ledger) -> Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.reserve(ledger, number).await?;
        Ok(number)
    }

    /// Reserves the first numbers, so that nobody has to wait for it later.
    pub(crate) async fn warm(&self, ledger: &Ledger) -> Result<()> {
        self.reserve(ledger, self.next.load(Ordering::Relaxed)).await
    }

    async fn reserve(&self, ledger: &Ledger, number: u64) -> Result<()> {
        if number < self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let _reserving = self.reserving.lock().await;
        if number < self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let until = number + RESERVE;
        ledger.update(Durability::Synced, move |txn| store(txn, &meta(), &Reserved(until))).await?;
        self.reserved.store(until, Ordering::Release);
        Ok(())
    }
}
