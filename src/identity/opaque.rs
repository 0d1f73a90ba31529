//! Credentials that the broker makes itself: `<prefix><id>_<secret><checksum>`, of which only the SHA-256 is kept.
//!
//! The id finds the row, the secret has 256 random bits, and the checksum lets a secret scanner or a typo be told from a
//! credential without asking Postgres.

use crate::crypto;
use crate::secret::PresentedCredential;

const ID: usize = 16;
const SECRET: usize = 64;
const CHECKSUM: usize = 8;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueKind {
    /// An API key: `tbk_…`.
    ApiKey,
    /// A session of a CI identity: `tbs_…`.
    Session,
}

impl OpaqueKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "tbk_",
            Self::Session => "tbs_",
        }
    }

    /// What the text is meant to be; `None`: neither.
    pub fn of(credential: &PresentedCredential) -> Option<Self> {
        [Self::ApiKey, Self::Session].into_iter().find(|kind| credential.expose().starts_with(kind.prefix()))
    }
}

/// A credential in the right form: its parts, and what it hashes to. Not yet verified.
#[derive(Debug)]
pub struct Opaque {
    /// Finds the row.
    pub public_id: String,
    /// What the row must hold.
    pub sha256: [u8; 32],
}

impl Opaque {
    /// A new credential, in clear this once, with what to keep of it.
    pub fn generate(kind: OpaqueKind) -> (String, Self) {
        let id = hex::encode(crypto::random_bytes::<{ ID / 2 }>());
        let secret = hex::encode(crypto::random_bytes::<{ SECRET / 2 }>());
        let body = format!("{}{id}_{secret}", kind.prefix());
        let text = format!("{body}{}", checksum(&body));
        let sha256 = crypto::sha256(text.as_bytes());
        (text, Self { public_id: id, sha256 })
    }

    /// The parts of a presented one; `None`: it is not of the form, or its checksum is wrong.
    pub fn parse(kind: OpaqueKind, credential: &PresentedCredential) -> Option<Self> {
        let text = credential.expose();
        let prefix = kind.prefix();
        if text.len() != prefix.len() + ID + 1 + SECRET + CHECKSUM || !text.is_ascii() {
            return None;
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM);
        let (id, secret) = body.strip_prefix(prefix)?.split_once('_')?;
        let is_hex = |part: &str| part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let well_formed = id.len() == ID && is_hex(id) && is_hex(secret) && sum == checksum(body);
        well_formed.then(|| Self { public_id: id.to_owned(), sha256: crypto::sha256(text.as_bytes()) })
    }
}

fn checksum(body: &str) -> String {
    hex::encode(&crypto::sha256(body.as_bytes())[..CHECKSUM / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_one_is_parsed_and_every_changed_character_is_noticed() {
        for kind in [OpaqueKind::ApiKey, OpaqueKind::Session] {
            let (text, made) = Opaque::generate(kind);
            assert_eq!(OpaqueKind::of(&PresentedCredential::new(text.clone())), Some(kind));
            let parsed = Opaque::parse(kind, &PresentedCredential::new(text.clone())).expect("parses");
            assert_eq!((parsed.public_id, parsed.sha256), (made.public_id, made.sha256));
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
                let changed = String::from_utf8(changed).expect("ASCII");
                assert!(Opaque::parse(kind, &PresentedCredential::new(changed)).is_none(), "character {at}");
            }
        }
    }

    #[test]
    fn what_is_none_is_not_parsed() {
        let (text, _) = Opaque::generate(OpaqueKind::ApiKey);
        for bad in ["", "tbk_", &text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase(), "tbk_é"] {
            assert!(Opaque::parse(OpaqueKind::ApiKey, &PresentedCredential::new(bad)).is_none(), "{bad}");
        }
        assert!(Opaque::parse(OpaqueKind::Session, &PresentedCredential::new(text)).is_none(), "the other kind");
    }
}
