//! What an earlier process left in a log.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use uuid::Uuid;

use super::{
    entry::Place,
    is_gone,
    log::EXTENSION,
    record::{Record, Records, STANDING, Standing},
    set_aside_bytes,
    state::{State, There},
};

/// Whether its name is one that we give.
pub(super) fn is_log(path: &Path) -> bool {
    let is_ours = |stem: &str| stem.parse::<Uuid>().is_ok();
    path.extension().is_some_and(|extension| extension == EXTENSION)
        && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(is_ours)
}

/// Takes down what is in it: what cannot be read hides nothing else.
pub(super) fn find(path: &Path, state: &mut State) {
    let mut records = match Records::of(path) {
        Ok(records) => records,
        // Somebody has tidied up.
        Err(error) if is_gone(&error) => return,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a log of the journal cannot be read now");
            return state.unopened.push(path.to_owned());
        }
    };
    let mut there = There { path: path.into(), needs: HashSet::new(), whole: true };
    let mut torn = Vec::new();
    for record in &mut records {
        match record.map(|record| (record.header(), record)) {
            Ok((_, record)) if record.standing == Standing::Discarded => {}
            Ok((Ok(header), record)) => {
                there.needs.insert(header.master_key_id.clone());
                if record.standing == Standing::Pending {
                    let place = Place { log: Arc::clone(&there.path), at: record.at };
                    state.waits(header.attempt_id, place, header.master_key_id);
                }
            }
            Ok((Err(error), record)) if error.raw_os_error().is_none() => torn.push((record, error)),
            Ok((Err(error), _)) | Err(error) => {
                tracing::error!(path = %path.display(), %error, "a page of the journal cannot be read");
                there.whole = false;
            }
        }
    }
    for (record, error) in torn {
        tracing::error!(path = %path.display(), at = record.at, %error, "a journal entry is set aside: it cannot be used, and is not thrown away");
        if let Err(error) = set_aside(path, &record) {
            tracing::error!(path = %path.display(), at = record.at, %error, "a journal entry could not be set aside");
            there.whole = false;
        }
    }
    state.unread += usize::from(!there.whole);
    if there.whole
        && let Err(error) = tidy(path, &records, there.needs.is_empty())
    {
        tracing::warn!(path = %path.display(), %error, "a log of the journal could not be made shorter");
    }
    state.logs.push(there);
}

fn set_aside(log: &Path, record: &Record) -> io::Result<()> {
    let name = format!("{}-{}", log.file_stem().unwrap_or_default().display(), record.at);
    set_aside_bytes(log.parent().unwrap_or(Path::new(".")), &name, &record.bytes)?;
    File::options().write(true).open(log)?.write_all_at(&[Standing::Discarded.byte()], record.at + STANDING)
}

/// Nothing is added to it: what it had beforehand is not needed.
fn tidy(log: &Path, records: &Records, is_empty: bool) -> io::Result<()> {
    if is_empty && !records.strange {
        return fs::remove_file(log);
    }
    if fs::metadata(log)?.len() > records.used {
        File::options().write(true).open(log)?.set_len(records.used)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            Journal,
            tests::{again, header, journal, named, saved},
        },
        *,
    };
    use crate::secret::Sealed;

    #[tokio::test]
    async fn a_torn_entry_hides_none_behind_it() {
        let (dir, journal) = journal();
        for _ in 0..4 {
            let mut entry = journal.prepare(&header()).expect("prepares");
            entry.save(&Sealed::from_bytes(vec![7; 6_000])).await.expect("saves");
        }
        let mut places: Vec<_> = journal.pending().into_values().collect();
        places.sort_by_key(|place| place.at);
        drop(journal);
        let file = File::options().write(true).open(&places[0].log).expect("opens");
        // The first one's beginning was not written, the second one's header is half there, the last one's end is missing.
        file.write_all_at(&[0; 4096], places[0].at).expect("writes");
        file.write_all_at(&[0; 200], places[1].at + 100).expect("writes");
        file.set_len(places[3].at + 4096).expect("is torn");
        let journal = Journal::open(dir.path()).expect("opens again");
        let waiting: Vec<_> =
            journal.pending().into_values().map(|place| journal.read(&place).map(|entry| entry.is_some())).collect();
        assert_eq!(waiting.iter().filter(|read| matches!(read, Ok(true))).count(), 1);
        assert_eq!(waiting.iter().filter(|read| read.is_err()).count(), 1, "its attempt is known, and that it is torn");
        assert_eq!(named(dir.path(), "unreadable").len(), 1, "nobody knows whose it was: it is kept");
        let journal = again(&dir, journal);
        assert_eq!((journal.pending().len(), named(dir.path(), "unreadable").len()), (2, 1));
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_read_may_need_any_key_and_is_left_alone() {
        let (dir, journal) = journal();
        saved(&journal).await;
        let looped = dir.path().join(format!("{}.log", Uuid::now_v7()));
        std::os::unix::fs::symlink(&looped, &looped).expect("links");
        let journal = again(&dir, journal);
        assert_eq!((journal.pending().len(), journal.needs().expect("lists").unread), (1, 1));
        journal.prune(Duration::ZERO);
        assert!(looped.is_symlink());
        // It was a moment's trouble.
        fs::remove_file(&looped).expect("removes");
        fs::copy(&named(dir.path(), EXTENSION)[0], &looped).expect("copies");
        journal.prune(Duration::from_secs(60));
        assert_eq!(journal.needs().expect("lists").unread, 0);
        fs::write(dir.path().join("foreign.log"), b"not ours").expect("writes");
        drop(again(&dir, journal));
        assert!(dir.path().join("foreign.log").exists());
    }
}
