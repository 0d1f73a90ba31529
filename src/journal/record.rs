//! How an entry lies in a log: on pages of its own, so that one that is torn hides none behind it.
//!
//! `TBJ1`, a byte for its standing and three that are zero, the header's length, the body's; the header as JSON, in the clear; the
//! sealed body; zeros up to the page's end.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{entry::Header, older};
use crate::secret::Sealed;

/// What a disk writes together, or more.
pub(super) const PAGE: usize = 4096;

/// Where the byte of its standing is.
pub(super) const STANDING: u64 = 4;

const MAGIC: &[u8; 4] = b"TBJ1";
const PREFIX: usize = 16;

/// No answer of JFrog's is taken that is nearly as long: whatever says so is torn.
const LONGEST: usize = 4 * 1024 * 1024;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Postgres may not have it yet.
    Pending,
    /// Postgres had it; kept for a day against a failover that loses its last seconds.
    Committed,
    /// Nobody needs it.
    Discarded,
}

impl Standing {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Pending => b'p',
            Self::Committed => b'c',
            Self::Discarded => b'd',
        }
    }

    fn of(byte: u8) -> Self {
        match byte {
            b'c' => Self::Committed,
            b'd' => Self::Discarded,
            // Whatever else it says: it is looked at.
            _ => Self::Pending,
        }
    }
}

/// A record that was found.
pub(super) struct Record {
    /// Where it begins, in bytes.
    pub(super) at: u64,
    pub(super) standing: Standing,
    /// As it lies there, as far as it could be read.
    pub(super) bytes: Vec<u8>,
    /// Why not all of it could be: the system's word.
    pub(super) cut_short: Option<i32>,
    lengths: (usize, usize),
}

impl Record {
    /// # Errors
    /// It is torn, or none, or cannot be read now.
    pub(super) fn header(&self) -> io::Result<Header> {
        Ok(serde_json::from_slice(self.part(PREFIX, self.lengths.0)?)?)
    }

    /// # Errors
    /// It is torn, or cannot be read now.
    pub(super) fn body(&self) -> io::Result<Sealed> {
        Ok(Sealed::from_bytes(self.part(PREFIX + self.lengths.0, self.lengths.1)?.to_vec()))
    }

    fn part(&self, begins: usize, length: usize) -> io::Result<&[u8]> {
        let missing = || self.cut_short.map_or(io::ErrorKind::InvalidData.into(), io::Error::from_raw_os_error);
        self.bytes.get(begins..begins + length).ok_or_else(missing)
    }
}

/// A header, as a record has it.
pub(super) fn line(header: &Header) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(header)?)
}

/// One that is to be written.
pub(super) fn encode(standing: Standing, line: &[u8], body: &Sealed) -> io::Result<Vec<u8>> {
    let body = body.as_bytes();
    let length = |part: &[u8]| u32::try_from(part.len()).map(u32::to_be_bytes).map_err(io::Error::other);
    let mut bytes = [MAGIC, &[standing.byte(), 0, 0, 0], &length(line)?, &length(body)?, line, body].concat();
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    Ok(bytes)
}

/// The records of a log, in their order. A page that cannot be read hides no other.
pub(super) struct Records {
    file: File,
    at: u64,
    end: u64,
    /// Where the last page ends that is not empty.
    pub(super) used: u64,
    /// Whether there was anything but records.
    pub(super) strange: bool,
}

impl Records {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Self::from(path, 0)
    }

    fn from(path: &Path, at: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        Ok(Self { file, at, end, used: 0, strange: false })
    }

    /// As many bytes, or as there are.
    fn bytes(&self, at: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut read = 0;
        while read < count {
            match self.file.read_at(&mut bytes[read..], at + read as u64)? {
                0 => break,
                some => read += some,
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    fn next_record(&mut self) -> io::Result<Option<Record>> {
        while self.at < self.end {
            let at = self.at;
            self.at += PAGE as u64;
            let mut bytes = self.bytes(at, PAGE)?;
            let Some(lengths) = lengths(&bytes) else {
                // Nothing was written there; or it is a page of a record whose first one is lost.
                if bytes.iter().any(|byte| *byte != 0) {
                    (self.strange, self.used) = (true, self.at);
                }
                continue;
            };
            let standing = Standing::of(bytes[4]);
            let more = (PREFIX + lengths.0 + lengths.1).next_multiple_of(PAGE) - PAGE;
            let behind = self.at;
            self.at += more as u64;
            self.used = self.at;
            // Whose it is may be known although not all of it can be read now.
            let cut_short = match self.bytes(behind, more) {
                Ok(more) => {
                    bytes.extend(more);
                    None
                }
                Err(error) => error.raw_os_error(),
            };
            return Ok(Some(Record { at, standing, bytes, cut_short, lengths }));
        }
        Ok(None)
    }
}

impl Iterator for Records {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}

/// The record that begins there; `None`: none does.
pub(super) fn record_at(path: &Path, at: u64) -> io::Result<Option<Record>> {
    Ok(Records::from(path, at)?.next_record()?.filter(|record| record.at == at))
}

/// Of an entry that was set aside, by this version or an earlier one.
pub(super) fn header_of(path: &Path) -> io::Result<Header> {
    let bytes = std::fs::read(path)?;
    match lengths(&bytes) {
        Some(lengths) => Record { at: 0, standing: Standing::Pending, bytes, cut_short: None, lengths }.header(),
        None => older::header_of(&bytes),
    }
}

fn lengths(page: &[u8]) -> Option<(usize, usize)> {
    let prefix = page.get(..PREFIX).filter(|prefix| prefix.starts_with(MAGIC))?;
    let length = |at: usize| prefix[at..at + 4].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    Some((length(8), length(12))).filter(|(header, body)| header + body < LONGEST)
}
