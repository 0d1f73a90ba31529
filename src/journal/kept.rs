//! Committed entries of the last day, copied from their files into logs: the files are used again, and a day's pairs take no more room
//! than they need. A log is only ever appended to, by the process that made it.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    entry::{Entry, Header, header_of},
    is_gone, private_file, sync_dir,
};
use crate::secret::Sealed;

const EXTENSION: &str = "kept";

/// After so long the next log is begun: a log is forgotten as a whole.
const A_LOG: Duration = Duration::from_secs(3600);

/// A directory's logs.
#[derive(Debug)]
pub(super) struct Kept {
    dir: PathBuf,
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    /// This process' own, and since when.
    open: Option<(File, Instant)>,
    /// All of them, and the master keys that their entries need.
    all: Vec<(PathBuf, HashSet<String>)>,
    /// Whether one could not be read.
    unread: bool,
}

impl Kept {
    /// What earlier processes left, and which attempts they kept.
    pub(super) fn find(dir: &Path) -> io::Result<(Self, HashSet<Uuid>)> {
        let (mut logs, mut attempts) = (Logs::default(), HashSet::new());
        for path in fs::read_dir(dir)?.flatten().map(|file| file.path()) {
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let headers: Vec<Header> = match fs::read(&path) {
                Ok(bytes) => Records(&bytes).map(|(header, _)| header).collect(),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a log of the journal cannot be read now");
                    logs.unread = true;
                    continue;
                }
            };
            attempts.extend(headers.iter().map(|header| header.attempt_id));
            logs.all.push((path, headers.into_iter().map(|header| header.master_key_id).collect()));
        }
        Ok((Self { dir: dir.to_owned(), logs: Mutex::new(logs) }, attempts))
    }

    /// Whether each log could be read at the start. What another holds is not known before the next one.
    pub(super) fn all_read(&self) -> bool {
        !self.logs().unread
    }

    /// Appends these and waits until the disk has them. Blocks.
    pub(super) fn add(&self, entries: &[Entry]) -> io::Result<()> {
        let mut logs = self.logs();
        if logs.open.as_ref().is_none_or(|(_, since)| since.elapsed() > A_LOG) {
            let path = self.dir.join(format!("{}.{EXTENSION}", Uuid::now_v7()));
            let file = private_file(&path)?;
            sync_dir(&self.dir)?;
            logs.all.push((path, HashSet::new()));
            logs.open = Some((file, Instant::now()));
        }
        let mut records = Vec::new();
        for Entry { header, body, .. } in entries {
            let (head, body) = (serde_json::to_vec(header)?, body.as_ref().map_or(&[][..], Sealed::as_bytes));
            for part in [&head, body] {
                records.extend(u32::try_from(part.len()).map_err(io::Error::other)?.to_be_bytes());
                records.extend(part);
            }
        }
        let Logs { open, all, .. } = &mut *logs;
        let (Some((_, needs)), Some((file, _))) = (all.last_mut(), open.as_mut()) else {
            return Err(io::Error::other("there is no log to write to"));
        };
        needs.extend(entries.iter().map(|entry| entry.header.master_key_id.clone()));
        let before = file.stream_position()?;
        let written = file.write_all(&records).and_then(|()| file.sync_data());
        // What comes behind a torn record would not be found: it goes, or the next ones have a log of their own.
        if written.is_err() && file.set_len(before).and_then(|()| file.seek(SeekFrom::Start(before))).is_err() {
            *open = None;
        }
        written
    }

    /// All that is kept. Blocks.
    pub(super) fn read(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (path, _) in &self.logs().all {
            let bytes = match fs::read(path) {
                // Somebody has tidied up.
                Err(error) if is_gone(&error) => continue,
                read => read?,
            };
            entries.extend(Records(&bytes).map(|(header, body)| Entry { header, body: Some(body), path: None }));
        }
        Ok(entries)
    }

    /// Which master keys it needs.
    pub(super) fn master_keys(&self) -> HashSet<String> {
        self.logs().all.iter().flat_map(|(_, needs)| needs.iter().cloned()).collect()
    }

    /// Forgets logs to which nothing was added for `age`. Blocks.
    pub(super) fn prune(&self, age: Duration) -> io::Result<()> {
        let mut logs = self.logs();
        let old = |path: &Path| {
            fs::metadata(path).and_then(|file| file.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|past| past > age))
        };
        let mut failed = None;
        let mut is_left = |(path, _): &(PathBuf, HashSet<String>)| {
            let gone = old(path).then(|| fs::remove_file(path));
            match gone {
                None => true,
                Some(Err(error)) if !is_gone(&error) => {
                    failed = Some(error);
                    true
                }
                Some(_) => false,
            }
        };
        let before = logs.all.len();
        logs.all.retain(&mut is_left);
        // The clock may have jumped: what is written from now on needs a file that is there.
        if logs.all.len() < before {
            logs.open = None;
        }
        failed.map_or(Ok(()), Err)
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records of a log, up to one that is not whole: a machine stopped while it was written.
struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    fn part(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        self.0 = rest;
        Some(part)
    }
}

impl Iterator for Records<'_> {
    type Item = (Header, Sealed);

    fn next(&mut self) -> Option<Self::Item> {
        let header = header_of(self.part()?).ok()?;
        Some((header, Sealed::from_bytes(self.part()?.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{
        super::{Journal, Standing, spares, tests::header},
        *,
    };

    /// Saves and commits so many, as fast as it can; what was in them, by their attempts.
    fn committed(journal: &Journal, count: usize) -> HashMap<Uuid, Vec<u8>> {
        let one = |number: usize| {
            let (header, body) = (header(), format!("answer {number}").into_bytes());
            let mut entry = journal.prepare(&header).expect("prepares");
            entry.save(&Sealed::from_bytes(body.clone())).expect("saves");
            entry.committed().expect("renames");
            (header.attempt_id, body)
        };
        (0..count).map(one).collect()
    }

    fn is_kept(journal: &Journal) -> HashMap<Uuid, Vec<u8>> {
        let files = journal.files(Standing::Committed).expect("lists");
        let entries = files.iter().filter_map(|(_, path)| journal.read(path).expect("an entry"));
        let entries = entries.chain(journal.kept().expect("reads"));
        entries.map(|entry| (entry.header.attempt_id, entry.body.expect("an answer").as_bytes().to_vec())).collect()
    }

    #[test]
    fn files_are_used_again_and_nothing_that_was_in_them_is_forgotten_before_its_time() {
        const COUNT: usize = 1_000;
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("opens");
        let were = committed(&journal, COUNT);
        spares::tests::until_at_rest(&journal);
        assert_eq!(is_kept(&journal), were);
        assert!(!journal.kept().expect("reads").is_empty());
        let files = || fs::read_dir(dir.path()).expect("lists").count();
        assert!(files() < COUNT / 2, "{} files", files());
        drop(journal);

        let journal = Journal::open(dir.path()).expect("opens again");
        assert_eq!(is_kept(&journal), were);
        assert!(journal.needs().expect("lists").master_keys.contains_key("m"));
        journal.prune(Duration::ZERO).expect("prunes");
        assert_eq!(is_kept(&journal), HashMap::new());
        assert!(journal.needs().expect("lists").master_keys.is_empty());
    }

    #[test]
    fn an_entry_that_was_copied_and_whose_file_is_not_empty_yet_waits_for_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("opens");
        let were = committed(&journal, 1);
        let (_, path) = journal.files(Standing::Committed).expect("lists").pop().expect("one");
        let entry = journal.read(&path).expect("an entry").expect("is there");
        journal.spares.kept().add(&[entry]).expect("copies");
        spares::tests::until_at_rest(&journal);
        drop(journal);
        // As if the machine had stopped: before the file was empty on disk, or when the next attempt's name was and its answer was not.
        let mut is = path;
        for named in ["0.spare", "1.pending"] {
            fs::rename(&is, dir.path().join(named)).expect("renames");
            let journal = Journal::open(dir.path()).expect("opens again");
            assert_eq!((journal.backlog().expect("counts"), is_kept(&journal)), (0, were.clone()), "{named}");
            spares::tests::until_at_rest(&journal);
            is = dir.path().join(named).with_extension("spare");
            // It holds the old entry again.
            let head = [serde_json::to_vec(&journal.kept().expect("reads")[0].header).expect("JSON"), vec![b'\n'; 1]].concat();
            let mut file = File::options().write(true).open(&is).expect("it is a spare");
            file.write_all(&head).expect("writes");
        }
    }

    #[test]
    fn a_torn_log_is_read_up_to_where_it_is_torn_and_one_that_cannot_be_read_may_need_any_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("opens");
        let entry = |byte| Entry { header: header(), body: Some(Sealed::from_bytes(vec![byte; 100])), path: None };
        journal.spares.kept().add(&[entry(1), entry(2)]).expect("writes");
        let log = journal.spares.kept().logs().all[0].0.clone();
        let whole = fs::metadata(&log).expect("is there").len();
        File::options().write(true).open(&log).expect("opens").set_len(whole - 1).expect("is torn");
        spares::tests::until_at_rest(&journal);
        drop(journal);
        let journal = Journal::open(dir.path()).expect("opens again");
        let kept = journal.kept().expect("reads");
        assert_eq!(kept.iter().map(|entry| entry.body.clone()).collect::<Vec<_>>(), [entry(1).body]);
        assert_eq!(journal.needs().expect("lists").unread, 0);
        spares::tests::until_at_rest(&journal);
        drop(journal);
        let looped = dir.path().join("looped.kept");
        std::os::unix::fs::symlink(&looped, &looped).expect("links");
        let journal = Journal::open(dir.path()).expect("opens again");
        assert_eq!((journal.kept().expect("reads").len(), journal.needs().expect("lists").unread), (1, 1));
    }
}
