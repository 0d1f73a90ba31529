//! Entries made beforehand, at their full size and on disk: an attempt waits for no disk before JFrog is called, and one that is full
//! is noticed while nothing is spent yet.
//!
//! An attempt takes one for itself and writes nothing before JFrog has answered.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use uuid::Uuid;

use super::{HEADER, Standing, UNREADABLE, entry::Entry, head_of, header_of, kept::Kept, read_entry, rename, sync_dir};

/// Made beforehand: as many as tokens may be worked on at once.
const KEPT: usize = 64;

/// Made at once: more would keep the disk from the answers that wait for it.
const SOME: usize = 4;

/// Committed entries that are copied at once: the disk is waited for once for all of them.
const COPIED: usize = 16;

/// What is allocated for each. JFrog's answers have about 2 KiB; a longer one makes the file grow.
pub(super) const PREALLOCATED: usize = 16 * 1024;

const EXTENSION: &str = "spare";

/// A directory's spare entries.
#[derive(Debug)]
pub(super) struct Spares {
    dir: PathBuf,
    made: Mutex<Made>,
    kept: Kept,
    /// Files that could not be read at the start, and may hold answers.
    unread: usize,
}

#[derive(Debug, Default)]
struct Made {
    ready: Vec<PathBuf>,
    /// This process' committed entries, oldest first.
    resting: VecDeque<PathBuf>,
    /// Whether a thread is making more.
    at_work: bool,
}

impl Spares {
    /// What an earlier process left: spares, and entries whose new name the disk does not have.
    pub(super) fn find(dir: &Path) -> io::Result<Self> {
        let (kept, copied) = Kept::find(dir)?;
        let (mut ready, mut unread) = (Vec::new(), 0);
        // All of them first: what is given another name must not be met again under it.
        let paths: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|file| file.path()).collect();
        for path in paths {
            let pending = has_extension(&path, Standing::Pending.extension());
            if !pending && !has_extension(&path, EXTENSION) {
                continue;
            }
            let head = match head_of(&path) {
                Ok(head) => head,
                // Whoever replays it says so.
                Err(_) if pending => continue,
                Err(error) => {
                    // It may hold an answer: the next start looks again.
                    tracing::error!(path = %path.display(), %error, "a spare journal entry cannot be read now");
                    unread += 1;
                    continue;
                }
            };
            match header_of(&head) {
                // It was about to be used again: what stands in it is kept, and what should have is not on disk.
                Ok(header) if copied.contains(&header.attempt_id) => {
                    let spare = path.with_extension(EXTENSION);
                    fs::rename(&path, &spare)?;
                    empty(&mut File::options().write(true).open(&spare)?)?;
                    ready.push(spare);
                }
                _ if pending => {}
                Ok(header) if !kept.all_read() => {
                    tracing::error!(path = %path.display(), attempt = %header.attempt_id, "a journal entry waits for a log to be read");
                    unread += 1;
                }
                Ok(header) => fs::rename(&path, Standing::Pending.file(dir, header.attempt_id))?,
                Err(_) if head.iter().any(|byte| *byte != 0) => rename(&path, UNREADABLE)?,
                Err(_) if fs::metadata(&path)?.len() == PREALLOCATED as u64 => ready.push(path),
                // Half-made.
                Err(_) => fs::remove_file(&path)?,
            }
        }
        let made = Mutex::new(Made { ready, resting: VecDeque::new(), at_work: false });
        Ok(Self { dir: dir.to_owned(), made, kept, unread })
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn unread(&self) -> usize {
        self.unread
    }

    pub(super) fn are_left(&self) -> bool {
        !self.made().ready.is_empty()
    }

    /// One of them; made now, if none is left. Blocks.
    ///
    /// # Errors
    /// The disk is full or cannot be written: nothing may be spent now.
    pub(super) fn take(self: &Arc<Self>) -> io::Result<PathBuf> {
        let ready = self.made().ready.pop();
        self.replenish();
        ready.map_or_else(|| self.make(1)?.pop().ok_or_else(|| io::ErrorKind::Other.into()), Ok)
    }

    /// One that was taken and not written to.
    pub(super) fn give_back(&self, spare: PathBuf) {
        self.made().ready.push(spare);
    }

    /// An entry that is committed, and its file called so.
    pub(super) fn rest(&self, path: PathBuf) {
        self.made().resting.push_back(path);
    }

    /// Makes more in a thread of its own: a few at a time, and it rests in between for as long as they took.
    pub(super) fn replenish(self: &Arc<Self>) {
        {
            let mut made = self.made();
            if made.at_work || made.ready.len() + SOME > KEPT {
                return;
            }
            made.at_work = true;
        }
        let spares = Arc::clone(self);
        let thread = std::thread::Builder::new().spawn(move || {
            loop {
                let began = Instant::now();
                let more =
                    spares.more().inspect_err(|error| tracing::warn!(%error, "no journal entries could be made beforehand"));
                let mut made = spares.made();
                made.at_work = more.is_ok();
                made.ready.extend(more.unwrap_or_default());
                if !made.at_work || made.ready.len() >= KEPT {
                    made.at_work = false;
                    return;
                }
                drop(made);
                std::thread::sleep(began.elapsed());
            }
        });
        if thread.is_err() {
            self.made().at_work = false;
        }
    }

    /// Committed entries' files, once what is in them is kept elsewhere; while there are few of these, new ones.
    fn more(&self) -> io::Result<Vec<PathBuf>> {
        let mut rested = Vec::new();
        let missing = {
            let mut made = self.made();
            if made.resting.len() >= KEPT + COPIED {
                rested.extend(made.resting.drain(..COPIED));
            }
            KEPT.saturating_sub(made.ready.len())
        };
        if rested.is_empty() { self.make(missing.min(SOME)) } else { self.copy(rested) }
    }

    fn copy(&self, paths: Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
        let (mut entries, mut files) = (Vec::new(), Vec::new());
        for path in paths {
            // What cannot be read stays where it is.
            let Ok((header, Some(body))) = read_entry(&path) else { continue };
            files.push((path.clone(), HEADER + 4 + body.as_bytes().len()));
            entries.push(Entry { header, body: Some(body), path: Some(path) });
        }
        if let Err(error) = self.kept.add(&entries) {
            let mut made = self.made();
            files.into_iter().rev().for_each(|(path, _)| made.resting.push_front(path));
            return Err(error);
        }
        // What the files say is on disk elsewhere now. Should the machine stop before they are empty, the next start finds it there.
        let emptied = |(path, length): (PathBuf, usize)| {
            let spare = path.with_extension(EXTENSION);
            let emptied = fs::rename(&path, &spare).and_then(|()| {
                let mut file = File::options().write(true).open(&spare)?;
                file.write_all(&vec![0; length])?;
                file.set_len(PREALLOCATED as u64)
            });
            if let Err(error) = emptied {
                tracing::warn!(path = %path.display(), %error, "a committed journal entry could not be emptied");
                drop(fs::rename(&spare, &path));
                return None;
            }
            Some(spare)
        };
        Ok(files.into_iter().filter_map(emptied).collect())
    }

    /// At their full size and on disk.
    fn make(&self, count: usize) -> io::Result<Vec<PathBuf>> {
        let paths: Vec<PathBuf> = (0..count).map(|_| self.dir.join(format!("{}.{EXTENSION}", Uuid::new_v4()))).collect();
        let made = paths.iter().try_for_each(|path| make_one(path)).and_then(|()| sync_dir(&self.dir));
        if let Err(error) = made {
            // Half-made ones hold nothing; leaving them would fill a full disk further.
            paths.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(error);
        }
        Ok(paths)
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|its| its == extension)
}

fn make_one(path: &Path) -> io::Result<()> {
    empty(&mut super::private_file(path)?)
}

fn empty(file: &mut File) -> io::Result<()> {
    // Written, not only allocated: the answer's fsync then has data to bring to the disk and nothing else.
    file.write_all(&[0; PREALLOCATED])?;
    file.set_len(PREALLOCATED as u64)?;
    file.sync_all()
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{
            Journal,
            tests::{header, saved},
        },
        *,
    };

    fn spares(dir: &Path) -> Vec<PathBuf> {
        let paths = fs::read_dir(dir).expect("lists").flatten().map(|file| file.path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION)).collect()
    }

    pub(in super::super) fn until_at_rest(journal: &Journal) {
        until(|| !journal.spares.made().at_work);
    }

    fn until(condition: impl Fn() -> bool) {
        while !condition() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn more_are_made_before_none_is_left_and_an_earlier_process_spares_are_used() {
        let dir = tempfile::tempdir().expect("a directory");
        for _ in 0..2 {
            let journal = Journal::open(dir.path()).expect("opens");
            for _ in 0..KEPT * 2 {
                saved(&journal).discard().expect("removes");
                journal.prepare(&header()).expect("prepares").discard().expect("is given back");
            }
            until_at_rest(&journal);
            let ready = journal.spares.made().ready.clone();
            assert!((KEPT / 2..=KEPT).contains(&ready.len()), "{}", ready.len());
            assert_eq!(spares(dir.path()).len(), ready.len(), "each is known");
        }
    }

    #[test]
    fn an_entry_whose_new_name_is_not_on_disk_is_found_by_its_header() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("opens");
        let (header, body) = (header(), crate::secret::Sealed::from_bytes(vec![7; 100]));
        journal.prepare(&header).expect("prepares").save(&body).expect("saves");
        until_at_rest(&journal);
        drop(journal);
        // As if the machine had stopped: the rename is undone, another spare was never written whole.
        let pending = Standing::Pending.file(dir.path(), header.attempt_id);
        rename(&pending, EXTENSION).expect("renames");
        fs::write(dir.path().join("half.spare"), [0; 100]).expect("writes");
        fs::write(dir.path().join("torn.spare"), [7; PREALLOCATED]).expect("writes");
        let looped = dir.path().join("looped.spare");
        std::os::unix::fs::symlink(&looped, &looped).expect("links");
        let journal = Journal::open(dir.path()).expect("opens again");
        let entry = journal.read(&pending).expect("an entry").expect("is there");
        assert_eq!((entry.header.attempt_id, entry.body), (header.attempt_id, Some(body)));
        assert!(!dir.path().join("half.spare").exists());
        assert!(dir.path().join("torn.unreadable").exists(), "nobody knows what it was: it is kept");
        assert!(looped.is_symlink(), "it is looked at again");
    }

    #[test]
    fn without_a_directory_to_write_nothing_is_prepared() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("opens");
        until_at_rest(&journal);
        fs::remove_dir_all(dir.path()).expect("removes");
        for _ in 0..KEPT * 2 {
            assert!(journal.prepare(&header()).is_err());
        }
    }
}
