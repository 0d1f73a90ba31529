//! The claims of a token whose signature is right: each checked by itself, against a given time.

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::refusal::{ClaimFlaw, JwtError};

/// How far two honest clocks may be apart, in seconds.
pub(super) const LEEWAY: u32 = 60;

/// Longest life of a token in seconds: what an issuer signs for longer is no identity of a job.
const LONGEST_LIFE: f64 = 86_400.0;

/// The last second that `OffsetDateTime` can hold (the end of the year 9999).
const LAST_SECOND: f64 = 253_402_300_799.0;

const LONGEST_SUBJECT: usize = 1024;
const LONGEST_JTI: usize = 256;

/// What every token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) subject: String,
    pub(super) jti: Option<String>,
    pub(super) expires_at: OffsetDateTime,
}

/// Whether these claims are an identity for `audience` at `now`. `iss` was compared before the signature.
pub(super) fn check(claims: &Map<String, Value>, audience: &str, now: OffsetDateTime) -> Result<Checked, JwtError> {
    check_audience(claims, audience)?;
    let subject = text(claims, "sub", LONGEST_SUBJECT)?.to_owned();
    let jti = claims.get("jti").map(|_| text(claims, "jti", LONGEST_JTI)).transpose()?.map(str::to_owned);
    let (issued, expires) = (seconds(claims, "iat")?, seconds(claims, "exp")?);
    let not_before = claims.get("nbf").map(|_| seconds(claims, "nbf")).transpose()?;
    // Seconds since 1970 are exact in an f64, and RFC 7519 allows fractions.
    let (now, leeway) = (now.unix_timestamp() as f64, f64::from(LEEWAY));
    if expires <= now - leeway {
        return Err(JwtError::Expired);
    }
    if issued > now + leeway {
        return Err(JwtError::NotYet("iat"));
    }
    if not_before.is_some_and(|begin| begin > now + leeway) {
        return Err(JwtError::NotYet("nbf"));
    }
    if expires <= issued || expires - issued > LONGEST_LIFE {
        return Err(JwtError::Lifetime);
    }
    let expires_at = OffsetDateTime::from_unix_timestamp(expires as i64).expect("checked to lie before the year 10000");
    Ok(Checked { subject, jti, expires_at })
}

fn check_audience(claims: &Map<String, Value>, audience: &str) -> Result<(), JwtError> {
    let flaw = |flaw| Err(JwtError::Claim { claim: "aud", flaw });
    let ours = match claims.get("aud") {
        None => return flaw(ClaimFlaw::Missing),
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(many)) if many.iter().all(Value::is_string) => many.iter().any(|one| one == audience),
        Some(_) => return flaw(ClaimFlaw::WrongType),
    };
    if ours { Ok(()) } else { Err(JwtError::Audience) }
}

/// A claim that is a text with something in it.
pub(super) fn text<'c>(claims: &'c Map<String, Value>, claim: &'static str, longest: usize) -> Result<&'c str, JwtError> {
    match claims.get(claim) {
        None => Err(JwtError::Claim { claim, flaw: ClaimFlaw::Missing }),
        Some(Value::String(text)) if (1..=longest).contains(&text.len()) => Ok(text),
        Some(Value::String(_)) => Err(JwtError::Claim { claim, flaw: ClaimFlaw::OutOfRange }),
        Some(_) => Err(JwtError::Claim { claim, flaw: ClaimFlaw::WrongType }),
    }
}

fn seconds(claims: &Map<String, Value>, claim: &'static str) -> Result<f64, JwtError> {
    let flaw = match claims.get(claim) {
        None => ClaimFlaw::Missing,
        Some(Value::Number(number)) => match number.as_f64() {
            Some(seconds) if (0.0..=LAST_SECOND).contains(&seconds) => return Ok(seconds),
            _ => ClaimFlaw::OutOfRange,
        },
        Some(_) => ClaimFlaw::WrongType,
    };
    Err(JwtError::Claim { claim, flaw })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn checked(changes: Value) -> Result<Checked, JwtError> {
        let mut claims = json!({"iss": "https://idp", "aud": "us", "sub": "job", "iat": NOW, "exp": NOW + 300});
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        check(claims.as_object().expect("an object"), "us", OffsetDateTime::from_unix_timestamp(NOW).expect("a time"))
    }

    #[test]
    fn what_is_within_the_leeway_is_taken() {
        let expires = |exp| OffsetDateTime::from_unix_timestamp(exp).expect("a time");
        assert_eq!(checked(json!({})).expect("good").expires_at, expires(NOW + 300));
        assert_eq!(checked(json!({"iat": NOW - 100, "exp": NOW - 59})).expect("good").expires_at, expires(NOW - 59));
        assert_eq!(checked(json!({"exp": (NOW as f64) + 10.5})).expect("good").expires_at, expires(NOW + 10));
        assert!(checked(json!({"iat": NOW + 60, "nbf": NOW + 60})).is_ok());
        assert!(checked(json!({"exp": NOW + 86_400, "jti": "1"})).is_ok());
        assert!(checked(json!({"aud": ["them", "us"], "sub": "x".repeat(1024)})).is_ok());
    }

    #[test]
    fn what_is_a_second_beyond_is_not() {
        let claim = |claim, flaw| Err(JwtError::Claim { claim, flaw });
        assert_eq!(checked(json!({"iat": NOW - 100, "exp": NOW - 60})), Err(JwtError::Expired));
        assert_eq!(checked(json!({"iat": NOW + 61})), Err(JwtError::NotYet("iat")));
        assert_eq!(checked(json!({"nbf": NOW + 61})), Err(JwtError::NotYet("nbf")));
        assert_eq!(checked(json!({"nbf": null})), claim("nbf", ClaimFlaw::WrongType));
        assert_eq!(checked(json!({"exp": NOW + 86_401})), Err(JwtError::Lifetime));
        assert_eq!(checked(json!({"exp": NOW})), Err(JwtError::Lifetime));
        assert_eq!(checked(json!({"exp": 253_402_300_800_u64})), claim("exp", ClaimFlaw::OutOfRange));
        assert_eq!(checked(json!({"iat": -1})), claim("iat", ClaimFlaw::OutOfRange));
        assert_eq!(checked(json!({"sub": "x".repeat(1025)})), claim("sub", ClaimFlaw::OutOfRange));
        assert_eq!(checked(json!({"jti": "x".repeat(257)})), claim("jti", ClaimFlaw::OutOfRange));
        assert_eq!(checked(json!({"jti": 7})), claim("jti", ClaimFlaw::WrongType));
        assert_eq!(checked(json!({"aud": "us "})), Err(JwtError::Audience));
        assert_eq!(checked(json!({"aud": []})), Err(JwtError::Audience));
        assert_eq!(checked(json!({"aud": ["us", 1]})), claim("aud", ClaimFlaw::WrongType));
    }
}
