//! What goes over the wire: JFrog's four error shapes, and its JSON layout.

use axum::http::header::{CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::{body::Body as HttpBody, http::StatusCode};
use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Serializer, Value, json};
use std::io;

const JSON: &str = "application/json";
const HTML: &str = "text/html";
const TEXT: &str = "text/plain";

/// One answer, not yet bytes, so that a fault can still spoil it.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Json(u16, Value),
    /// Status, content type, body.
    Text(u16, &'static str, String),
    /// Any other answer with one more header.
    With(HeaderName, String, Box<Answer>),
    /// The connection ends without an answer.
    Dropped,
}

/// Marks a response that must never be sent; the door turns it into a closed connection.
#[derive(Debug, Clone)]
pub(super) struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulator dropped this connection")
    }
}

impl std::error::Error for Dropped {}

/// Tower asks for it of every service put over the router's, which never fails.
impl From<std::convert::Infallible> for Dropped {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl Answer {
    /// Access' usual shape.
    pub(super) fn access(status: u16, code: &str, message: &str) -> Self {
        Self::Json(status, json!({ "errors": [{ "code": code, "message": message }] }))
    }

    /// Access' flat shape.
    pub(super) fn flat(status: u16, code: &str, message: &str) -> Self {
        let detail = format!("{message} (status {status})");
        Self::Json(status, json!({ "code": code, "message": message, "detail": detail }))
    }

    /// Artifactory's shape, used by what stands in front of Access.
    pub(super) fn artifactory(status: u16, message: &str) -> Self {
        Self::Json(status, json!({ "errors": [{ "status": status, "message": message }] }))
    }

    /// The legacy token endpoint's (OAuth's) shape.
    pub(super) fn legacy(status: u16, error: &str, description: &str) -> Self {
        Self::Json(status, json!({ "error": error, "error_description": description }))
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        Self::access(401, "UNAUTHORIZED", message)
    }

    pub(super) fn forbidden() -> Self {
        Self::access(403, "FORBIDDEN", "Forbidden")
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::flat(400, "BAD_REQUEST", message)
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::access(404, "NOT_FOUND", message)
    }

    pub(super) fn empty(status: u16) -> Self {
        Self::Text(status, TEXT, String::new())
    }

    pub(super) fn ok() -> Self {
        Self::Text(200, TEXT, "OK".to_owned())
    }

    pub(super) fn html(status: u16, title: &str) -> Self {
        let page = format!(
            "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} \
             {title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        );
        Self::Text(status, HTML, page)
    }

    pub(super) fn retry_after(self, when: Option<&str>) -> Self {
        match when {
            Some(when) => Self::With(RETRY_AFTER, when.to_owned(), Box::new(self)),
            None => self,
        }
    }

    pub(super) fn redirect(location: &str) -> Self {
        let page = Self::html(302, "Found");
        Self::With(LOCATION, location.to_owned(), Box::new(page))
    }

    /// The status, `None` for a dropped connection.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Json(status, _) | Self::Text(status, ..) => Some(*status),
            Self::With(_, _, answer) => answer.status(),
            Self::Dropped => None,
        }
    }

    /// The same answer with half of its body.
    pub(super) fn truncated(self) -> Self {
        let Self::Json(status, json) = self else {
            return self;
        };
        let mut text = pretty(&json);
        // JFrog's bodies may hold any description: cut between two characters.
        let half = text.floor_char_boundary(text.len() / 2);
        text.truncate(half);
        Self::Text(status, JSON, text)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (status, content_type, text) = match self {
            Self::Json(status, json) => (status, JSON, pretty(&json)),
            Self::Text(status, content_type, text) => (status, content_type, text),
            Self::With(name, value, answer) => return ([(name, value)], *answer).into_response(),
            Self::Dropped => {
                let mut response = Response::new(HttpBody::empty());
                response.extensions_mut().insert(Dropped);
                return response;
            }
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, content_type)], text).into_response()
    }
}

/// JSON laid out as Jackson does it for JFrog.
pub(super) fn pretty(json: &Value) -> String {
    let mut bytes = Vec::new();
    json.serialize(&mut Serializer::with_formatter(&mut bytes, Jackson(0))).expect("a JSON value is written into memory");
    String::from_utf8(bytes).expect("serde_json writes UTF-8")
}

/// `{ "key" : value }` over lines, arrays on one; holds the depth of objects.
struct Jackson(usize);

impl Jackson {
    fn line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        writer.write_all("  ".repeat(self.0).as_bytes())
    }
}

impl Formatter for Jackson {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"[ ")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b" ]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0 += 1;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0 -= 1;
        self.line(writer)?;
        writer.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        self.line(writer)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b" : ")
    }
}
