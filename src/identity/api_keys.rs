//! API keys: `tbk_<id>_<secret><checksum>`, of which only the SHA-256 is kept.
//!
//! The id finds the row, the secret has 256 random bits, and the checksum lets a secret scanner or a typo be told from a key
//! without asking Postgres.

use crate::crypto;
use crate::secret::PresentedCredential;

const PREFIX: &str = "tbk_";
const ID: usize = 16;
const SECRET: usize = 64;
const CHECKSUM: usize = 8;

/// A key in the right form: its parts, and what it hashes to. Not yet verified.
#[derive(Debug)]
pub struct ApiKey {
    /// Finds the row.
    pub public_id: String,
    /// What the row must hold.
    pub sha256: [u8; 32],
}

impl ApiKey {
    /// A new key, in clear this once, with what to keep of it.
    pub fn generate() -> (String, Self) {
        let id = hex::encode(crypto::random_bytes::<{ ID / 2 }>());
        let secret = hex::encode(crypto::random_bytes::<{ SECRET / 2 }>());
        let body = format!("{PREFIX}{id}_{secret}");
        let key = format!("{body}{}", checksum(&body));
        let sha256 = crypto::sha256(key.as_bytes());
        (key, Self { public_id: id, sha256 })
    }

    /// Whether the text is meant to be an API key.
    pub fn looks_like_one(credential: &PresentedCredential) -> bool {
        credential.expose().starts_with(PREFIX)
    }

    /// The parts of a presented key; `None`: it is not of the form, or its checksum is wrong.
    pub fn parse(credential: &PresentedCredential) -> Option<Self> {
        let text = credential.expose();
        if text.len() != PREFIX.len() + ID + 1 + SECRET + CHECKSUM || !text.is_ascii() {
            return None;
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM);
        let (id, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
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
    fn a_generated_key_is_parsed_and_every_changed_character_is_noticed() {
        let (text, key) = ApiKey::generate();
        let parsed = ApiKey::parse(&PresentedCredential::new(text.clone())).expect("parses");
        assert_eq!((parsed.public_id, parsed.sha256), (key.public_id, key.sha256));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(ApiKey::parse(&PresentedCredential::new(changed)).is_none(), "character {at}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_parsed() {
        let (text, _) = ApiKey::generate();
        for bad in ["", "tbk_", &text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase(), "tbk_é"] {
            assert!(ApiKey::parse(&PresentedCredential::new(bad)).is_none(), "{bad}");
        }
    }
}
