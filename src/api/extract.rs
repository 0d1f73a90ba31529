//! Extractors whose refusals are problems: JSON bodies, names in the path, `?team=`.

use std::{collections::BTreeMap, fmt, time::Duration};

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor},
};
use utoipa::IntoParams;

use super::{
    ApiState,
    problem::{FieldError, Problem},
};
use crate::names::Name;

/// Longest body.
const BODY_LIMIT: usize = 64 * 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A JSON body, strictly: its type must be said, unknown and doubled fields are named.
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &ApiState) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(unsupported("send the body as Content-Type: application/json"));
        }
        Ok(Self(parse(&read(request).await?)?))
    }
}

/// A JSON body that may be missing; curl's default form type is taken for JSON, so that `-d '{}'` works as it looks.
pub(super) struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<ApiState> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &ApiState) -> Result<Self, Problem> {
        let declared = is_json(request.headers());
        let form = content_type(request.headers()).is_some_and(|kind| kind == "application/x-www-form-urlencoded");
        let untyped = content_type(request.headers()).is_none();
        let body = read(request).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        if declared || untyped || (form && body.trim_ascii_start().starts_with(b"{")) {
            return Ok(Self(parse(&body)?));
        }
        Err(unsupported("send the body as Content-Type: application/json"))
    }
}

/// A name in the path. What is no name names nothing.
pub(super) struct PathName(pub Name);

impl FromRequestParts<ApiState> for PathName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(Problem::not_found)?;
        Ok(Self(text.parse().map_err(Problem::not_found)?))
    }
}

/// Two names in the path.
pub(super) struct PathNames(pub Name, pub Name);

impl FromRequestParts<ApiState> for PathNames {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let Path((one, two)) = Path::<(String, String)>::from_request_parts(parts, state).await.map_err(Problem::not_found)?;
        Ok(Self(one.parse().map_err(Problem::not_found)?, two.parse().map_err(Problem::not_found)?))
    }
}

/// A query string, parsed.
pub(super) struct Parameters<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let Query(parsed) = query.map_err(|error| Problem::malformed(format!("The query string cannot be read: {error}.")))?;
        Ok(Self(parsed))
    }
}

/// Which team is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TeamParameter {
    /// The team's name; needed only by who belongs to none, or to several: a platform admin, or a CI identity that several teams let in.
    #[param(required = false)]
    pub team: Option<String>,
}

async fn read(request: Request) -> Result<Vec<u8>, Problem> {
    let encoded = request.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if encoded {
        return Err(unsupported("compressed bodies are not taken"));
    }
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > BODY_LIMIT as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, to_bytes(request.into_body(), BODY_LIMIT)).await {
        Err(_) => Err(late()),
        Ok(Ok(body)) => Ok(body.into()),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::malformed("The body broke off.")),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether it is JSON at all is asked first: whatever is wrong after that is a field.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let text = str::from_utf8(body).map_err(|_| Problem::malformed("The body is not UTF-8."))?;
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| Problem::malformed(format!("The body is not JSON: {}.", without_position(&error))))?;
    let invalid = |field, message| Problem::invalid(vec![FieldError { field, message }]);
    // serde would take an array for an object, field by field.
    if !text.trim_start().starts_with('{') {
        return Err(invalid("body".to_owned(), "must be an object".to_owned()));
    }
    let json = &mut serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        let message = without_position(error.inner());
        // serde names an unknown, missing or doubled field in its message, between the first backquotes.
        let named = NAMED.iter().any(|start| message.starts_with(start));
        let field = if named { message.split('`').nth(1).unwrap_or_default().to_owned() } else { path };
        // What was typed may be long, and anything.
        let short = |text: String, longest| text.chars().filter(|c| !c.is_control()).take(longest).collect();
        invalid(short(field, 64), short(without_value(&message), 300))
    })
}

/// An object of texts that names none twice: who reads it must not see another than is kept.
pub(super) fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct EachOnce;

    impl<'de> Visitor<'de> for EachOnce {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut texts = BTreeMap::new();
            while let Some(name) = members.next_key::<String>()? {
                if texts.contains_key(&name) {
                    return Err(A::Error::custom(format!("names `{name}` twice")));
                }
                texts.insert(name, members.next_value()?);
            }
            Ok(texts)
        }
    }

    deserializer.deserialize_map(EachOnce)
}

const NAMED: [&str; 3] = ["unknown field", "missing field", "duplicate field"];

/// serde repeats the value that is wrong, and it may have been a secret in the wrong field; and it speaks of Rust's types.
fn without_value(message: &str) -> String {
    let unexpected = ["invalid type: ", "invalid value: ", "invalid length "].iter().any(|start| message.starts_with(start));
    let choices = message.strip_prefix("unknown variant ").and_then(|rest| rest.rsplit_once("`, expected "));
    match (choices, message.rsplit_once(", expected ")) {
        (Some((_, choices)), _) => format!("must be {choices}"),
        (None, Some((_, "i64"))) if unexpected => "must be an integer".to_owned(),
        (None, Some((_, expected))) if unexpected => format!("must be {expected}"),
        _ if unexpected => "is out of range".to_owned(),
        _ => message.to_owned(),
    }
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|kind| kind == "application/json")
}

pub(super) fn late() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "invalid-request", "Invalid request", "The body took too long.")
}

pub(super) fn too_large() -> Problem {
    let detail = format!("A body has at most {BODY_LIMIT} bytes.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
}

pub(super) fn unsupported(detail: &str) -> Problem {
    let detail = format!("This content type is not taken: {detail}.");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type", detail)
}
