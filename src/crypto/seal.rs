//! The sealed format, version 1: AES-256-GCM with a key commitment.
//!
//! ```text
//! 1 | length of key id | key id | salt 32 | commitment 32 | nonce 12 | ciphertext | tag 16
//! ```
//!
//! The key of one value and its commitment come from the sealing key and the salt by HKDF-SHA-256, so a ciphertext that opens
//! under two keys cannot be made (AES-GCM alone would allow it). The associated data is the header and the place, so bytes that
//! are copied onto another row, column or generation do not open.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    hkdf,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{constant_time_eq, hmac_sha256, random_bytes};
use crate::secret::Sealed;

const VERSION: u8 = 1;
const SALT: usize = 32;
const COMMITMENT: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;

/// Where a sealed value lives; it opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The table, or `journal`.
    pub table: &'a str,
    /// The row's id.
    pub row: Uuid,
    /// The column.
    pub column: &'a str,
    /// The chain's generation; 0 where there is none.
    pub generation: i64,
}

/// Why sealed bytes did not open. None of them says anything about the plaintext.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not this format: truncated, or of a later version.
    #[error("the sealed value is damaged or of an unknown version")]
    Format,
    /// The value names another key.
    #[error("the value was sealed by key {0}")]
    OtherKey(String),
    /// The key has the right name and is not the one.
    #[error("the key with this id is not the one that sealed the value")]
    WrongKey,
    /// A key service does not open it: its words.
    #[error("the key service refuses it: {0}")]
    Refused(String),
    /// The bytes or the place were changed.
    #[error("the sealed value was changed, or moved from its place")]
    Tampered,
}

/// A key that seals: a team's data key, a journal entry's, or a master key.
pub struct Key {
    id: String,
    bytes: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

struct PairOf64;
impl hkdf::KeyType for PairOf64 {
    fn len(&self) -> usize {
        64
    }
}

impl Key {
    /// A key that is known already. The id has at most 255 bytes (names and UUIDs have fewer).
    pub fn new(id: impl Into<String>, bytes: Zeroizing<[u8; 32]>) -> Self {
        Self { id: id.into(), bytes }
    }

    /// A new key under a new random id.
    pub fn generate() -> Self {
        Self::generate_with_id(Uuid::new_v4().to_string())
    }

    /// A new key under an id that is chosen already.
    pub fn generate_with_id(id: impl Into<String>) -> Self {
        Self::new(id, Zeroizing::new(random_bytes()))
    }

    /// The id that stands in what this key seals.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself, to be wrapped by a master key.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// HMAC-SHA-256 with this key, which then seals nothing: the key of the audit's chain.
    pub fn hmac(&self, message: &[u8]) -> [u8; 32] {
        hmac_sha256(self.bytes.as_slice(), message)
    }

    /// Seals `plain` for `place`.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Sealed {
        let salt: [u8; SALT] = random_bytes();
        let (key, commitment) = self.derive(&salt);
        let header = self.header();
        let mut body = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(associated_data(&header, place)), &mut body)
            .expect("AES-GCM fails only above 64 GiB");
        let mut out = header;
        out.extend_from_slice(&salt);
        out.extend_from_slice(&commitment);
        out.extend_from_slice(nonce.as_ref());
        out.extend_from_slice(&body);
        Sealed::from_bytes(out)
    }

    /// Opens what this key sealed for this very place.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if key_id(sealed)? != self.id {
            return Err(OpenError::OtherKey(key_id(sealed)?.to_owned()));
        }
        let (header, rest) = sealed.as_bytes().split_at(2 + self.id.len());
        let (salt, rest) = rest.split_at_checked(SALT).ok_or(OpenError::Format)?;
        let (commitment, rest) = rest.split_at_checked(COMMITMENT).ok_or(OpenError::Format)?;
        let (nonce, body) = rest.split_at_checked(NONCE).ok_or(OpenError::Format)?;
        if body.len() < TAG {
            return Err(OpenError::Format);
        }
        let (key, expected) = self.derive(salt);
        if !constant_time_eq(commitment, &expected) {
            return Err(OpenError::WrongKey);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Format)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = key
            .open_in_place(nonce, Aad::from(associated_data(header, place)), &mut body)
            .map_err(|_| OpenError::Tampered)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn header(&self) -> Vec<u8> {
        let length = u8::try_from(self.id.len()).expect("key ids are names or UUIDs");
        [&[VERSION, length], self.id.as_bytes()].concat()
    }

    fn derive(&self, salt: &[u8]) -> (RandomizedNonceKey, [u8; COMMITMENT]) {
        let okm = self.okm(salt);
        let (key, commitment) = okm.split_at(32);
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key");
        (key, commitment.try_into().expect("the other 32 bytes"))
    }

    /// The key of one value, and its commitment behind it.
    pub(super) fn okm(&self, salt: &[u8]) -> Zeroizing<[u8; 64]> {
        let mut okm = Zeroizing::new([0; 64]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(self.bytes.as_slice())
            .expand(&[b"token-broker sealed value, version 1"], PairOf64)
            .and_then(|out| out.fill(okm.as_mut_slice()))
            .expect("64 bytes are well below HKDF's limit");
        okm
    }
}

/// The id of the key that opens `sealed`.
///
/// # Errors
/// `Format` when the header is not one.
pub(super) fn key_id(sealed: &Sealed) -> Result<&str, OpenError> {
    let [VERSION, length, rest @ ..] = sealed.as_bytes() else { return Err(OpenError::Format) };
    let id = rest.get(..usize::from(*length)).ok_or(OpenError::Format)?;
    std::str::from_utf8(id).map_err(|_| OpenError::Format)
}

impl Sealed {
    /// The id of the key that opens this value.
    ///
    /// # Errors
    /// `Format` when it is not a sealed value.
    pub fn key_id(&self) -> Result<&str, OpenError> {
        key_id(self)
    }
}

pub(super) fn associated_data(header: &[u8], place: Place<'_>) -> Vec<u8> {
    let generation = place.generation.to_be_bytes();
    let fields: [&[u8]; 5] = [header, place.table.as_bytes(), place.row.as_bytes(), place.column.as_bytes(), &generation];
    // Each field behind its length: no two different places give the same bytes.
    fields.iter().flat_map(|field| (field.len() as u64).to_be_bytes().into_iter().chain(field.iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { table: "chains", row: Uuid::from_u128(7), column: "refresh_token", generation: 3 };

    #[test]
    fn what_was_sealed_opens_in_its_place_and_nowhere_else() {
        let key = Key::generate();
        let sealed = key.seal(PLACE, b"a secret");
        assert_eq!(key.open(PLACE, &sealed).expect("opens").as_slice(), b"a secret");
        let elsewhere = [
            Place { table: "tokens", ..PLACE },
            Place { row: Uuid::from_u128(8), ..PLACE },
            Place { column: "access_token", ..PLACE },
            Place { generation: 2, ..PLACE },
        ];
        for place in elsewhere {
            assert_eq!(key.open(place, &sealed), Err(OpenError::Tampered), "{place:?}");
        }
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_noticed() {
        let key = Key::generate();
        let sealed = key.seal(PLACE, b"a secret");
        for at in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(key.open(PLACE, &Sealed::from_bytes(bytes)).is_err(), "byte {at}");
            assert!(key.open(PLACE, &Sealed::from_bytes(sealed.as_bytes()[..at].to_vec())).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_key_under_the_same_id_is_told_apart_by_the_commitment() {
        let key = Key::generate();
        let sealed = key.seal(PLACE, b"a secret");
        let impostor = Key::new(key.id(), Zeroizing::new([9; 32]));
        assert_eq!(impostor.open(PLACE, &sealed), Err(OpenError::WrongKey));
        assert!(matches!(Key::generate().open(PLACE, &sealed), Err(OpenError::OtherKey(id)) if id == key.id()));
    }

    #[test]
    fn sealing_the_same_twice_gives_different_bytes() {
        let key = Key::generate();
        assert_ne!(key.seal(PLACE, b"x"), key.seal(PLACE, b"x"));
    }
}
