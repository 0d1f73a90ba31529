//! A presented JWT, read strictly. Nothing in it is believed yet.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::{
    json::{self, Flaw},
    refusal::{JwtError, quoted},
    settings::asymmetric,
};
use crate::secret::PresentedCredential;

/// Longest token that is looked at.
const LONGEST: usize = 16 * 1024;

/// Longest name of a key.
const LONGEST_KID: usize = 256;

/// Header members that would let a token choose its own key, or change what the rest means.
const FORBIDDEN: [&str; 7] = ["jku", "x5u", "jwk", "x5c", "crit", "zip", "b64"];

/// Header members that are ignored, as long as they are strings (GitHub sends `x5t`).
const TEXTS: [&str; 6] = ["cty", "x5t", "x5t#S256", "url", "nonce", "enc"];

/// What a JWT says, of whoever made it.
pub(super) struct UnverifiedToken<'a> {
    pub(super) text: &'a str,
    pub(super) unverified_algorithm: Algorithm,
    pub(super) unverified_kid: Option<String>,
    pub(super) unverified_claims: Map<String, Value>,
}

impl<'a> UnverifiedToken<'a> {
    pub(super) fn parse(credential: &'a PresentedCredential) -> Result<Self, JwtError> {
        let text = credential.expose();
        if text.len() > LONGEST {
            return Err(JwtError::TooLong);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::NotThreeParts);
        };
        let header = object("header", header)?;
        let unverified_claims = object("payload", payload)?;
        decode("signature", signature)?;
        let (unverified_algorithm, unverified_kid) = read_header(&header)?;
        Ok(Self { text, unverified_algorithm, unverified_kid, unverified_claims })
    }
}

/// The engine takes no padding and no stray bits at the end: a token has one spelling.
fn decode(part: &'static str, text: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Malformed { part, flaw: Flaw::Base64 })
}

fn object(part: &'static str, text: &str) -> Result<Map<String, Value>, JwtError> {
    json::object(&decode(part, text)?).map_err(|flaw| JwtError::Malformed { part, flaw })
}

fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), JwtError> {
    if let Some(member) = FORBIDDEN.into_iter().find(|member| header.contains_key(*member)) {
        return Err(JwtError::Header(member));
    }
    for member in TEXTS {
        optional_text(header, member)?;
    }
    let typ = optional_text(header, "typ")?;
    if typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT") && !typ.eq_ignore_ascii_case("at+jwt")) {
        return Err(JwtError::Header("typ"));
    }
    let kid = optional_text(header, "kid")?;
    if kid.is_some_and(|kid| kid.len() > LONGEST_KID) {
        return Err(JwtError::Header("kid"));
    }
    let Some(Value::String(algorithm)) = header.get("alg") else { return Err(JwtError::Header("alg")) };
    let algorithm = asymmetric(algorithm).map_err(|_| JwtError::Algorithm(format!("{:?}", quoted(algorithm))))?;
    Ok((algorithm, kid.map(str::to_owned)))
}

fn optional_text<'h>(header: &'h Map<String, Value>, member: &'static str) -> Result<Option<&'h str>, JwtError> {
    match header.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwtError::Header(member)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str, payload: &str) -> Result<(Algorithm, Option<String>), JwtError> {
        let text = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let credential = PresentedCredential::new(text);
        UnverifiedToken::parse(&credential).map(|token| (token.unverified_algorithm, token.unverified_kid))
    }

    #[test]
    fn what_issuers_really_send_is_read() {
        let github = r#"{"typ":"JWT","alg":"RS256","x5t":"ykNaY4qM_ta4k2TgZOCEYLkcYlA","kid":"CA4E5A6"}"#;
        assert_eq!(parse(github, "{}"), Ok((Algorithm::RS256, Some("CA4E5A6".to_owned()))));
        assert_eq!(parse(r#"{"alg":"ES256","typ":"at+jwt"}"#, "{}"), Ok((Algorithm::ES256, None)));
        assert_eq!(parse(r#"{"alg":"EdDSA","new":{"x":1}}"#, "{}"), Ok((Algorithm::EdDSA, None)), "unknown members mean nothing");
    }

    #[test]
    fn a_header_is_taken_at_its_word_or_not_at_all() {
        for member in FORBIDDEN {
            assert_eq!(parse(&format!(r#"{{"alg":"RS256","{member}":null}}"#), "{}"), Err(JwtError::Header(member)));
        }
        for member in TEXTS.into_iter().chain(["kid", "typ"]) {
            assert_eq!(parse(&format!(r#"{{"alg":"RS256","{member}":[1]}}"#), "{}"), Err(JwtError::Header(member)));
        }
        for alg in ["none", "NONE", "rs256", "RS256 ", "HS256", "ES512", ""] {
            assert!(matches!(parse(&format!(r#"{{"alg":"{alg}"}}"#), "{}"), Err(JwtError::Algorithm(_))), "{alg}");
        }
        for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["RS256"]}"#] {
            assert_eq!(parse(header, "{}"), Err(JwtError::Header("alg")));
        }
    }

    #[test]
    fn a_token_has_one_spelling() {
        // `e30` is `{}`; `e31` decodes to the same bytes with a stray bit.
        for (text, error) in [
            ("", JwtError::NotThreeParts),
            ("e30.e30", JwtError::NotThreeParts),
            ("e30.e30.AA.AA", JwtError::NotThreeParts),
            ("e31.e30.AA", JwtError::Malformed { part: "header", flaw: Flaw::Base64 }),
            ("e30=.e30.AA", JwtError::Malformed { part: "header", flaw: Flaw::Base64 }),
            ("e30.e31.AA", JwtError::Malformed { part: "payload", flaw: Flaw::Base64 }),
            ("e30.e30.AB", JwtError::Malformed { part: "signature", flaw: Flaw::Base64 }),
            ("e30.e30.A", JwtError::Malformed { part: "signature", flaw: Flaw::Base64 }),
            ("e30.e30.+/", JwtError::Malformed { part: "signature", flaw: Flaw::Base64 }),
            ("e30.e30.AA\n", JwtError::Malformed { part: "signature", flaw: Flaw::Base64 }),
        ] {
            let credential = PresentedCredential::new(text);
            assert_eq!(UnverifiedToken::parse(&credential).err(), Some(error), "{text}");
        }
    }
}
