//! Bodies of JFrog's requests and answers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::secret::{AccessToken, ReferenceToken, RefreshToken};

/// What a create call asks for.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// Marker and description, at most 1,024 characters.
    pub description: String,
    /// `None`: JFrog's default.
    pub scope: Option<String>,
    /// `None`: JFrog's default, `*@*`.
    pub audience: Option<String>,
    /// Seconds; `None`: JFrog's default, 0: never.
    pub expires_in: Option<i64>,
    /// `None`: none.
    pub project_key: Option<String>,
    /// Whether a reference token is wanted besides.
    pub include_reference_token: bool,
}

impl CreateRequest {
    pub(super) fn form(&self) -> Vec<(&'static str, String)> {
        let always = [
            ("refreshable", "true".to_owned()),
            ("include_reference_token", self.include_reference_token.to_string()),
            ("description", self.description.clone()),
        ];
        let sometimes = [
            ("scope", self.scope.clone()),
            ("audience", self.audience.clone()),
            ("expires_in", self.expires_in.map(|seconds| seconds.to_string())),
            ("project_key", self.project_key.clone()),
        ];
        always.into_iter().chain(sometimes.into_iter().filter_map(|(key, value)| Some((key, value?)))).collect()
    }
}

/// What is asked for a job: an access token that is not refreshable, and that JFrog revokes however short it lives.
#[derive(Clone, Debug, Serialize)]
pub struct ChildRequest {
    /// Marker and job, at most 1,024 characters.
    pub description: String,
    /// `None`: JFrog's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// `None`: JFrog's default, `*@*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Seconds, above 0.
    pub expires_in: i64,
    /// `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_key: Option<String>,
    /// Whether a reference token is wanted besides.
    pub include_reference_token: bool,
}

impl ChildRequest {
    /// JSON: JFrog ignores `force_revocable` in a form (JFROG.md).
    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(flatten)]
            asked: &'a ChildRequest,
            refreshable: bool,
            force_revocable: bool,
        }
        serde_json::to_string(&Body { asked: self, refreshable: false, force_revocable: true })
            .expect("texts and numbers are JSON")
    }
}

/// What JFrog gave.
#[derive(Clone, Debug)]
pub struct Pair {
    /// JFrog's id of it.
    pub token_id: Option<String>,
    /// The access token.
    pub access_token: AccessToken,
    /// `None`: JFrog's `allow-refreshable` is off.
    pub refresh_token: Option<RefreshToken>,
    /// Only where asked for.
    pub reference_token: Option<ReferenceToken>,
    /// Lifetime in seconds; `None`: never expires.
    pub expires_in: Option<i64>,
    /// The granted scope.
    pub scope: Option<String>,
    /// The access token's `sub` claim, unverified: JFrog itself sent it.
    pub subject: Option<String>,
    /// Its `aud` claim; empty where it has none.
    pub audience: Vec<String>,
}

/// A 2xx answer without a usable access token.
#[derive(Debug, thiserror::Error)]
#[error("JFrog's answer holds no access token")]
pub struct UnusableAnswer;

#[derive(Deserialize)]
struct Wire {
    token_id: Option<Value>,
    access_token: AccessToken,
    #[serde(default)]
    refresh_token: Option<RefreshToken>,
    #[serde(default)]
    reference_token: Option<ReferenceToken>,
    expires_in: Option<Value>,
    scope: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Claims {
    sub: Option<Value>,
    jti: Option<Value>,
    aud: Option<Value>,
    iat: Option<i64>,
    exp: Option<i64>,
}

/// Reads a 2xx body. Lenient in everything but the access token: a refresh token is never lost to a field we don't need.
///
/// # Errors
/// The body holds no access token.
pub fn parse_pair(body: &[u8]) -> Result<Pair, UnusableAnswer> {
    let wire: Wire = serde_json::from_slice(body).map_err(|_| UnusableAnswer)?;
    if wire.access_token.expose().is_empty() {
        return Err(UnusableAnswer);
    }
    let claims = unverified_claims(wire.access_token.expose());
    // An integer, the same in quotes, or absent for a token that never expires (JFROG.md); the claims say it too.
    let expires_in = wire
        .expires_in
        .and_then(|value| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok()))
        .filter(|seconds| *seconds > 0)
        .or_else(|| Some(claims.exp?.saturating_sub(claims.iat?).max(0)))
        .map(bounded);
    Ok(Pair {
        token_id: text(wire.token_id).or(text(claims.jti)),
        access_token: wire.access_token,
        refresh_token: wire.refresh_token.filter(|token| !token.expose().is_empty()),
        reference_token: wire.reference_token.filter(|token| !token.expose().is_empty()),
        expires_in,
        scope: text(wire.scope),
        subject: text(claims.sub),
        audience: texts(claims.aud),
    })
}

impl Pair {
    /// A pair that a person pasted: what its access token says of itself, but for its user: JFrog has not said yet that this is one.
    pub fn pasted(access_token: AccessToken, refresh_token: RefreshToken) -> Self {
        let claims = unverified_claims(access_token.expose());
        // What is left of it now: it was not issued today.
        let expires_in = claims.exp.map(|exp| exp.saturating_sub(OffsetDateTime::now_utc().unix_timestamp()).max(0)).map(bounded);
        Self {
            token_id: text(claims.jti),
            access_token,
            refresh_token: Some(refresh_token),
            reference_token: None,
            expires_in,
            scope: None,
            subject: None,
            audience: texts(claims.aud),
        }
    }
}

/// At most a hundred years: beyond it a date overflows long before the token expires.
fn bounded(seconds: i64) -> i64 {
    seconds.min(100 * 366 * 86_400)
}

/// A text that Postgres takes: JFrog's word with a control character in it must not make a commit fail.
fn text(value: Option<Value>) -> Option<String> {
    let text: String = value?.as_str()?.chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

/// A claim that is one text, or a list of them.
fn texts(value: Option<Value>) -> Vec<String> {
    match value {
        Some(Value::Array(values)) => values.into_iter().filter_map(|value| text(Some(value))).collect(),
        value => text(value).into_iter().collect(),
    }
}

fn unverified_claims(jwt: &str) -> Claims {
    let payload = jwt.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

/// One row of JFrog's listing.
#[derive(Clone, Debug, Deserialize)]
pub struct Listed {
    /// JFrog's id.
    pub token_id: String,
    /// Where our marker stands, if it is ours.
    #[serde(default)]
    pub description: String,
    /// Seconds since 1970.
    pub issued_at: Option<i64>,
}

pub(super) fn parse_list(body: &[u8]) -> Option<Vec<Listed>> {
    #[derive(Deserialize)]
    struct List {
        tokens: Vec<Value>,
    }
    let list: List = serde_json::from_slice(body).ok()?;
    // A row that cannot be read cannot be ours to touch.
    Some(list.tokens.into_iter().filter_map(|row| serde_json::from_value(row).ok()).collect())
}

pub(super) fn description_filter(prefix: &str) -> String {
    // The prefix is a marker: `tb:<uuid>:<uuid>:` needs no escaping in a query but for what JFrog reads as a pattern.
    format!("description={prefix}*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expires_in_is_read_in_all_its_forms() {
        let pair = |fields: &str| parse_pair(format!(r#"{{"access_token":"x"{fields}}}"#).as_bytes()).expect("a pair");
        assert_eq!(pair(r#","expires_in":3600"#).expires_in, Some(3600));
        assert_eq!(pair(r#","expires_in":"3600""#).expires_in, Some(3600));
        assert_eq!(pair("").expires_in, None);
        assert_eq!(pair(r#","expires_in":-1"#).expires_in, None);
        assert_eq!(pair(r#","expires_in":9e300"#).expires_in, None);
        assert_eq!(pair(r#","scope":"a\u0000b""#).scope.as_deref(), Some("ab"));
        assert_eq!(pair(r#","scope":7,"token_id":null,"refresh_token":"r""#).refresh_token.expect("kept").expose(), "r");
    }

    #[test]
    fn whose_it_is_a_pasted_token_does_not_say() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"jfac@x/users/somebody-else"}"#);
        assert_eq!(Pair::pasted(AccessToken::new(format!("x.{payload}.x")), RefreshToken::new("r")).subject, None);
    }

    #[test]
    fn a_pasted_tokens_far_future_is_bounded() {
        for exp in [300_000_000_000, 1_700_000_000_000, i64::MAX] {
            let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#));
            let pair = Pair::pasted(AccessToken::new(format!("x.{payload}.x")), RefreshToken::new("r"));
            assert_eq!(pair.expires_in, Some(100 * 366 * 86_400));
        }
        let past = URL_SAFE_NO_PAD.encode(r#"{"exp":-5}"#);
        assert_eq!(Pair::pasted(AccessToken::new(format!("x.{past}.x")), RefreshToken::new("r")).expires_in, Some(0));
    }

    #[test]
    fn garbage_is_no_pair() {
        for body in ["", "{}", "<html>", "[]", r#"{"access_token":"x""#, r#"{"access_token":""}"#, r#"{"access_token":7}"#] {
            assert!(parse_pair(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_listing_skips_rows_it_cannot_read() {
        let listed = parse_list(br#"{"tokens":[{"token_id":"a","description":"tb:x"},{"description":7},{"token_id":"b"}]}"#);
        assert_eq!(listed.expect("a list").len(), 2);
    }
}
