//! Master keys wrap data keys. Here from the environment or a file; a key service will be another variant of the same enum.

use base64::{Engine, engine::general_purpose::STANDARD};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::seal::{Key, OpenError, Place};
use crate::{
    names::Name,
    secret::{Sealed, Wrapped},
};

/// The canary's text. Sealed by a master key at its first use; a key that does not open it is the wrong one.
const CANARY: &[u8] = b"token-broker canary";

/// Where the master keys are.
#[derive(Debug)]
pub enum MasterKeys {
    /// In this process, from `TOKEN_BROKER_MASTER_KEYS`: the first wraps, all unwrap.
    Local(Vec<Key>),
}

/// Why there is no usable master key. Never quotes the key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// The list is empty.
    #[error("no master key is given")]
    None,
    /// An entry has no id, or not one of our names.
    #[error("master key {0} of the list is not of the form id:base64, with an id of a-z, 0-9, '.', '_', '-'")]
    Form(usize),
    /// A key of the wrong length, or not base64.
    #[error("master key {0} is not the base64 of 32 bytes")]
    Length(String),
    /// A key that is no key.
    #[error("master key {0} is all the same byte: make one with `openssl rand -base64 32`")]
    Constant(String),
    /// Two keys of one id.
    #[error("master key {0} is given twice")]
    Twice(String),
    /// Something is wrapped by a key that is not in the list.
    #[error("master key {0} is needed and is not in the list")]
    Missing(String),
    /// The canary or a data key does not open.
    #[error("master key {0} is not the key that was used under this id: {1}")]
    Wrong(String, OpenError),
}

impl MasterKeys {
    /// Reads `id:base64-of-32-bytes[,id:…]`.
    ///
    /// # Errors
    /// See [`MasterKeyError`]; the message names the id, never the key.
    pub fn parse(list: &str) -> Result<Self, MasterKeyError> {
        let mut keys: Vec<Key> = Vec::new();
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (number, entry) in entries.enumerate() {
            let (id, encoded) = entry.split_once(':').ok_or(MasterKeyError::Form(number + 1))?;
            let id: Name = id.trim().parse().map_err(|_| MasterKeyError::Form(number + 1))?;
            let wrong = || MasterKeyError::Length(id.to_string());
            let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).map_err(|_| wrong())?);
            let bytes: [u8; 32] = decoded.as_slice().try_into().map_err(|_| wrong())?;
            if bytes.iter().all(|byte| *byte == bytes[0]) {
                return Err(MasterKeyError::Constant(id.to_string()));
            }
            if keys.iter().any(|key| key.id() == id.as_str()) {
                return Err(MasterKeyError::Twice(id.to_string()));
            }
            keys.push(Key::new(id.to_string(), Zeroizing::new(bytes)));
        }
        if keys.is_empty() { Err(MasterKeyError::None) } else { Ok(Self::Local(keys)) }
    }

    /// The ids, the wrapping one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let Self::Local(keys) = self;
        keys.iter().map(Key::id)
    }

    /// A new canary of key `id`.
    ///
    /// # Errors
    /// `Missing`.
    pub fn canary(&self, id: &str) -> Result<Sealed, MasterKeyError> {
        Ok(self.key(id)?.seal(canary_place(), CANARY))
    }

    /// Whether key `id` is the one that sealed this canary.
    ///
    /// # Errors
    /// `Missing` or `Wrong`.
    pub fn check_canary(&self, id: &str, canary: &Sealed) -> Result<(), MasterKeyError> {
        let text = self.key(id)?.open(canary_place(), canary).map_err(|error| MasterKeyError::Wrong(id.to_owned(), error))?;
        if text.as_slice() == CANARY { Ok(()) } else { Err(MasterKeyError::Wrong(id.to_owned(), OpenError::Tampered)) }
    }

    /// Wraps a data key by the first master key. `owner` is the team, or the journal entry's attempt.
    pub fn wrap(&self, owner: Uuid, key: &Key) -> Wrapped {
        let Self::Local(keys) = self;
        let master = &keys[0];
        Wrapped { master_key_id: master.id().to_owned(), sealed: master.seal(wrap_place(owner, key.id()), key.bytes()) }
    }

    /// Unwraps the data key `id` of `owner`.
    ///
    /// # Errors
    /// `Missing` or `Wrong`.
    pub fn unwrap(&self, owner: Uuid, id: &str, wrapped: &Wrapped) -> Result<Key, MasterKeyError> {
        let master = self.key(&wrapped.master_key_id)?;
        let wrong = |error| MasterKeyError::Wrong(master.id().to_owned(), error);
        let bytes = master.open(wrap_place(owner, id), &wrapped.sealed).map_err(wrong)?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| wrong(OpenError::Format))?;
        Ok(Key::new(id, Zeroizing::new(bytes)))
    }

    fn key(&self, id: &str) -> Result<&Key, MasterKeyError> {
        let Self::Local(keys) = self;
        keys.iter().find(|key| key.id() == id).ok_or_else(|| MasterKeyError::Missing(id.to_owned()))
    }
}

fn canary_place() -> Place<'static> {
    Place { table: "master_keys", row: Uuid::nil(), column: "canary", generation: 0 }
}

fn wrap_place(owner: Uuid, key_id: &str) -> Place<'_> {
    Place { table: "data_keys", row: owner, column: key_id, generation: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_key() -> String {
        STANDARD.encode(super::super::random_bytes::<32>())
    }

    #[test]
    fn bad_lists_are_refused_without_quoting_the_key() {
        let key = some_key();
        let cases = [
            ("".to_owned(), MasterKeyError::None),
            (key.clone(), MasterKeyError::Form(1)),
            (format!("A B:{key}"), MasterKeyError::Form(1)),
            ("k1:AAAA".to_owned(), MasterKeyError::Length("k1".into())),
            (format!("k1:{}", STANDARD.encode([0; 32])), MasterKeyError::Constant("k1".into())),
            (format!("k1:{key},k1:{key}"), MasterKeyError::Twice("k1".into())),
        ];
        for (list, expected) in cases {
            let error = MasterKeys::parse(&list).expect_err("refused");
            assert!(!error.to_string().contains(&key));
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn the_first_wraps_and_all_unwrap() {
        let (one, two) = (some_key(), some_key());
        let old = MasterKeys::parse(&format!("one:{one}")).expect("parses");
        let both = MasterKeys::parse(&format!("two:{two},one:{one}")).expect("parses");
        let owner = Uuid::new_v4();
        let data = Key::generate();
        let wrapped = old.wrap(owner, &data);
        assert_eq!(both.unwrap(owner, data.id(), &wrapped).expect("unwraps").bytes(), data.bytes());
        assert_eq!(both.wrap(owner, &data).master_key_id, "two");
        assert!(both.unwrap(Uuid::new_v4(), data.id(), &wrapped).is_err(), "another team's row");
    }

    #[test]
    fn a_wrong_key_fails_its_canary() {
        let canary = MasterKeys::parse(&format!("k:{}", some_key())).expect("parses").canary("k").expect("k is there");
        let other = MasterKeys::parse(&format!("k:{}", some_key())).expect("parses");
        assert_eq!(other.check_canary("k", &canary), Err(MasterKeyError::Wrong("k".into(), OpenError::WrongKey)));
    }
}
