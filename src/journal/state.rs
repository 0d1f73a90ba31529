//! What the journal's thread and those who use it know in common: which entries there are, and what room.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{entry::Place, is_gone, record::Standing};

/// After so long the next log is begun: a log is forgotten as a whole.
const A_LOG: Duration = Duration::from_secs(3600);

/// On disk beforehand: as many as tokens may be worked on at once.
pub(super) const ROOM: usize = 64;

/// What is set aside for each. JFrog's answers have about 2 KiB; a longer one takes what is there, or makes the log grow.
pub(super) const PAGES_EACH: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) state: Mutex<State>,
    /// There is something to do for the thread.
    pub(super) work: Condvar,
    /// There is room, or none could be made.
    pub(super) room: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// For the thread. Each is of an entry that is in flight.
    pub(super) asks: Vec<Ask>,
    /// Entries for which room is kept.
    pub(super) reserved: usize,
    /// Who waits for room: it is made for all of them at once.
    pub(super) waiting: usize,
    /// The log that is written to.
    pub(super) current: Option<Current>,
    /// Whether more room is wanted; how often it was tried, and what came of the last time.
    pub(super) wanted: bool,
    pub(super) tries: u64,
    pub(super) failed: Option<Arc<io::Error>>,
    /// Entries that wait for Postgres, or of which the disk does not say yet where they stand: as many as are in flight, or were when
    /// Postgres went away.
    pub(super) open: BTreeMap<Uuid, Open>,
    pub(super) logs: Vec<There>,
    /// Logs that could not be opened, and pages that could not be read.
    pub(super) unopened: Vec<PathBuf>,
    pub(super) unread: usize,
    /// The thread ends, or has ended.
    pub(super) over: bool,
}

/// An entry that waits.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) place: Place,
    pub(super) master_key: String,
    /// Where it stands, whatever the disk says.
    pub(super) standing: Standing,
}

/// A log that is there.
#[derive(Debug)]
pub(super) struct There {
    pub(super) path: Arc<Path>,
    /// The master keys that its entries need.
    pub(super) needs: HashSet<String>,
    /// Whether all of it could be read; else nobody removes it.
    pub(super) whole: bool,
}

/// The log that is written to.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) path: Arc<Path>,
    pub(super) inode: u64,
    pub(super) since: Instant,
    /// Whether the next one is to be begun, whatever its age.
    pub(super) retired: bool,
    /// Left on disk.
    pub(super) pages: usize,
}

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Ask {
    Save(Save),
    Mark(Uuid, Place, Standing),
}

/// An entry for the disk.
#[derive(Debug)]
pub(super) struct Save {
    pub(super) attempt: Uuid,
    pub(super) master_key: String,
    pub(super) record: Vec<u8>,
    pub(super) saved: oneshot::Sender<Saved>,
}

/// Where it lies, if anywhere, and whether the disk has it.
pub(super) type Saved = (Option<Place>, io::Result<()>);

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn has_room(&self) -> bool {
        let has_room = |current: &Current| current.pages >= (self.reserved + 1) * PAGES_EACH;
        !self.over && self.current.as_ref().is_some_and(has_room)
    }

    pub(super) fn is_low(&self) -> bool {
        let is_low = |current: &Current| current.pages < (self.reserved + ROOM / 2) * PAGES_EACH || !current.goes_on();
        self.current.as_ref().is_none_or(is_low)
    }

    /// For those in flight, those who wait, and as many as are kept beforehand: the more, the more there are.
    pub(super) fn wanted_pages(&self) -> usize {
        (self.reserved + self.waiting + ROOM.max(self.reserved)) * PAGES_EACH
    }

    /// To make room, and what came of it.
    pub(super) fn tried(&mut self, failed: Option<io::Error>) {
        self.wanted = false;
        self.tries += 1;
        self.failed = failed.map(Arc::new);
    }

    /// From now on this one is written to.
    pub(super) fn begin(&mut self, current: Current) {
        self.logs.push(There { path: Arc::clone(&current.path), needs: HashSet::new(), whole: true });
        self.current = Some(current);
    }

    /// Nothing more is written to this log.
    pub(super) fn abandon(&mut self, log: &Path) {
        self.current.take_if(|current| *current.path == *log);
    }

    /// Adds what was found later. What is known of an entry is newer.
    pub(super) fn merge(&mut self, found: Self) {
        for (attempt, open) in found.open {
            self.open.entry(attempt).or_insert(open);
        }
        self.logs.extend(found.logs);
        self.unopened.extend(found.unopened);
        self.unread += found.unread;
    }

    /// A log to which nothing was written for `age`, and in which nothing waits: it may be removed. The one that is written to makes way
    /// for the next one first. One that was removed by somebody else is forgotten with all that was in it.
    pub(super) fn forget(&mut self, log: &Arc<Path>, age: Duration) -> Option<There> {
        let is_old = |at: SystemTime| at.elapsed().is_ok_and(|past| past > age);
        match fs::metadata(log).and_then(|file| file.modified()) {
            Ok(at) if is_old(at) => {}
            Err(error) if is_gone(&error) && log.parent().is_some_and(Path::exists) => {
                self.open.retain(|_, open| open.place.log != *log)
            }
            _ => return None,
        }
        if self.open.values().any(|open| open.place.log == *log) {
            return None;
        }
        if let Some(current) = self.current.as_mut().filter(|current| current.path == *log) {
            (current.retired, self.wanted) = (true, true);
            return None;
        }
        let at = self.logs.iter().position(|there| there.path == *log && there.whole)?;
        Some(self.logs.swap_remove(at))
    }

    /// An entry that waits for Postgres.
    pub(super) fn waits(&mut self, attempt: Uuid, place: Place, master_key: String) {
        if let Some(there) = self.logs.iter_mut().find(|there| there.path == place.log) {
            there.needs.insert(master_key.clone());
        }
        self.open.insert(attempt, Open { place, master_key, standing: Standing::Pending });
    }
}

impl Current {
    /// Whether it is young enough.
    pub(super) fn goes_on(&self) -> bool {
        !self.retired && self.since.elapsed() <= A_LOG
    }
}

/// Whether the file is there still, and can be written. Fails where nobody can say.
pub(super) fn is_there(path: &Path, inode: u64) -> io::Result<bool> {
    match File::options().write(true).open(path).and_then(|file| file.metadata()) {
        Ok(file) => Ok(file.ino() == inode),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ReadOnlyFilesystem) => Ok(false),
        Err(error) => Err(error),
    }
}
