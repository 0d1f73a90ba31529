//! The thread that writes: it appends what it is asked for, waits for the disk once for all of it, and makes room ahead.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::{Arc, PoisonError},
    time::Instant,
};

use uuid::Uuid;

use super::{
    entry::Place,
    is_gone,
    log::EXTENSION,
    private_file,
    record::{PAGE, STANDING, Standing},
    state::{Ask, Current, Save, Shared, State},
    sync_dir,
};

/// The log that is appended to.
struct Writer {
    file: File,
    path: Arc<Path>,
    /// Where the next record begins, and what is on disk beforehand ends.
    at: u64,
    end: u64,
}

/// Until the journal is closed, and nothing is left to do.
pub(super) fn write(shared: &Shared) {
    let _ended = Ended(shared);
    let mut writer = None;
    loop {
        let (asks, wanted) = {
            let mut state = shared.state();
            while state.asks.is_empty() && !state.over && !state.wanted {
                state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.asks.is_empty() && state.over {
                return;
            }
            (std::mem::take(&mut state.asks), state.wanted && !state.over)
        };
        let mut saves = Vec::new();
        for ask in asks {
            match ask {
                Ask::Save(save) => saves.push(save),
                Ask::Mark(attempt, place, standing) => mark(shared, writer.as_ref(), attempt, &place, standing),
            }
        }
        // Whoever waits for the disk comes first; of them, whoever needs no more than its room.
        saves.sort_by_key(|save| save.record.len());
        if !saves.is_empty() {
            save(shared, &mut writer, saves);
        }
        if wanted {
            make_room(shared, &mut writer);
        }
    }
}

/// Where it stands may be lost with the machine: the next start finds out.
fn mark(shared: &Shared, writer: Option<&Writer>, attempt: Uuid, place: &Place, standing: Standing) {
    let (byte, at) = ([standing.byte()], place.at + STANDING);
    let marked = match writer.filter(|writer| writer.path == place.log) {
        Some(writer) => writer.file.write_all_at(&byte, at),
        None => File::options().write(true).open(&place.log).and_then(|file| file.write_all_at(&byte, at)),
    };
    match marked {
        // It stays known here what the disk does not say.
        Err(error) if !is_gone(&error) => {
            tracing::warn!(%place, %error, "a journal entry could not be marked; the next start finds out where it stands");
        }
        _ => drop(shared.state().open.remove(&attempt)),
    }
}

fn save(shared: &Shared, writer: &mut Option<Writer>, saves: Vec<Save>) {
    if !is_current(&shared.state(), writer.as_ref()) {
        make_room(shared, writer);
    }
    // Better in a log that was given up than nowhere.
    let written = writer.as_mut().map(|writer| (Arc::clone(&writer.path), writer.append(&saves)));
    let mut state = shared.state();
    state.reserved = state.reserved.saturating_sub(saves.len());
    let Some((log, written)) = written else {
        let nowhere = || Err(io::Error::other("there is no log to write to"));
        return saves.into_iter().for_each(|save| drop(save.saved.send((None, nowhere()))));
    };
    if written.iter().any(|(_, written)| written.is_err()) {
        // What such a disk says of it from now on is worth nothing: the next ones have a log of their own.
        state.abandon(&log);
    }
    say_what_is_left(&mut state, writer.as_ref());
    for (Save { attempt, master_key, saved, .. }, (at, written)) in saves.into_iter().zip(written) {
        // Although the disk failed it may have it.
        let place = Place { log: Arc::clone(&log), at };
        state.waits(attempt, place.clone(), master_key);
        // Who waits no longer needs no answer.
        drop(saved.send((Some(place), written)));
    }
}

/// More of it in the log that is written to; in a new one, if there is none, or it is old enough.
fn make_room(shared: &Shared, writer: &mut Option<Writer>) {
    let (pages, goes_on) = {
        let state = shared.state();
        let goes_on = is_current(&state, writer.as_ref()) && state.current.as_ref().is_some_and(Current::goes_on);
        (state.wanted_pages(), goes_on)
    };
    let made = match writer {
        Some(writer) if goes_on => writer.grow(pages).map(|()| None),
        _ => Writer::begin(shared, pages).map(Some),
    };
    let mut state = shared.state();
    let (begun, failed) = made.map_or_else(|error| (None, Some(error)), |begun| (begun, None));
    let before = begun.map(|(begun, inode)| {
        state.begin(Current { path: Arc::clone(&begun.path), inode, since: Instant::now(), retired: false, pages: 0 });
        writer.replace(begun)
    });
    if let Some(error) = &failed {
        tracing::warn!(%error, "no room could be made in the journal");
    }
    state.tried(failed);
    say_what_is_left(&mut state, writer.as_ref());
    drop(state);
    shared.room.notify_all();
    // The disk may have something to do with it.
    drop(before);
}

fn say_what_is_left(state: &mut State, writer: Option<&Writer>) {
    if is_current(state, writer)
        && let Some((current, writer)) = state.current.as_mut().zip(writer)
    {
        current.pages = writer.pages();
    }
}

fn is_current(state: &State, writer: Option<&Writer>) -> bool {
    state.current.as_ref().zip(writer).is_some_and(|(current, writer)| current.path == writer.path)
}

impl Writer {
    /// A new log, and which file it is.
    fn begin(shared: &Shared, pages: usize) -> io::Result<(Self, u64)> {
        let path = shared.dir.join(format!("{}.{EXTENSION}", Uuid::now_v7()));
        let begin = || {
            let mut writer = Self { file: private_file(&path)?, path: path.as_path().into(), at: 0, end: 0 };
            writer.grow(pages)?;
            sync_dir(&shared.dir)?;
            // For those who came meanwhile, too.
            let pages = shared.state().wanted_pages();
            writer.grow(pages)?;
            let inode = writer.file.metadata()?.ino();
            Ok((writer, inode))
        };
        // Half-made it holds nothing; leaving it would fill a full disk further.
        begin().inspect_err(|_| drop(fs::remove_file(&path)))
    }

    fn pages(&self) -> usize {
        usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX) / PAGE
    }

    /// Until so many are left on disk.
    fn grow(&mut self, pages: usize) -> io::Result<()> {
        let missing = vec![0; pages.saturating_sub(self.pages()) * PAGE];
        // Written, not only allocated: an answer's fsync then has data to bring to the disk and nothing else.
        let grown = self.file.write_all_at(&missing, self.end).and_then(|()| self.file.sync_all());
        match grown {
            Ok(()) => self.end += missing.len() as u64,
            Err(_) => drop(self.file.set_len(self.end)),
        }
        grown
    }

    /// Waits until the disk has them. Where each begins, and whether the disk has it.
    fn append(&mut self, saves: &[Save]) -> Vec<(u64, io::Result<()>)> {
        let begins: Vec<u64> = saves
            .iter()
            .map(|save| {
                let at = self.at;
                self.at += save.record.len() as u64;
                at
            })
            .collect();
        self.end = self.end.max(self.at);
        let together = saves.iter().map(|save| save.record.as_slice()).collect::<Vec<_>>().concat();
        match begins.first().map_or(Ok(()), |at| self.write(*at, &together)) {
            Ok(()) => begins.into_iter().map(|at| (at, Ok(()))).collect(),
            // One may have no room that the others have.
            Err(_) => begins.into_iter().zip(saves).map(|(at, save)| (at, self.write(at, &save.record))).collect(),
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        self.file.sync_data()
    }
}

/// Tells who waits for room, also after a panic.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.over = true;
        state.asks.clear();
        drop(state);
        self.0.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::{
        super::{
            record::encode,
            tests::{header, journal},
        },
        *,
    };
    use crate::secret::Sealed;

    fn save(bytes: usize) -> (Save, oneshot::Receiver<super::super::state::Saved>) {
        let (header, (saved, answer)) = (header(), oneshot::channel());
        let record = encode(Standing::Pending, b"{}", &Sealed::from_bytes(vec![7; bytes])).expect("a record");
        (Save { attempt: header.attempt_id, master_key: header.master_key_id, record, saved }, answer)
    }

    #[tokio::test]
    async fn what_a_failing_disk_may_have_is_known_and_nothing_more_is_written_there() {
        let (_dir, journal) = journal();
        let shared = Shared { dir: journal.dir.clone(), ..Shared::default() };
        let mut writer = None;
        make_room(&shared, &mut writer);
        let failing = writer.as_mut().expect("a log");
        failing.file = File::options().write(true).open("/dev/full").expect("opens");
        let path = Arc::clone(&failing.path);
        let (asked, answer) = save(100);
        let attempt = asked.attempt;
        super::save(&shared, &mut writer, vec![asked]);
        let (place, written) = answer.await.expect("an answer");
        assert!(written.is_err() && place.is_some_and(|place| place.log == path));
        assert!(shared.state().open.contains_key(&attempt), "it is looked for there");
        assert!(!shared.state().has_room(), "nothing is spent before there is another log");
        let (asked, answer) = save(100);
        super::save(&shared, &mut writer, vec![asked]);
        let (place, written) = answer.await.expect("an answer");
        assert!(written.is_ok() && place.is_some_and(|place| place.log != path));
    }
}
