//! An entry that waits for JFrog's answer.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{HEADER, Standing, UNREADABLE, rename, spares::Spares};
use crate::secret::Sealed;

/// A spare entry of full size that is on disk already, and nobody else's.
#[derive(Debug)]
pub struct Prepared {
    spares: Arc<Spares>,
    file: File,
    /// Where the file is now.
    path: PathBuf,
    /// Where it is when it holds an answer.
    pending: PathBuf,
    header: Vec<u8>,
    /// Of what is in use, bytes.
    length: u64,
}

impl Prepared {
    /// Takes a spare for an attempt. Nothing is written: the spare is whole, and what cannot be opened for writing is no spare.
    pub(super) fn claim(spares: &Arc<Spares>, spare: &Path, mut header: Vec<u8>, pending: PathBuf) -> io::Result<Self> {
        let file = File::options().write(true).open(spare)?;
        header.resize(HEADER, 0);
        Ok(Self { spares: Arc::clone(spares), file, path: spare.to_owned(), pending, header, length: 0 })
    }

    /// Writes the header and the sealed answer and waits until the disk has them. Blocks.
    ///
    /// # Errors
    /// The disk failed; the pair is then in memory only, and must go to Postgres all the same.
    pub fn save(&mut self, body: &Sealed) -> io::Result<()> {
        let length = u32::try_from(body.as_bytes().len()).map_err(io::Error::other)?;
        self.length = HEADER as u64 + 4 + u64::from(length);
        // In one write: a torn body does not open, and is set aside.
        self.file.write_all(&[&self.header, &length.to_be_bytes()[..], body.as_bytes()].concat())?;
        // Should the machine stop before the new name is on disk, the entry is found under the old one, by its header.
        fs::rename(&self.path, &self.pending)?;
        self.path.clone_from(&self.pending);
        self.file.sync_data()
    }

    /// Postgres has the pair: the entry is kept for a day. Blocks.
    ///
    /// # Errors
    /// It cannot be renamed; then the next start finds it committed already.
    pub fn committed(self) -> io::Result<()> {
        // By the file's time its day begins now, however long it waited. If that fails, it is forgotten earlier.
        drop(self.file.write_all_at(&self.header[..1], 0));
        rename(&self.path, Standing::Committed.extension())?;
        self.spares.rest(self.path.with_extension(Standing::Committed.extension()));
        Ok(())
    }

    /// Nothing came that must be kept: the spare is the next attempt's, or what was written is removed. Blocks.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(self) -> io::Result<()> {
        if self.length > 0 {
            return fs::remove_file(&self.path);
        }
        self.spares.give_back(self.path);
        Ok(())
    }

    /// An answer came that nobody can use now: it is set aside, not thrown away. Blocks.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(self) -> io::Result<()> {
        rename(&self.path, UNREADABLE)
    }
}
