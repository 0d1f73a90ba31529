//! An entry that waits for JFrog's answer.

use std::{io, sync::Arc};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    entry::{Header, Place},
    log::Log,
    record::{PAGE, Standing, encode, line},
    state::{PAGES_EACH, Save},
};
use crate::secret::Sealed;

/// Room on disk for one entry. Nothing is written before JFrog has answered.
#[derive(Debug)]
pub struct Prepared {
    log: Arc<Log>,
    attempt: Uuid,
    master_key: String,
    line: Vec<u8>,
    /// Whether the room is kept still.
    reserved: bool,
    /// Where it lies.
    place: Option<Place>,
}

impl Prepared {
    pub(super) fn reserve(log: &Arc<Log>, header: &Header) -> io::Result<Self> {
        let line = line(header)?;
        if line.len() > (PAGES_EACH - 1) * PAGE {
            return Err(io::Error::other("the journal header is too long"));
        }
        log.reserve()?;
        let (attempt, master_key) = (header.attempt_id, header.master_key_id.clone());
        Ok(Self { log: Arc::clone(log), attempt, master_key, line, reserved: true, place: None })
    }

    /// Writes the header and the sealed answer and waits until the disk has them.
    ///
    /// # Errors
    /// The disk failed; the pair is then in memory only, and must go to Postgres all the same.
    pub async fn save(&mut self, body: &Sealed) -> io::Result<()> {
        let record = encode(Standing::Pending, &self.line, body)?;
        let (saved, answer) = oneshot::channel();
        // The room goes with it.
        self.reserved = false;
        self.log.save(Save { attempt: self.attempt, master_key: self.master_key.clone(), record, saved });
        let (place, saved) = answer.await.map_err(|_| io::Error::other("the journal is closed"))?;
        self.place = place;
        saved
    }

    /// Postgres has the pair: the entry is kept for a day. The disk is not waited for: the next start would find it committed.
    pub fn committed(self) {
        self.mark(Standing::Committed);
    }

    /// Nothing came that must be kept.
    pub fn discard(self) {
        self.mark(Standing::Discarded);
    }

    fn mark(mut self, standing: Standing) {
        if let Some(place) = self.place.take() {
            self.log.mark(self.attempt, place, standing);
        }
    }

    /// An answer came that nobody can use now: it is set aside, not thrown away. Blocks.
    ///
    /// # Errors
    /// It cannot be written; then it stays where it is. Or it was never on disk.
    pub fn set_aside(self) -> io::Result<()> {
        let place = self.place.as_ref().ok_or(io::ErrorKind::NotFound)?;
        self.log.set_aside(self.attempt, place)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.reserved {
            self.log.release();
        }
    }
}
