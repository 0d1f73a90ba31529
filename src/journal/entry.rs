//! What stands in an entry: in its file, or in a log of those that are kept.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::HEADER;
use crate::{names::Asked, secret::Sealed};

/// What an entry says in the clear: which attempt it belongs to, and the wrapped key that opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The attempt, and the entry's name.
    pub attempt_id: Uuid,
    /// Whose.
    pub team_id: Uuid,
    /// Which registration.
    pub token_id: Uuid,
    /// Which chain.
    pub chain_id: Uuid,
    /// `create`, `rotate`, `heal` or `recreate`.
    pub kind: String,
    /// The chain's generation that was spent: the pair is committed onto no other.
    pub spent_generation: i64,
    /// When the attempt began, by Postgres' clock.
    #[serde(with = "time::serde::rfc3339")]
    pub begun_at: OffsetDateTime,
    /// What is asked of JFrog differently from now on.
    #[serde(default)]
    pub asked: Asked,
    /// For whom, as the audit writes it.
    pub actor: String,
    /// The id of the key that opens it.
    pub key_id: String,
    /// For whom it is wrapped: nil, a process' own; absent, as in the first entries there were: for this attempt alone.
    #[serde(default)]
    pub key_owner: Option<Uuid>,
    /// Which master key unwraps it.
    pub master_key_id: String,
    /// That key, wrapped, in hex: no rotation of data keys strands an entry.
    pub wrapped_key: String,
}

/// An entry read back.
#[derive(Debug)]
pub struct Entry {
    /// The clear part.
    pub header: Header,
    /// The sealed answer; `None`: JFrog's answer never came this far.
    pub body: Option<Sealed>,
    /// Its own file; `None`: it is kept with others.
    pub(super) path: Option<PathBuf>,
}

impl Entry {
    /// Its own file; `None`: it is kept with others.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

pub(super) fn read_entry(path: &Path) -> io::Result<(Header, Option<Sealed>)> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (head, body) = bytes.split_at_checked(HEADER).ok_or(io::ErrorKind::InvalidData)?;
    let header = header_of(head)?;
    let (length, body) = body.split_at_checked(4).ok_or(io::ErrorKind::InvalidData)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let body = body.get(..length).ok_or(io::ErrorKind::InvalidData)?;
    Ok((header, (length > 0).then(|| Sealed::from_bytes(body.to_vec()))))
}

/// What stands where an entry has its header.
pub(super) fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEADER);
    File::open(path)?.take(HEADER as u64).read_to_end(&mut head)?;
    Ok(head)
}

pub(super) fn header_of(head: &[u8]) -> io::Result<Header> {
    Ok(serde_json::from_slice(head.split(|byte| *byte == b'\n').next().unwrap_or_default())?)
}
