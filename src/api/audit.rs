//! `GET /audit`: who did what, and why something was refused.

mod event;

use axum::{
    Json as Answer,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use utoipa::IntoParams;

pub use event::AuditEvent;

use super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::Parameters,
    page::{Page, PageParameters},
    problem::Problem,
    validation::Validation,
};
use crate::store::{AuditFilter, AuditRow};

/// JSON Lines.
const NDJSON: &str = "application/x-ndjson";

/// Which events; all that are given must fit. A parameter that is none of these is refused.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParameters {
    /// Whose: needed only by callers with several teams. A platform admin who names none reads the platform's own events.
    #[param(required = false)]
    team: Option<String>,
    /// About the token of this name.
    #[param(required = false, example = "deploy", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    token: Option<String>,
    /// By this actor, as the audit writes it.
    #[param(required = false, example = "key:payments/ci")]
    actor: Option<String>,
    /// `noun.verb`; of a refusal the method and the route.
    #[param(required = false, example = "token.hand_out")]
    action: Option<String>,
    /// `done`, `refused` (by the broker) or `failed` (at JFrog).
    #[param(required = false, example = "refused", pattern = "^(done|refused|failed)$")]
    outcome: Option<String>,
    /// First 16 hex digits of an access token's SHA-256: leads from a leaked token to the job that got it.
    #[param(required = false, example = "9f86d081884c7d65", pattern = "^[0-9a-f]{16}$")]
    fingerprint: Option<String>,
    /// The `x-request-id` of an answer: leads from a refused job to the reason.
    #[param(required = false, example = "01a209f3-519d-704a-a19d-b2f8dd4b3844")]
    request_id: Option<String>,
    /// At this time or later, RFC 3339; a `+` in it is written `%2B`.
    #[param(required = false, example = "2026-11-24T00:00:00Z", format = DateTime)]
    from: Option<String>,
    /// Before this time, RFC 3339.
    #[param(required = false, example = "2026-11-25T00:00:00Z", format = DateTime)]
    to: Option<String>,
    /// Events on a page, 1 to 200.
    #[param(required = false, example = 50, minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    #[param(required = false)]
    after: Option<String>,
}

/// Read the audit
///
/// One event for each thing that was done or refused, the newest first. A walk by `next` neither repeats nor misses any of the events
/// that were there when it began; those that come in meanwhile are not in it. A team's admin reads its own team's; an admin of some
/// tokens only what is about these. With `Accept: application/x-ndjson`: one event a line, and the next page is in the `Link` header
/// (`rel="next"`), so that an export of any size goes page by page. `at` is when the event began to be written, which may take
/// seconds: an export that goes on where the last one ended begins a minute earlier, and passes over each `id` that it has.
#[utoipa::path(get, path = "/audit", tag = docs::AUDIT, security(("bearer" = [])), params(AuditParameters),
    responses((status = 200, description = "A page of events.",
               content((Page<AuditEvent> = "application/json"), (String = "application/x-ndjson")),
               headers(("Link" = String, description = "Of JSON Lines: the next page, `rel=\"next\"`; absent: this is the last.")))))]
pub(super) async fn list_audit(
    State(state): State<ApiState>,
    who: Authenticated,
    RawQuery(query): RawQuery,
    Parameters(asked): Parameters<AuditParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (filter, limit) = asked.read()?;
    let rows = state.broker.audit_events(&who.caller, asked.team.as_deref(), &filter, limit).await?;
    let page = Page::of(rows, limit, cursor, AuditEvent::from);
    let lines = headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(NDJSON.as_bytes()));
    Ok(if lines { json_lines(&page, &query.unwrap_or_default()) } else { Answer(page).into_response() })
}

impl AuditParameters {
    fn read(&self) -> Result<(AuditFilter, i64), Problem> {
        let (after, limit) = PageParameters { limit: self.limit, after: self.after.clone() }.read()?;
        let mut validation = Validation::default();
        for (field, text) in [("token", &self.token), ("actor", &self.actor), ("action", &self.action)] {
            validation.text(field, text.as_deref(), 1024);
        }
        validation.text("request_id", self.request_id.as_deref(), 128);
        let outcomes = ["done", "refused", "failed"];
        let known = self.outcome.as_deref().is_none_or(|outcome| outcomes.contains(&outcome));
        validation.check("outcome", known, "must be done, refused or failed");
        let hex = |text: &str| text.len() == 16 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let fits = self.fingerprint.as_deref().is_none_or(hex);
        validation.check("fingerprint", fits, "must be the first 16 hex digits, in lower case, of the access token's SHA-256");
        let (from, to) = (time(&mut validation, "from", self.from.as_deref()), time(&mut validation, "to", self.to.as_deref()));
        validation.check("from", from.zip(to).is_none_or(|(from, to)| from <= to), "must not be later than to");
        let before = row(&after);
        validation.check("after", after.is_empty() || before.is_some(), "is not a cursor of this list");
        validation.done()?;
        let filter = AuditFilter {
            token_name: self.token.clone(),
            actor: self.actor.clone(),
            action: self.action.clone(),
            outcome: self.outcome.clone(),
            fingerprint: self.fingerprint.clone(),
            request_id: self.request_id.clone(),
            from,
            to,
            before,
        };
        Ok((filter, limit))
    }
}

/// A time in UTC: a year that UTC does not have is none.
fn time(validation: &mut Validation, field: &str, text: Option<&str>) -> Option<OffsetDateTime> {
    let parsed = OffsetDateTime::parse(text?, &Rfc3339).ok().and_then(|time| time.checked_to_offset(UtcOffset::UTC));
    validation.check(field, parsed.is_some(), "must be a time as 2026-11-24T03:00:00Z (RFC 3339; a + is written %2B)");
    parsed
}

/// Where a page ends: the time, in microseconds as Postgres keeps it, and the id of its last row.
fn cursor(row: &AuditRow) -> String {
    format!("{}.{}", row.at.unix_timestamp_nanos() / 1_000, row.id)
}

fn row(cursor: &str) -> Option<(OffsetDateTime, i64)> {
    let (micros, id) = cursor.split_once('.')?;
    let micros = micros.parse::<u64>().ok()?;
    Some((OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok()?, id.parse().ok()?))
}

/// One event a line; where it goes on stands in the header.
fn json_lines(page: &Page<AuditEvent>, query: &str) -> Response {
    let mut lines = String::new();
    for event in &page.items {
        lines.push_str(&serde_json::to_string(event).unwrap_or_default());
        lines.push('\n');
    }
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))], lines).into_response();
    if let Some(next) = &page.next {
        let same = query.split('&').filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("after"));
        let after = format!("after={next}");
        let query = same.chain([after.as_str()]).collect::<Vec<_>>().join("&");
        if let Ok(link) = HeaderValue::from_str(&format!("</audit?{query}>; rel=\"next\"")) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    response
}
