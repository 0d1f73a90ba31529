//! The one table that says what an answer of JFrog means. Everything the promises rest on is decided here.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use zeroize::Zeroizing;

/// What became of a call that creates or spends.
pub enum Outcome {
    /// The request certainly did not reach JFrog: nothing was spent.
    NotSent(String),
    /// JFrog definitely refused: nothing was spent, but for `Reason::RefreshTokenUnknown`.
    Rejected(Rejection),
    /// A 2xx: the raw body, to be journaled before anyone looks into it.
    Applied(Zeroizing<Vec<u8>>),
    /// It may or may not have happened.
    Unknown(String),
}

/// Without the body of an answer: it holds a refresh token.
impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(detail) => write!(f, "NotSent({detail:?})"),
            Self::Rejected(rejection) => write!(f, "{rejection:?}"),
            Self::Applied(body) => write!(f, "Applied({} bytes)", body.len()),
            Self::Unknown(detail) => write!(f, "Unknown({detail:?})"),
        }
    }
}

/// A definite refusal.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// JFrog's status.
    pub status: u16,
    /// What it means.
    pub reason: Reason,
    /// JFrog's own words, at most 300 characters, for admins.
    pub message: String,
    /// How long JFrog asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// Whether JFrog means this very request: not its bearer, not the rate, and nothing in between that redirects.
    pub fn is_final(&self) -> bool {
        match self.reason {
            Reason::Forbidden | Reason::RefreshTokenUnknown => true,
            Reason::BadRequest => self.status >= 400,
            Reason::Unauthenticated | Reason::RateLimited => false,
        }
    }
}

/// Why JFrog refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 404 with the Access `NOT_FOUND` body: the refresh token was spent, or never was one.
    RefreshTokenUnknown,
    /// 401: the bearer.
    Unauthenticated,
    /// 403: no permission, scope too wide, `expires_in` above the maximum; or an incident of the whole tenant.
    Forbidden,
    /// 429.
    RateLimited,
    /// Another 4xx, or a redirect: the request as such.
    BadRequest,
}

/// Whether a credential is alive at JFrog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vitality {
    /// `/tokens/me` knows it.
    Alive,
    /// 401 or 404.
    Dead,
    /// Nobody knows now: unreachable, 403, 5xx.
    Unknown,
}

/// What became of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It is gone, now or already.
    Gone,
    /// JFrog does not revoke this one: it lives until it expires.
    NotRevocable,
    /// JFrog said no, in its words.
    Refused(String),
    /// JFrog could not be asked.
    Unreachable(String),
}

/// Reads the answer to a create or refresh call. `secrets` are those the request carried: JFrog's text may quote them.
pub(super) fn classify(status: u16, retry_after: Option<&str>, body: Zeroizing<Vec<u8>>, secrets: &[&str]) -> Outcome {
    let access_not_found = || has_code(&body, "NOT_FOUND");
    let reason = match status {
        200..=299 => return Outcome::Applied(body),
        401 => Reason::Unauthenticated,
        403 => Reason::Forbidden,
        // An HTML 404 comes from something in between and says nothing about the token.
        404 if access_not_found() => Reason::RefreshTokenUnknown,
        404 | 408 | 499 => return Outcome::Unknown(format!("JFrog answered {status} with a body that is not Access's")),
        429 => Reason::RateLimited,
        300..=499 => Reason::BadRequest,
        _ => return Outcome::Unknown(format!("JFrog answered {status}")),
    };
    Outcome::Rejected(Rejection {
        status,
        reason,
        message: message(&body, secrets),
        retry_after: retry_after.and_then(parse_retry_after),
    })
}

/// Reads the answer of `/tokens/me`. Only JFrog's own words count as dead: a gateway's page says nothing about the token.
pub(super) fn vitality(status: u16, body: &[u8]) -> Vitality {
    match status {
        200..=299 => Vitality::Alive,
        401 if own_words(body).is_some() => Vitality::Dead,
        404 if has_code(body, "NOT_FOUND") => Vitality::Dead,
        _ => Vitality::Unknown,
    }
}

/// Reads the answer to a revocation.
pub(super) fn revoked(status: u16, body: &[u8], secrets: &[&str]) -> Revoked {
    let message = message(body, secrets);
    match status {
        200..=299 => Revoked::Gone,
        404 if has_code(body, "NOT_FOUND") => Revoked::Gone,
        400 if message.to_ascii_lowercase().contains("not revocable") => Revoked::NotRevocable,
        400 | 401 | 403 | 405 => Revoked::Refused(format!("{status}: {message}")),
        _ => Revoked::Unreachable(format!("JFrog answered {status}")),
    }
}

/// JFrog's own words from any of its four error shapes, or that there are none.
fn message(body: &[u8], secrets: &[&str]) -> String {
    let text = own_words(body).unwrap_or_else(|| "no message of JFrog's own".to_owned());
    let text = secrets.iter().filter(|s| !s.is_empty()).fold(text, |text, secret| text.replace(secret, "[REDACTED]"));
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn own_words(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    [value.pointer("/errors/0/message"), value.get("message"), value.get("error_description"), value.get("error")]
        .into_iter()
        .flatten()
        .find_map(|text| text.as_str().map(str::to_owned))
}

fn has_code(body: &[u8], code: &str) -> bool {
    serde_json::from_slice::<serde_json::Value>(body)
        .is_ok_and(|value| value.pointer("/errors/0/code").and_then(|c| c.as_str()) == Some(code))
}

/// Seconds, or a date of HTTP. At most an hour: a JFrog that asks for more is asked again anyway.
pub(super) fn parse_retry_after(text: &str) -> Option<Duration> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let at = OffsetDateTime::parse(&text.trim().replace("GMT", "+0000"), &Rfc2822).ok()?;
            u64::try_from((at - OffsetDateTime::now_utc()).whole_seconds()).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds.min(3600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(status: u16, body: &str) -> String {
        match classify(status, None, Zeroizing::new(body.as_bytes().to_vec()), &["hunter2"]) {
            Outcome::NotSent(_) => "not sent".into(),
            Outcome::Applied(_) => "applied".into(),
            Outcome::Unknown(_) => "unknown".into(),
            Outcome::Rejected(rejection) => format!("rejected {:?}: {}", rejection.reason, rejection.message),
        }
    }

    #[test]
    fn each_answer_of_jfrog_means_one_thing() {
        let not_found = r#"{ "errors" : [ { "code" : "NOT_FOUND", "message" : "Token matching the provided refresh token was not found." } ] }"#;
        let table = [
            (200, "{}", "applied"),
            (201, "<html>", "applied"),
            (404, not_found, "rejected RefreshTokenUnknown: Token matching the provided refresh token was not found."),
            (404, "<html>no such page</html>", "unknown"),
            (404, r#"{"errors":[{"status":404,"message":"Not Found"}]}"#, "unknown"),
            (
                401,
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"Invalid token, expired"}]}"#,
                "rejected Unauthenticated: Invalid token, expired",
            ),
            (401, r#"{"errors":[{"status":401,"message":"Bad props"}]}"#, "rejected Unauthenticated: Bad props"),
            (403, r#"{"errors":[{"code":"FORBIDDEN","message":"Forbidden"}]}"#, "rejected Forbidden: Forbidden"),
            (403, "<html>", "rejected Forbidden: no message of JFrog's own"),
            (400, r#"{"code":"BAD_REQUEST","message":"was hunter2","detail":""}"#, "rejected BadRequest: was [REDACTED]"),
            (
                400,
                r#"{"error":"invalid_request","error_description":"issued by another instance"}"#,
                "rejected BadRequest: issued by another instance",
            ),
            (405, "", "rejected BadRequest: no message of JFrog's own"),
            (302, "", "rejected BadRequest: no message of JFrog's own"),
            (408, "", "unknown"),
            (429, "", "rejected RateLimited: no message of JFrog's own"),
            (500, "", "unknown"),
            (502, "<html>Bad Gateway</html>", "unknown"),
            (503, "", "unknown"),
            (504, "", "unknown"),
        ];
        for (status, body, expected) in table {
            assert_eq!(shape(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_gateway_says_nothing_about_a_token() {
        let access = br#"{"errors":[{"code":"NOT_FOUND","message":"not found"}]}"#;
        let expired = br#"{"errors":[{"code":"UNAUTHORIZED","message":"Invalid token, expired"}]}"#;
        assert_eq!(vitality(200, b""), Vitality::Alive);
        assert_eq!((vitality(401, expired), vitality(404, access)), (Vitality::Dead, Vitality::Dead));
        for (status, body) in [(401, "<html>"), (404, "<html>"), (403, "{}"), (500, ""), (302, "")] {
            assert_eq!(vitality(status, body.as_bytes()), Vitality::Unknown, "{status} {body}");
        }
        assert_eq!((revoked(204, b"", &[]), revoked(404, access, &[])), (Revoked::Gone, Revoked::Gone));
        assert_eq!(revoked(400, br#"{"code":"BAD_REQUEST","message":"Token not revocable"}"#, &[]), Revoked::NotRevocable);
        for (status, body) in [(404, "<html>"), (502, ""), (302, ""), (429, "")] {
            assert!(matches!(revoked(status, body.as_bytes(), &[]), Revoked::Unreachable(_)), "{status}");
        }
        for status in [400, 401, 403, 405] {
            assert!(matches!(revoked(status, b"<html>", &[]), Revoked::Refused(_)), "{status}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("999999"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_retry_after("soon"), None);
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = (OffsetDateTime::now_utc() + Duration::from_secs(90)).format(&Rfc2822).expect("formats");
        assert!(parse_retry_after(&later.replace("+0000", "GMT")).is_some_and(|wait| wait > Duration::from_secs(80)));
    }
}
