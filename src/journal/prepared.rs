//! An entry that waits for JFrog's answer.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{HEADER, Standing, UNREADABLE, rename};
use crate::secret::Sealed;

/// An entry at its full size, waiting for JFrog's answer.
#[derive(Debug)]
pub struct Prepared {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Of what is in use, bytes.
    pub(super) length: u64,
}

impl Prepared {
    /// Makes a spare file this attempt's. What is written here is on disk when the answer is; until then no disk is waited for.
    pub(super) fn claim(spare: &Path, header: &[u8], path: &Path) -> io::Result<Self> {
        let mut file = File::options().write(true).open(spare)?;
        let length = file.metadata()?.len();
        file.write_all(header)?;
        fs::rename(spare, path)?;
        Ok(Self { file, path: path.to_owned(), length })
    }

    /// Writes the sealed answer and waits until the disk has it. Blocks.
    ///
    /// # Errors
    /// The disk failed; the pair is then in memory only, and must go to Postgres all the same.
    pub fn save(&mut self, body: &Sealed) -> io::Result<()> {
        let length = u32::try_from(body.as_bytes().len()).map_err(io::Error::other)?;
        self.file.seek(SeekFrom::Start(HEADER as u64))?;
        // The length goes last into the same write: a torn body does not open, and is set aside.
        self.file.write_all(&[&length.to_be_bytes(), body.as_bytes()].concat())?;
        self.length = HEADER as u64 + 4 + u64::from(length);
        self.file.sync_data()
    }

    /// Postgres has the pair: the entry is kept for a day. Blocks.
    ///
    /// # Errors
    /// It cannot be renamed; then the next start finds it committed already.
    pub fn committed(self) -> io::Result<()> {
        // It is kept for a day: what was allocated and not needed is given back. If it cannot be, the disk holds more.
        drop(self.file.set_len(self.length));
        rename(&self.path, Standing::Committed.extension())
    }

    /// Nothing came that must be kept. Blocks.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// An answer came that nobody can use now: it is set aside, not thrown away. Blocks.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(self) -> io::Result<()> {
        rename(&self.path, UNREADABLE)
    }
}
