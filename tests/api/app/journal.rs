//! What lies in a journal's directory, seen from outside the service.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How an entry begins, and what says that it waits for Postgres, or that Postgres had it.
pub const PENDING: &[u8] = b"TBJ1p";
pub const COMMITTED: &[u8] = b"TBJ1c";

const PAGE: usize = 4096;

/// Its logs, oldest first.
pub fn logs(journal: &Path) -> Vec<PathBuf> {
    files(journal, "log")
}

/// Entries that stand so.
pub fn entries(journal: &Path, standing: &[u8]) -> usize {
    logs(journal).iter().map(|log| pages(log).iter().filter(|page| page.starts_with(standing)).count()).sum()
}

/// So many wait for Postgres, now or in a moment: where an entry stands is written after it is so.
pub async fn until_pending(journal: &Path, count: usize) {
    for _ in 0..250 {
        if entries(journal, PENDING) == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} entries wait, not {count}", entries(journal, PENDING));
}

/// Entries that were set aside.
pub fn set_aside(journal: &Path) -> usize {
    files(journal, "unreadable").len()
}

/// Changes entries that stand so: their first page. No service may be writing.
pub fn change(journal: &Path, standing: &[u8], change: impl Fn(&mut [u8])) {
    for log in logs(journal) {
        let mut pages = pages(&log);
        pages.iter_mut().filter(|page| page.starts_with(standing)).for_each(|page| change(page));
        fs::write(&log, pages.concat()).expect("writes");
    }
}

/// Committed entries wait again, as if their process had died before it said so.
pub fn uncommit(journal: &Path) {
    change(journal, COMMITTED, |page| page[..PENDING.len()].copy_from_slice(PENDING));
}

fn files(journal: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(journal).expect("the journal").flatten().map(|file| file.path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|its| its == extension)).collect();
    files.sort();
    files
}

fn pages(log: &Path) -> Vec<Vec<u8>> {
    // It may have been pruned meanwhile.
    fs::read(log).unwrap_or_default().chunks(PAGE).map(<[u8]>::to_vec).collect()
}
