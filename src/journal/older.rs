//! Entries as earlier versions left them: a file each, whose name said where it stood, and logs of those that were kept. They are
//! written to a log of today's, once.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    entry::Header,
    found::is_log,
    log::EXTENSION,
    private_file,
    record::{Records, Standing, encode, line},
    sync_dir,
};
use crate::secret::Sealed;

/// A file's header had this many bytes, padded; the body's length and the body followed.
pub(super) const HEADER: usize = 4096;

/// How the names of these files end, and where what is in them stands. What waits comes first: a disk may have no room for all. A
/// spare's new name may not have come to the disk.
const KINDS: [[(&str, Standing); 2]; 2] = [
    [("pending", Standing::Pending), ("spare", Standing::Pending)],
    [("kept", Standing::Committed), ("committed", Standing::Committed)],
];

/// Takes over what is there of them. How many files could not be, and are left for the next start.
pub(super) fn convert(dir: &Path) -> io::Result<usize> {
    let files: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|file| file.path()).collect();
    let of =
        |wanted: &'static str| files.iter().filter(move |path| path.extension().is_some_and(|extension| extension == wanted));
    if KINDS.iter().flatten().all(|(extension, _)| of(extension).next().is_none()) {
        return Ok(0);
    }
    // A start that was cut short may have taken some over; and a spare that was about to be used again is kept elsewhere.
    let mut known = Known { logged: HashSet::new(), kept: HashSet::new(), all: true };
    for log in files.iter().filter(|path| is_log(path)) {
        let Ok(records) = Records::of(log) else {
            // Whoever opens it says so.
            known.all = false;
            continue;
        };
        for record in records {
            match record.and_then(|record| record.header()) {
                Ok(header) => drop(known.logged.insert(header.attempt_id)),
                Err(_) => known.all = false,
            }
        }
    }
    for path in of("kept") {
        match fs::read(path) {
            Ok(bytes) => known.kept.extend(Kept(&bytes).map(|(header, _)| header.attempt_id)),
            Err(_) => known.all = false,
        }
    }
    let mut unread = 0;
    for kinds in KINDS {
        let files: Vec<_> =
            kinds.iter().flat_map(|(extension, standing)| of(extension).map(move |path| (*extension, *standing, path))).collect();
        unread += take_over(dir, &files, &mut known).unwrap_or_else(|error| {
            tracing::error!(%error, "what an earlier version left in the journal cannot be taken over now");
            drop(fs::remove_file(dir.join(UNFINISHED)));
            files.len()
        });
    }
    Ok(unread)
}

/// Attempts whose entries are elsewhere.
struct Known {
    logged: HashSet<Uuid>,
    kept: HashSet<Uuid>,
    /// Whether all of these could be read.
    all: bool,
}

const UNFINISHED: &str = "older.new";

fn take_over(dir: &Path, files: &[(&str, Standing, &PathBuf)], known: &mut Known) -> io::Result<usize> {
    let mut log = private_file(&dir.join(UNFINISHED))?;
    log.set_len(0)?;
    let (mut done, mut unread) = (Vec::new(), 0);
    for (extension, standing, path) in files {
        let entries = match fs::read(path).map(|bytes| entries(extension, &bytes)) {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => {
                tracing::error!(path = %path.display(), %error, "a journal entry is set aside: it cannot be used, and is not thrown away");
                unread += usize::from(fs::rename(path, path.with_extension(super::UNREADABLE)).is_err());
                continue;
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a file of the journal cannot be read now");
                unread += 1;
                continue;
            }
        };
        if *extension == "spare" && !entries.is_empty() && !known.all {
            tracing::error!(path = %path.display(), "a journal entry waits for other files to be read");
            unread += 1;
            continue;
        }
        for (header, body) in entries {
            let is_kept = *standing == Standing::Pending && known.kept.contains(&header.attempt_id);
            if !is_kept && known.logged.insert(header.attempt_id) {
                log.write_all(&encode(*standing, &line(&header)?, &body)?)?;
            }
        }
        done.push(path);
    }
    log.sync_all()?;
    fs::rename(dir.join(UNFINISHED), dir.join(format!("{}.{EXTENSION}", Uuid::now_v7())))?;
    sync_dir(dir)?;
    // What is left is not taken over again.
    done.into_iter().for_each(|path| drop(fs::remove_file(path)));
    sync_dir(dir)?;
    Ok(unread)
}

/// What a file of this kind holds.
fn entries(extension: &str, bytes: &[u8]) -> io::Result<Vec<(Header, Sealed)>> {
    match extension {
        "kept" => Ok(Kept(bytes).collect()),
        "spare" if bytes.iter().all(|byte| *byte == 0) => Ok(Vec::new()),
        _ => Ok(entry(bytes)?.into_iter().collect()),
    }
}

/// `Ok(None)`: it has no body.
fn entry(bytes: &[u8]) -> io::Result<Option<(Header, Sealed)>> {
    let (head, rest) = bytes.split_at_checked(HEADER).ok_or(io::ErrorKind::InvalidData)?;
    let header = header_of(head)?;
    let (body, _) = part(rest).ok_or(io::ErrorKind::InvalidData)?;
    Ok((!body.is_empty()).then(|| (header, Sealed::from_bytes(body.to_vec()))))
}

pub(super) fn header_of(head: &[u8]) -> io::Result<Header> {
    Ok(serde_json::from_slice(head.split(|byte| *byte == b'\n').next().unwrap_or_default())?)
}

/// Its length, it, and the rest.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// The records of a log of those that were kept, up to one that is not whole.
struct Kept<'a>(&'a [u8]);

impl Iterator for Kept<'_> {
    type Item = (Header, Sealed);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = part(self.0)?;
        let (body, rest) = part(rest)?;
        self.0 = rest;
        Some((header_of(header).ok()?, Sealed::from_bytes(body.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Journal,
            tests::{header, named},
        },
        *,
    };

    fn file(header: &Header, body: &[u8]) -> Vec<u8> {
        let mut head = line(header).expect("JSON");
        head.push(b'\n');
        head.resize(HEADER, 0);
        [&head, &u32::try_from(body.len()).expect("short").to_be_bytes()[..], body, &[0; 5_000]].concat()
    }

    fn kept(header: &Header, body: &[u8]) -> Vec<u8> {
        let line = line(header).expect("JSON");
        let length = |part: &[u8]| u32::try_from(part.len()).expect("short").to_be_bytes();
        [&length(&line)[..], &line, &length(body), body].concat()
    }

    #[test]
    fn a_spare_waits_while_a_log_in_which_it_may_be_kept_cannot_be_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let header = header();
        fs::write(dir.path().join("1.spare"), file(&header, b"copied")).expect("writes");
        let log = dir.path().join("2.kept");
        std::os::unix::fs::symlink(&log, &log).expect("links");
        let journal = Journal::open(dir.path()).expect("opens");
        assert_eq!((journal.pending().len(), journal.unread()), (0, 2));
        drop(journal);
        fs::remove_file(&log).expect("removes");
        fs::write(&log, kept(&header, b"copied")).expect("writes");
        let journal = Journal::open(dir.path()).expect("opens");
        assert_eq!((journal.pending().len(), journal.kept().0.len(), journal.unread()), (0, 1, 0));
    }

    #[test]
    fn what_an_earlier_version_left_stands_where_it_stood() {
        let dir = tempfile::tempdir().expect("a directory");
        let [waits, unnamed, committed, copied, empty, logged] = [(); 6].map(|()| header());
        let written = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("writes");
        written("1.pending", &file(&waits, b"waits"));
        written("2.spare", &file(&unnamed, b"unnamed"));
        written("3.committed", &file(&committed, b"committed"));
        written("4.spare", &file(&copied, b"copied"));
        written("5.pending", &file(&empty, b""));
        written("6.spare", &[0; 16_384]);
        written("7.pending", b"{");
        written("8.spare", b"torn");
        // Its end is torn.
        let torn = kept(&empty, b"torn");
        written("9.kept", &[&kept(&copied, b"copied")[..], &kept(&logged, b"logged"), &torn[..torn.len() - 1]].concat());
        let looped = dir.path().join("looped.pending");
        std::os::unix::fs::symlink(&looped, &looped).expect("links");
        for _ in 0..2 {
            // As if the first start had been cut short: what it took over is there still.
            written("1.pending", &file(&waits, b"waits"));
            let journal = Journal::open(dir.path()).expect("opens");
            let body = |place| journal.read(place).expect("an entry").and_then(|entry| entry.body).expect("is there");
            let mut waiting: Vec<_> =
                journal.pending().iter().map(|(attempt, place)| (*attempt, body(place).as_bytes().to_vec())).collect();
            waiting.sort();
            let mut expected = vec![(waits.attempt_id, b"waits".to_vec()), (unnamed.attempt_id, b"unnamed".to_vec())];
            expected.sort();
            assert_eq!(waiting, expected);
            let kept: Vec<_> = journal.kept().0.into_iter().map(|entry| entry.header.attempt_id).collect();
            assert_eq!(kept, [copied.attempt_id, logged.attempt_id, committed.attempt_id], "in the order of their files");
            assert_eq!(journal.needs().expect("lists").unread, 1, "it is looked at again");
            let left = ["pending", "spare", "committed", "kept"].map(|extension| named(dir.path(), extension).len());
            assert_eq!((left, named(dir.path(), "unreadable").len()), ([1, 0, 0, 0], 2));
        }
    }
}
