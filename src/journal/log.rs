//! The logs: entries are appended to one, by one thread, and all that come while the disk is waited for are waited for together.
//!
//! Room for what is in flight is on disk before JFrog is called: a full disk is noticed while nothing is spent yet. A log is only
//! appended to, by the process that made it; of what is there, one byte changes: where an entry stands.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use uuid::Uuid;

use super::{
    entry::{Entry, Place},
    found, is_gone,
    record::{Records, Standing, record_at},
    set_aside_bytes,
    state::{Ask, Save, Shared, State, is_there},
    writer::write,
};

pub(super) const EXTENSION: &str = "log";

/// A directory's logs, and the thread that writes.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Log {
    /// What earlier processes left.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let mut state = State::default();
        for path in fs::read_dir(dir)?.flatten().map(|file| file.path()) {
            if found::is_log(&path) {
                found::find(&path, &mut state);
            }
        }
        let shared = Arc::new(Shared { dir: dir.to_owned(), state: state.into(), ..Shared::default() });
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || write(&writing))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn make_room(&self) {
        self.shared.state().wanted = true;
        self.shared.work.notify_one();
    }

    pub(super) fn has_room(&self) -> bool {
        self.shared.state().has_room()
    }

    /// Keeps room for one more. It blocks where there is none: then some is made.
    ///
    /// # Errors
    /// The disk is full or cannot be written: nothing may be spent now.
    pub(super) fn reserve(&self) -> io::Result<()> {
        let current = self.shared.state().current.as_ref().map(|current| (Arc::clone(&current.path), current.inode));
        if let Some((path, inode)) = current
            && !is_there(&path, inode)?
        {
            // Never spend before you can save: what is on its way to it is written to the next one.
            self.shared.state().abandon(&path);
        }
        let mut state = self.shared.state();
        let tries = state.tries;
        loop {
            if state.has_room() {
                state.reserved += 1;
                if state.is_low() && !state.wanted {
                    state.wanted = true;
                    self.shared.work.notify_one();
                }
                return Ok(());
            }
            if state.over {
                return Err(io::Error::other("the journal is closed"));
            }
            if state.tries != tries
                && let Some(error) = &state.failed
            {
                return Err(io::Error::new(error.kind(), Arc::clone(error)));
            }
            state.wanted = true;
            state.waiting += 1;
            self.shared.work.notify_one();
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    pub(super) fn release(&self) {
        let mut state = self.shared.state();
        state.reserved = state.reserved.saturating_sub(1);
    }

    /// Room was kept for it.
    pub(super) fn save(&self, save: Save) {
        ask(&self.shared, &mut self.shared.state(), Ask::Save(save));
    }

    /// The disk is not waited for.
    pub(super) fn mark(&self, attempt: Uuid, place: Place, standing: Standing) {
        let mut state = self.shared.state();
        if let Some(open) = state.open.get_mut(&attempt) {
            open.standing = standing;
        }
        ask(&self.shared, &mut state, Ask::Mark(attempt, place, standing));
    }

    /// What waits for Postgres.
    pub(super) fn pending(&self) -> BTreeMap<Uuid, Place> {
        let state = self.shared.state();
        let pending = state.open.iter().filter(|(_, open)| open.standing == Standing::Pending);
        pending.map(|(attempt, open)| (*attempt, open.place.clone())).collect()
    }

    /// Committed entries, without their answers, and whether all could be read. Blocks.
    pub(super) fn committed(&self) -> (Vec<Entry>, bool) {
        let (logs, marked) = {
            let state = self.shared.state();
            let marked = state.open.iter().filter(|(_, open)| open.standing == Standing::Committed);
            let marked: HashSet<Uuid> = marked.map(|(attempt, _)| *attempt).collect();
            (state.logs.iter().map(|there| Arc::clone(&there.path)).collect::<Vec<_>>(), marked)
        };
        let (mut entries, mut all) = (Vec::new(), true);
        for log in logs {
            let records = match Records::of(&log) {
                Ok(records) => records,
                // Somebody has tidied up.
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    tracing::error!(log = %log.display(), %error, "a log of the journal cannot be read now");
                    all = false;
                    continue;
                }
            };
            for record in records {
                let Ok(record) = record else {
                    all = false;
                    continue;
                };
                // What has no header was set aside, or is being written.
                let Ok(header) = record.header() else { continue };
                let is_committed = match record.standing {
                    Standing::Committed => true,
                    Standing::Pending => marked.contains(&header.attempt_id),
                    Standing::Discarded => false,
                };
                if is_committed {
                    entries.push(Entry { header, body: None, place: Place { log: Arc::clone(&log), at: record.at } });
                }
            }
        }
        (entries, all)
    }

    /// The master keys that entries need, and how many wait for Postgres.
    pub(super) fn needs(&self) -> BTreeMap<String, usize> {
        let state = self.shared.state();
        let mut keys: BTreeMap<String, usize> =
            state.logs.iter().flat_map(|there| &there.needs).map(|key| (key.clone(), 0)).collect();
        for open in state.open.values() {
            *keys.entry(open.master_key.clone()).or_default() += usize::from(open.standing == Standing::Pending);
        }
        keys
    }

    /// What could not be read, and may need any of them.
    pub(super) fn unread(&self) -> usize {
        let state = self.shared.state();
        state.unopened.len() + state.unread
    }

    /// Looks again at what could not be opened, says again where entries stand, and forgets logs to which nothing was written for `age`
    /// and in which nothing waits. Blocks.
    pub(super) fn prune(&self, age: Duration) {
        let unopened = std::mem::take(&mut self.shared.state().unopened);
        let mut found = State::default();
        unopened.iter().for_each(|path| found::find(path, &mut found));
        let logs: Vec<Arc<Path>> = {
            let mut state = self.shared.state();
            state.merge(found);
            let unsaid = state.open.iter().filter(|(_, open)| open.standing != Standing::Pending);
            let again: Vec<_> = unsaid.map(|(attempt, open)| Ask::Mark(*attempt, open.place.clone(), open.standing)).collect();
            again.into_iter().for_each(|mark| ask(&self.shared, &mut state, mark));
            state.logs.iter().map(|there| Arc::clone(&there.path)).collect()
        };
        for log in logs {
            let forgotten = self.shared.state().forget(&log, age);
            // A move to the next one takes a moment.
            self.shared.work.notify_one();
            if let Some(there) = forgotten
                && let Err(error) = fs::remove_file(&log)
                && !is_gone(&error)
            {
                tracing::warn!(log = %log.display(), %error, "a log of the journal could not be removed");
                self.shared.state().logs.push(there);
            }
        }
    }

    /// Sets an entry aside, out of the way and not lost. Blocks.
    pub(super) fn set_aside(&self, attempt: Uuid, place: &Place) -> io::Result<()> {
        if let Some(record) = record_at(&place.log, place.at)? {
            // What cannot be read now is nothing to be put away.
            record.cut_short.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))?;
            set_aside_bytes(&self.shared.dir, &attempt.to_string(), &record.bytes)?;
        }
        self.mark(attempt, place.clone(), Standing::Discarded);
        Ok(())
    }
}

impl Drop for Log {
    /// What was asked for is done first.
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn ask(shared: &Shared, state: &mut State, ask: Ask) {
    // Who waits for an answer is told by the end of its channel.
    if !state.over {
        state.asks.push(ask);
        shared.work.notify_one();
    }
}

/// One entry; `Ok(None)`: it is not there any more.
pub(super) fn read(place: &Place) -> io::Result<Option<Entry>> {
    let record = match record_at(&place.log, place.at) {
        Err(error) if is_gone(&error) => return Ok(None),
        read => read?,
    };
    let Some(record) = record.filter(|record| record.standing != Standing::Discarded) else { return Ok(None) };
    Ok(Some(Entry { header: record.header()?, body: Some(record.body()?), place: place.clone() }))
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::{
        super::{
            state::{PAGES_EACH, ROOM},
            tests::{again, header, journal, named, saved},
        },
        *,
    };
    use crate::secret::Sealed;

    #[tokio::test]
    async fn many_at_once_are_all_there_and_the_log_grows_ahead_of_them() {
        let (dir, journal) = journal();
        for _ in 0..4 {
            let entries = join_all((0..ROOM * 2).map(async |_| saved(&journal).await)).await;
            entries.into_iter().for_each(super::super::Prepared::committed);
        }
        let journal = again(&dir, journal);
        assert_eq!(journal.kept().0.len(), ROOM * 8);
        assert_eq!(named(dir.path(), EXTENSION).len(), 1, "all in one");
    }

    #[tokio::test]
    async fn what_was_prepared_finds_its_room_whoever_else_takes_some() {
        let (_dir, journal) = journal();
        let mut prepared: Vec<_> = (0..ROOM * 2).map(|_| journal.prepare(&header()).expect("prepares")).collect();
        {
            let state = journal.log.shared.state();
            let pages = state.current.as_ref().expect("a log").pages;
            assert!(state.reserved == ROOM * 2 && pages >= state.reserved * PAGES_EACH, "{pages} pages");
        }
        for entry in &mut prepared {
            entry.save(&Sealed::from_bytes(vec![7; 10_000])).await.expect("saves");
        }
        assert_eq!((journal.pending().len(), journal.log.shared.state().reserved), (ROOM * 2, 0));
        prepared.push(journal.prepare(&header()).expect("prepares"));
        drop(prepared);
        assert_eq!(journal.log.shared.state().reserved, 0);
    }

    #[tokio::test]
    async fn a_log_that_has_gone_is_noticed_before_anything_is_spent() {
        let (dir, journal) = journal();
        saved(&journal).await;
        named(dir.path(), EXTENSION).iter().for_each(|log| fs::remove_file(log).expect("removes"));
        saved(&journal).await;
        assert_eq!(again(&dir, journal).pending().len(), 1, "in a new one");
    }

    #[test]
    fn without_a_directory_to_write_nothing_is_prepared() {
        let (dir, journal) = journal();
        journal.prepare(&header()).expect("prepares").discard();
        fs::remove_dir_all(dir.path()).expect("removes");
        for _ in 0..ROOM * 2 {
            assert!(journal.prepare(&header()).is_err());
        }
        fs::create_dir(dir.path()).expect("is there again");
        journal.prepare(&header()).expect("prepares");
    }

    #[tokio::test]
    async fn where_an_entry_stands_is_known_before_the_disk_says_so() {
        let (_dir, journal) = journal();
        let entry = saved(&journal).await;
        let place = journal.pending().into_values().next().expect("it waits");
        // Whoever holds the state holds up the thread.
        let mut state = journal.log.shared.state();
        let open = state.open.values_mut().next().expect("it waits");
        open.standing = Standing::Committed;
        drop(state);
        let kept: Vec<_> = journal.kept().0.into_iter().map(|entry| entry.place).collect();
        assert_eq!((journal.pending().len(), kept), (0, vec![place]));
        journal.prune(Duration::ZERO);
        assert_eq!(journal.kept().0.len(), 1, "nothing is forgotten meanwhile");
        entry.committed();
    }

    #[tokio::test]
    async fn a_log_that_somebody_removed_is_forgotten_with_what_was_in_it() {
        let (dir, journal) = journal();
        drop(saved(&journal).await);
        named(dir.path(), EXTENSION).iter().for_each(|log| fs::remove_file(log).expect("removes"));
        journal.prune(Duration::from_secs(60));
        assert!(journal.pending().is_empty());
        // The next one is begun first.
        while !journal.needs().expect("lists").master_keys.is_empty() {
            journal.prune(Duration::from_secs(60));
        }
        saved(&journal).await.committed();
        assert_eq!(named(dir.path(), EXTENSION).len(), 1);
    }

    #[tokio::test]
    async fn nothing_is_prepared_once_nobody_writes() {
        let (_dir, journal) = journal();
        saved(&journal).await.committed();
        journal.log.shared.state().over = true;
        journal.log.shared.work.notify_one();
        assert!(!journal.has_room());
        assert!(journal.prepare(&header()).is_err());
    }
}
