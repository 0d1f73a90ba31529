//! The sealed files in which a rotated pair waits until Postgres has it.
//!
//! An entry is one file: a header line of JSON (nothing secret), and behind it JFrog's answer, sealed as it came. Once committed, it is
//! kept for a day: in its file, or in a log (`kept`).
//! The file has its full size on disk before JFrog is called (`spares`): a full disk is noticed while nothing is spent yet. This module
//! knows bytes and files; it opens nothing.

mod entry;
mod ids;
mod kept;
mod prepared;
mod spares;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use uuid::Uuid;

pub use entry::{Entry, Header};
pub use prepared::Prepared;

use entry::{head_of, header_of, read_entry};
use spares::Spares;

/// The header has this many bytes, padded; the body's length and the body follow.
const HEADER: usize = 4096;

/// How entries' names end, of every standing and those set aside.
const ENTRIES: [&str; 3] = ["pending", "committed", UNREADABLE];

const UNREADABLE: &str = "unreadable";

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Postgres may not have it yet.
    Pending,
    /// Postgres had it; kept for a day against a failover that loses its last seconds.
    Committed,
}

impl Standing {
    fn extension(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Committed => "committed",
        }
    }

    fn file(self, dir: &Path, attempt: Uuid) -> PathBuf {
        dir.join(format!("{attempt}.{}", self.extension()))
    }
}

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
    spares: Arc<Spares>,
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
        let spares = Spares::find(dir).with_context(|| format!("the journal directory {} cannot be read", dir.display()))?;
        let journal = Self { dir: dir.to_owned(), id, spares: Arc::new(spares), _lock: Arc::new(lock) };
        journal.spares.replenish();
        Ok(journal)
    }

    /// Which master keys the entries need, of every standing and those set aside. Blocks.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn needs(&self) -> io::Result<Needs> {
        let mut needs = Needs::default();
        needs.master_keys.extend(self.spares.kept().master_keys().into_iter().map(|id| (id, 0)));
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            let Some(extension) = path.extension().filter(|extension| ENTRIES.iter().any(|known| extension == known)) else {
                continue;
            };
            let waits = extension == Standing::Pending.extension();
            match head_of(&path).and_then(|head| header_of(&head)) {
                Ok(header) => *needs.master_keys.entry(header.master_key_id).or_default() += usize::from(waits),
                Err(error) if is_gone(&error) || is_no_entry(&error) => {}
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a journal entry cannot be read now: what it needs is not known");
                    needs.unread += 1;
                }
            }
        }
        needs.unread += self.spares.unread() + usize::from(!self.spares.kept().all_read());
        Ok(needs)
    }

    /// Whether preparing an entry waits for no disk.
    pub fn has_spare(&self) -> bool {
        self.spares.are_left()
    }

    /// Takes a file for an entry that has its full size and is on disk already. It blocks where there is none: then one is made.
    ///
    /// # Errors
    /// The disk is full or cannot be written: nothing may be spent now.
    pub fn prepare(&self, header: &Header) -> io::Result<Prepared> {
        let mut line = serde_json::to_vec(header)?;
        line.push(b'\n');
        if line.len() > HEADER {
            return Err(io::Error::other("the journal header is too long"));
        }
        let pending = Standing::Pending.file(&self.dir, header.attempt_id);
        loop {
            match Prepared::claim(&self.spares, &self.spares.take()?, line.clone(), pending.clone()) {
                // Somebody has tidied up: the next one, or a new one.
                Err(error) if is_gone(&error) => {}
                claimed => return claimed,
            }
        }
    }

    /// The entries' files, by their attempts; `None`: a file that no attempt of ours made. Blocks.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn files(&self, standing: Standing) -> io::Result<Vec<(Option<Uuid>, PathBuf)>> {
        let paths = fs::read_dir(&self.dir)?.flatten().map(|file| file.path());
        let wanted = paths.filter(|path| path.extension().is_some_and(|extension| extension == standing.extension()));
        Ok(wanted.map(|path| (path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()), path)).collect())
    }

    /// One entry; `Ok(None)`: it is gone meanwhile. Blocks.
    ///
    /// # Errors
    /// It is not an entry, or not a whole one.
    pub fn read(&self, path: &Path) -> io::Result<Option<Entry>> {
        match read_entry(path) {
            Ok((header, body)) => Ok(Some(Entry { header, body, path: Some(path.to_owned()) })),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Committed entries that have no file of their own any more: to be asked for after the files were. Blocks.
    ///
    /// # Errors
    /// A log cannot be read.
    pub fn kept(&self) -> io::Result<Vec<Entry>> {
        self.spares.kept().read()
    }

    /// Removes committed entries that are older than `age`, by their files' times. Blocks.
    ///
    /// # Errors
    /// The directory cannot be listed, or written.
    pub fn prune(&self, age: Duration) -> io::Result<()> {
        for (_, path) in self.files(Standing::Committed)? {
            let old =
                fs::metadata(&path).and_then(|file| file.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|past| past > age));
            if old {
                self.discard(&path)?;
            }
        }
        self.spares.kept().prune(age)
    }

    /// How many entries wait for Postgres. Blocks.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn backlog(&self) -> io::Result<usize> {
        Ok(self.files(Standing::Pending)?.len())
    }

    /// Postgres has the entry's pair: it is kept for a day. Blocks.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn committed(&self, path: &Path) -> io::Result<()> {
        rename(path, Standing::Committed.extension()).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
    }

    /// Removes an entry that is not needed. Blocks.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
    }

    /// Sets a file aside, out of the way and not lost. Blocks.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(&self, path: &Path) -> io::Result<()> {
        rename(path, UNREADABLE)
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

fn rename(path: &Path, extension: &str) -> io::Result<()> {
    fs::rename(path, path.with_extension(extension))
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
    pub(super) fn saved(journal: &Journal) -> Prepared {
        let mut entry = journal.prepare(&header()).expect("prepares");
        entry.save(&Sealed::from_bytes(vec![7; 100])).expect("saves");
        entry
    }

    fn journal() -> (tempfile::TempDir, Journal, Uuid) {
        let dir = tempfile::tempdir().expect("a directory");
        let id = Uuid::new_v4();
        let journal = Journal::open(dir.path()).expect("opens");
        assert_eq!(journal.installation().expect("reads"), None);
        journal.belong_to(id).expect("writes");
        (dir, journal, id)
    }

    #[test]
    fn an_entry_is_there_once_it_has_an_answer_whatever_its_size() {
        let (_dir, journal, _) = journal();
        let body = Sealed::from_bytes(vec![7; 100_000]);
        let (mut entry, empty) = (journal.prepare(&header()).expect("prepares"), journal.prepare(&header()).expect("prepares"));
        assert_eq!(journal.backlog().expect("counts"), 0);
        entry.save(&body).expect("saves");
        let files = journal.files(Standing::Pending).expect("lists");
        let [(_, path)] = &files[..] else { panic!("{files:?}") };
        assert_eq!(journal.read(path).expect("an entry").expect("is there").body, Some(body));
        empty.discard().expect("is given back");
        entry.discard().expect("removes");
        assert_eq!(journal.backlog().expect("counts"), 0);
    }

    #[test]
    fn a_torn_or_foreign_file_is_named_and_blocks_nothing() {
        let (dir, journal, _) = journal();
        saved(&journal);
        fs::write(dir.path().join("x.pending"), b"{").expect("writes");
        let files = journal.files(Standing::Pending).expect("lists");
        assert_eq!((files.len(), files.iter().filter(|(attempt, _)| attempt.is_none()).count()), (2, 1));
        let foreign = dir.path().join("x.pending");
        assert!(journal.read(&foreign).is_err());
        journal.set_aside(&foreign).expect("renames");
        assert!(dir.path().join("x.unreadable").exists());
        assert_eq!(journal.backlog().expect("counts"), 1);
    }

    #[test]
    fn what_cannot_be_read_now_is_not_taken_for_nothing() {
        let (dir, journal, _) = journal();
        saved(&journal);
        fs::write(dir.path().join("x.pending"), b"{").expect("writes");
        fs::create_dir(dir.path().join("lost+found")).expect("makes a directory");
        let needs = || journal.needs().map(|needs| (needs.master_keys, needs.unread)).expect("lists");
        assert_eq!(needs(), (BTreeMap::from([("m".to_owned(), 1)]), 0));
        let looped = dir.path().join("y.committed");
        std::os::unix::fs::symlink(&looped, &looped).expect("links");
        assert_eq!(needs(), (BTreeMap::from([("m".to_owned(), 1)]), 1));
    }

    #[test]
    fn only_old_committed_entries_are_pruned() {
        let (_dir, journal, _) = journal();
        saved(&journal).committed().expect("renames");
        saved(&journal);
        journal.prune(Duration::from_secs(60)).expect("prunes");
        assert_eq!(journal.files(Standing::Committed).expect("lists").len(), 1);
        journal.prune(Duration::ZERO).expect("prunes");
        assert_eq!((journal.files(Standing::Committed).expect("lists").len(), journal.backlog().expect("counts")), (0, 1));
    }

    #[test]
    fn a_second_process_is_refused_and_the_directory_remembers_whose_it_is() {
        let (dir, journal, id) = journal();
        assert!(Journal::open(dir.path()).expect_err("locked").to_string().contains("another process"));
        drop(journal);
        let journal = Journal::open(dir.path()).expect("opens again");
        assert_eq!(journal.installation().expect("reads"), Some(id));
    }
}
