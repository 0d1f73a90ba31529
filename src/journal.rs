//! The journal: where a rotated pair waits, sealed, until Postgres has it.
//!
//! An entry is JFrog's answer, sealed as it came, behind a header in the clear that has nothing secret; it is a record of a log. Once
//! committed, it is kept for a day. Room for it is on disk before JFrog is called. This module knows bytes and files; it opens nothing.

mod entry;
mod found;
mod ids;
mod log;
mod older;
mod prepared;
mod record;
mod state;
mod writer;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use uuid::Uuid;

pub use entry::{Entry, Header, Place};
pub use prepared::Prepared;
pub use record::Standing;

use log::Log;

/// How the names of entries end that are set aside.
const UNREADABLE: &str = "unreadable";

/// What a directory's entries need to be opened.
#[derive(Debug, Default)]
pub struct Needs {
    /// Master keys, and how many entries of each wait for Postgres.
    pub master_keys: BTreeMap<String, usize>,
    /// Entries that cannot be read now: they may need any.
    pub unread: usize,
}

/// The journal's directory, locked for this process.
#[derive(Clone, Debug)]
pub struct Journal {
    dir: PathBuf,
    id: Uuid,
    log: Arc<Log>,
    /// Files of an earlier version that could not be read at the start.
    unread: usize,
    _lock: Arc<File>,
}

impl Journal {
    /// Opens (making it if needed) the directory and locks it against a second process.
    ///
    /// # Errors
    /// It cannot be written, or another process holds it.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("making {}", dir.display()))?;
        let lock = private_file(&dir.join("lock"))
            .with_context(|| format!("the journal directory {} cannot be written", dir.display()))?;
        lock.try_lock().map_err(|_| {
            anyhow::anyhow!("the journal directory {} is used by another process: each replica needs its own", dir.display())
        })?;
        let id = ids::own_id(&dir.join("id")).with_context(|| format!("the journal directory {} has no id", dir.display()))?;
        let opened = older::convert(dir).and_then(|unread| Ok((unread, Log::open(dir)?)));
        let (unread, log) = opened.with_context(|| format!("the journal directory {} cannot be read", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), id, log: Arc::new(log), unread, _lock: Arc::new(lock) })
    }

    /// Which master keys the entries need, of every standing and those set aside. Blocks.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn needs(&self) -> io::Result<Needs> {
        let mut needs = Needs { master_keys: self.log.needs(), unread: self.unread() };
        for path in fs::read_dir(&self.dir)?.flatten().map(|file| file.path()) {
            if path.extension().is_none_or(|extension| extension != UNREADABLE) {
                continue;
            }
            match record::header_of(&path) {
                Ok(header) => drop(needs.master_keys.entry(header.master_key_id).or_default()),
                Err(error) if is_gone(&error) || is_no_entry(&error) => {}
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a journal entry cannot be read now: what it needs is not known");
                    needs.unread += 1;
                }
            }
        }
        Ok(needs)
    }

    /// Makes room for entries ahead of the first one, and waits for nothing.
    pub fn make_room(&self) {
        self.log.make_room();
    }

    /// Whether preparing an entry waits for no disk.
    pub fn has_room(&self) -> bool {
        self.log.has_room()
    }

    /// Keeps room for an entry that is on disk already. It blocks where there is none: then some is made.
    ///
    /// # Errors
    /// The disk is full or cannot be written: nothing may be spent now.
    pub fn prepare(&self, header: &Header) -> io::Result<Prepared> {
        Prepared::reserve(&self.log, header)
    }

    /// The entries that Postgres may not have yet, by their attempts.
    pub fn pending(&self) -> BTreeMap<Uuid, Place> {
        self.log.pending()
    }

    /// Files and logs that cannot be read now, and may hold any entry.
    pub fn unread(&self) -> usize {
        self.log.unread() + self.unread
    }

    /// One entry, with its answer; `Ok(None)`: it is gone meanwhile. Blocks.
    ///
    /// # Errors
    /// It is not an entry, or not a whole one.
    pub fn read(&self, place: &Place) -> io::Result<Option<Entry>> {
        log::read(place)
    }

    /// The committed entries of the last day, without their answers, and whether all could be read. Blocks.
    pub fn kept(&self) -> (Vec<Entry>, bool) {
        self.log.committed()
    }

    /// Forgets committed entries to whose log nothing was written for `age`, by the file's time, and looks again at logs that could
    /// not be read. Blocks.
    pub fn prune(&self, age: Duration) {
        self.log.prune(age);
    }

    /// Postgres has the entry's pair: it is kept for a day.
    pub fn committed(&self, entry: &Entry) {
        self.log.mark(entry.header.attempt_id, entry.place.clone(), Standing::Committed);
    }

    /// Sets an entry aside, out of the way and not lost. Blocks.
    ///
    /// # Errors
    /// It cannot be written elsewhere; then it stays where it is.
    pub fn set_aside(&self, attempt: Uuid, place: &Place) -> io::Result<()> {
        self.log.set_aside(attempt, place)
    }
}

/// Somebody else was faster.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// It was read, and is not what we wrote. Everything else says nothing of the file: the next look may find it whole.
fn is_no_entry(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

/// What cannot be used, and is not thrown away: as a file that nobody touches.
fn set_aside_bytes(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = private_file(&dir.join(format!("{name}.{UNREADABLE}")))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_dir(dir)
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::{names::Asked, secret::Sealed};

    pub(super) fn header() -> Header {
        Header {
            attempt_id: Uuid::new_v4(),
            team_id: Uuid::new_v4(),
            token_id: Uuid::new_v4(),
            chain_id: Uuid::new_v4(),
            kind: "rotate".into(),
            spent_generation: 1,
            begun_at: OffsetDateTime::UNIX_EPOCH,
            asked: Asked::default(),
            actor: "system".into(),
            key_id: "k".into(),
            key_owner: None,
            master_key_id: "m".into(),
            wrapped_key: "00".into(),
        }
    }

    /// One that holds an answer.
    pub(super) async fn saved(journal: &Journal) -> Prepared {
        let mut entry = journal.prepare(&header()).expect("prepares");
        entry.save(&Sealed::from_bytes(vec![7; 100])).await.expect("saves");
        entry
    }

    pub(super) fn journal() -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("opens");
        (dir, journal)
    }

    /// What was asked for so far is done when the journal is closed.
    pub(super) fn again(dir: &tempfile::TempDir, journal: Journal) -> Journal {
        drop(journal);
        Journal::open(dir.path()).expect("opens again")
    }

    pub(super) fn named(dir: &Path, extension: &str) -> Vec<PathBuf> {
        let paths = fs::read_dir(dir).expect("lists").flatten().map(|file| file.path());
        paths.filter(|path| path.extension().is_some_and(|its| its == extension)).collect()
    }

    #[tokio::test]
    async fn an_entry_is_there_once_it_has_an_answer_whatever_its_size() {
        let (dir, journal) = journal();
        for length in [1, 2_000, 4_096, 100_000, 2_000_000] {
            let body = Sealed::from_bytes(vec![7; length]);
            let (mut entry, empty) =
                (journal.prepare(&header()).expect("prepares"), journal.prepare(&header()).expect("prepares"));
            assert_eq!(journal.pending().len(), 0);
            entry.save(&body).await.expect("saves");
            let waiting: Vec<_> = journal.pending().into_values().collect();
            let [place] = &waiting[..] else { panic!("{waiting:?}") };
            assert_eq!(journal.read(place).expect("an entry").expect("is there").body, Some(body));
            empty.discard();
            entry.discard();
            assert_eq!(journal.pending().len(), 0);
        }
        let journal = again(&dir, journal);
        assert_eq!((journal.pending().len(), journal.kept().0.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_entry_stands_where_it_stood_after_a_start_and_is_kept_with_its_answer() {
        let (dir, journal) = journal();
        let bodies: Vec<_> = (0..20).map(|number| Sealed::from_bytes(format!("answer {number}").into_bytes())).collect();
        let mut entries = Vec::new();
        for body in &bodies {
            let mut entry = journal.prepare(&header()).expect("prepares");
            entry.save(body).await.expect("saves");
            entries.push(entry);
        }
        entries.drain(..5).for_each(Prepared::discard);
        entries.drain(..5).for_each(Prepared::committed);
        // As if their process had died.
        drop(entries);
        let journal = again(&dir, journal);
        let there = |entries: Vec<Entry>| -> Vec<_> {
            entries.iter().filter_map(|entry| journal.read(&entry.place).expect("reads")).filter_map(|entry| entry.body).collect()
        };
        assert_eq!(there(journal.kept().0), bodies[5..10]);
        let mut waiting: Vec<_> = journal.pending().into_values().collect();
        waiting.sort_by_key(|place| place.at);
        let waiting: Vec<_> = waiting.iter().map(|place| journal.read(place).expect("reads").expect("is there")).collect();
        assert_eq!(waiting.iter().filter_map(|entry| entry.body.clone()).collect::<Vec<_>>(), bodies[10..]);
        journal.committed(&waiting[0]);
        assert_eq!(journal.pending().len(), 9);
        let journal = again(&dir, journal);
        assert_eq!((journal.pending().len(), journal.kept().0.len()), (9, 6));
    }

    #[tokio::test]
    async fn what_is_needed_is_known_of_every_standing_and_of_what_is_set_aside() {
        let (dir, journal) = journal();
        let of_key = async |key: &str| {
            let mut entry = journal.prepare(&Header { master_key_id: key.to_owned(), ..header() }).expect("prepares");
            entry.save(&Sealed::from_bytes(vec![7; 100])).await.expect("saves");
            entry
        };
        let waits = of_key("waits").await;
        of_key("committed").await.committed();
        of_key("aside").await.set_aside().expect("is written elsewhere");
        fs::write(dir.path().join("y.unreadable"), b"{").expect("writes");
        let expected = BTreeMap::from([("waits".to_owned(), 1), ("committed".to_owned(), 0), ("aside".to_owned(), 0)]);
        let needs = |journal: &Journal| journal.needs().map(|needs| (needs.master_keys, needs.unread)).expect("lists");
        assert_eq!(needs(&journal), (expected.clone(), 0));
        drop(waits);
        let looped = dir.path().join("z.unreadable");
        std::os::unix::fs::symlink(&looped, &looped).expect("links");
        assert_eq!(needs(&again(&dir, journal)), (expected, 1));
    }

    #[tokio::test]
    async fn only_old_entries_that_wait_for_nothing_are_pruned() {
        let (_dir, journal) = journal();
        saved(&journal).await.committed();
        let waits = saved(&journal).await;
        journal.prune(Duration::from_secs(60));
        journal.prune(Duration::ZERO);
        assert_eq!((journal.kept().0.len(), journal.pending().len()), (1, 1), "in the log of one that waits");
        waits.committed();
        while journal.kept().0.len() < 2 {}
        let reserved = journal.prepare(&header()).expect("prepares");
        journal.prune(Duration::ZERO);
        assert_eq!(journal.kept().0.len(), 2, "in the log that another is about to be written to");
        reserved.discard();
        journal.prune(Duration::from_secs(60));
        assert_eq!(journal.kept().0.len(), 2);
        // What it was asked for is done before it can go.
        while !journal.kept().0.is_empty() {
            journal.prune(Duration::ZERO);
        }
        assert!(journal.needs().expect("lists").master_keys.is_empty());
        saved(&journal).await;
        assert_eq!(journal.pending().len(), 1, "in a new log");
    }

    #[test]
    fn a_second_process_is_refused_and_the_directory_remembers_whose_it_is() {
        let (dir, journal) = journal();
        let id = Uuid::new_v4();
        assert_eq!(journal.installation().expect("reads"), None);
        journal.belong_to(id).expect("writes");
        assert!(Journal::open(dir.path()).expect_err("locked").to_string().contains("another process"));
        assert_eq!(again(&dir, journal).installation().expect("reads"), Some(id));
    }
}
