//! Errors as RFC 9457 problems, and the one match that turns what a flow came to into them.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    broker::{BrokerError, IssueError, RefreshError, RegisterError},
    crypto::MasterKeyError,
    identity::Refusal,
    store::StoreError,
};

/// A JWT can be judged neither way: the one failure on our side that strangers can cause, so that it is audited like a refusal.
pub(super) const ISSUER_UNAVAILABLE: &str = "issuer-unavailable";

/// An error as it is answered; rendered by [`super::request::around`], which knows the request's id.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub slug: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub detail: String,
    pub errors: Box<[FieldError]>,
    pub retry_after: Option<Duration>,
    /// Precisely what was wrong: for the audit and the log, never for the caller.
    pub reason: String,
}

/// What is wrong with one field.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// The field's name.
    #[schema(example = "expires_in")]
    pub field: String,
    /// What is wrong with it.
    #[schema(example = "must be a number of seconds, 0 or more")]
    pub message: String,
}

/// The body of every error, `application/problem+json` (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// `/problems/<slug>`: what programs compare.
    #[serde(rename = "type")]
    #[schema(rename = "type", example = "/problems/not-found")]
    pub kind: String,
    /// What it is, always the same for a type.
    #[schema(example = "Not found")]
    pub title: &'a str,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// What happened this time.
    #[schema(example = "There is nothing here, or nothing that this credential may see.")]
    pub detail: &'a str,
    /// The answer's `x-request-id`: leads an admin to the audit row that says exactly why.
    #[schema(example = "01a209f3-519d-704a-a19d-b2f8dd4b3844")]
    pub request_id: &'a str,
    /// On 422, and only then: what is wrong with each field; none, where it is none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub errors: Option<&'a [FieldError]>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, slug: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { slug, status, title, reason: detail.clone(), detail, errors: Box::default(), retry_after: None }
    }

    /// As the caller reads it.
    pub(super) fn body<'a>(&'a self, request_id: &'a str) -> ProblemBody<'a> {
        ProblemBody {
            kind: format!("/problems/{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id,
            errors: (self.status == StatusCode::UNPROCESSABLE_ENTITY).then_some(&self.errors),
        }
    }

    pub(super) fn because(mut self, reason: impl std::fmt::Display) -> Self {
        self.reason = reason.to_string();
        self
    }

    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let detail = format!("These fields cannot be accepted: {}.", fields.join(", "));
        let reason = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>().join("; ");
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "Invalid request", detail).because(reason);
        Self { errors: errors.into(), ..problem }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "Invalid request", detail)
    }

    pub(super) fn unauthenticated(reason: impl std::fmt::Display) -> Self {
        let detail = "This call needs a valid credential: Authorization: Bearer <key>.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Not authenticated", detail).because(reason)
    }

    /// A JWT that can be judged neither way: whoever asks again may be let in.
    pub(super) fn issuer_unavailable(reason: impl std::fmt::Display, wait: Duration) -> Self {
        let detail = "The issuer of this JWT cannot be asked for its keys now: try again.";
        Self::unavailable(ISSUER_UNAVAILABLE, "Issuer unavailable", detail, reason, wait)
    }

    pub(super) fn key_service_unavailable(reason: impl std::fmt::Display) -> Self {
        let detail = "The service that keeps the master key cannot be asked: nothing was changed or spent.";
        Self::unavailable("key-service-unavailable", "Key service unavailable", detail, reason, Duration::from_secs(5))
    }

    /// One answer for what does not exist and for what the caller may not see.
    pub(super) fn not_found(reason: impl std::fmt::Display) -> Self {
        let detail = "There is nothing here, or nothing that this credential may see.";
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail).because(reason)
    }

    fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!(error = %reason, "a request failed");
        Self::ours().because(reason)
    }

    /// A failure on our side, not logged.
    pub(super) fn ours() -> Self {
        let detail = "Something went wrong on our side; the request id leads to what.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    fn unavailable(
        slug: &'static str,
        title: &'static str,
        detail: &str,
        reason: impl std::fmt::Display,
        wait: Duration,
    ) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, title, detail).because(reason).retry_after(wait)
    }

    /// For an answer that some layer gave without a problem.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found("there is no such route"),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method-not-allowed", "Method not allowed", "This path exists, with other methods: see Allow.")
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let detail = "Too many requests are under way.";
                Self::new(status, "overloaded", "Overloaded", detail).retry_after(Duration::from_secs(1))
            }
            status if status.is_client_error() => Self::new(
                status,
                "invalid-request",
                "Invalid request",
                status.canonical_reason().unwrap_or("The request is invalid."),
            ),
            _ => Self::internal("a handler panicked, or answered without a problem"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        let reason = error.to_string();
        match error {
            BrokerError::Refused(Refusal::Invisible(_)) | BrokerError::NotFound(_) => Self::not_found(reason),
            BrokerError::Refused(Refusal::Forbidden(_)) => {
                Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", "This credential's role may not do this.")
                    .because(reason)
            }
            BrokerError::Refused(Refusal::TeamRequired) => Self::new(
                StatusCode::BAD_REQUEST,
                "team-required",
                "Team required",
                "This credential belongs to no single team: name one with ?team=NAME.",
            ),
            BrokerError::Frozen(_) => {
                let detail =
                    "This service runs on a copy of a database: nothing is rotated, made or revoked until an operator adopts it.";
                Self::unavailable("frozen", "Frozen", detail, reason, Duration::from_secs(60))
            }
            BrokerError::CredentialGone => Self::unauthenticated(reason),
            BrokerError::NameTaken(name) => {
                Self::new(StatusCode::CONFLICT, "name-taken", "Name taken", format!("The name {name} is in use."))
            }
            BrokerError::Busy => Self::new(
                StatusCode::CONFLICT,
                "busy",
                "Busy",
                "Something else is under way for this token: try again in a moment.",
            )
            .retry_after(Duration::from_secs(2)),
            BrokerError::TeamInUse => {
                Self::new(StatusCode::CONFLICT, "team-in-use", "Team in use", "The team still has tokens: delete them first.")
            }
            BrokerError::LockedDown => {
                let detail =
                    "An admin has locked this token, or its whole team, down: nothing is handed out until the lockdown is ended.";
                Self::new(StatusCode::CONFLICT, "locked-down", "Locked down", detail).because(reason)
            }
            BrokerError::KeyInUse { .. } => {
                Self::new(StatusCode::CONFLICT, "key-in-use", "Key in use", format!("The {}.", reason.clone())).because(reason)
            }
            BrokerError::KeyNotEverywhere { .. } => {
                let detail = format!("The {reason}. Give it to every replica first, in the second place; then put it first.");
                Self::new(StatusCode::CONFLICT, "key-not-everywhere", "Key not everywhere", detail).because(reason)
            }
            BrokerError::KeyNotFirst { .. } => {
                Self::new(StatusCode::CONFLICT, "key-not-first", "Key not first", format!("The {reason}.")).because(reason)
            }
            BrokerError::JournalAlive(_) => {
                Self::new(StatusCode::CONFLICT, "journal-in-use", "Journal in use", format!("The {}.", reason.clone()))
                    .because(reason)
            }
            BrokerError::Invalid { field, message } => Self::invalid(vec![FieldError { field: field.to_owned(), message }]),
            BrokerError::InvalidFields(fields) => {
                Self::invalid(fields.into_iter().map(|(field, message)| FieldError { field, message }).collect())
            }
            BrokerError::Store(StoreError::Unavailable(_)) => {
                tracing::warn!(error = reason, "Postgres is not available");
                let detail = "The database cannot be reached: nothing was changed or spent.";
                Self::unavailable("database-unavailable", "Database unavailable", detail, reason, Duration::from_secs(2))
            }
            BrokerError::MasterKey(MasterKeyError::Unavailable(..)) => {
                tracing::warn!(error = reason, "the key service is not available");
                Self::key_service_unavailable(reason)
            }
            BrokerError::JfrogUnavailable { detail, retry_after } => {
                let text = format!("JFrog cannot be reached, or refuses for now: {detail}");
                Self::unavailable("jfrog-unavailable", "JFrog unavailable", &text, reason, retry_after)
            }
            BrokerError::Journal(_) => {
                tracing::error!(error = reason, "the journal cannot be written");
                let detail = "The journal's volume cannot be written, so nothing was begun or spent.";
                Self::unavailable("journal-unavailable", "Journal unavailable", detail, reason, Duration::from_secs(10))
            }
            BrokerError::Store(_)
            | BrokerError::Open(_)
            | BrokerError::MasterKey(_)
            | BrokerError::UnknownInstance(_)
            | BrokerError::TaskEnded => Self::internal(reason),
        }
    }
}

/// The caller is a team's admin: JFrog's own words may reach it.
impl From<RegisterError> for Problem {
    fn from(error: RegisterError) -> Self {
        let unprocessable = |slug, title, detail: String| Self::new(StatusCode::UNPROCESSABLE_ENTITY, slug, title, detail);
        match error {
            RegisterError::Broker(error) => error.into(),
            RegisterError::BearerRejected(message) => unprocessable(
                "identity-token-rejected",
                "Token rejected by JFrog",
                format!("JFrog refused the token it was shown: {message}"),
            ),
            RegisterError::NotRefreshable => unprocessable(
                "not-refreshable",
                "Not refreshable",
                "JFrog gave no refresh token. Its setting `allow-refreshable` (Access, token section) must be on.".to_owned(),
            ),
            RegisterError::ScopeRefused(message) => unprocessable(
                "scope-refused",
                "Refused by JFrog",
                format!(
                    "JFrog answered 403 ({message}): the scope is wider than the user's, expires_in is above JFrog's maximum, or the user may not create tokens."
                ),
            ),
            RegisterError::JfrogInvalid(message) => {
                unprocessable("invalid-request", "Invalid request", format!("JFrog found the request invalid: {message}"))
            }
            RegisterError::RefreshTokenUnknown(message) => unprocessable(
                "not-refreshable",
                "Not refreshable",
                format!("JFrog does not know the refresh token: it was used already, or is another's. {message}"),
            ),
            RegisterError::Pending(reason) => Self::unavailable(
                "jfrog-unavailable",
                "JFrog unavailable",
                "JFrog's answer was lost. What was begun is finished or given up in the background: look at GET /tokens/{name}. \
                 POST /tokens may be repeated with the same Idempotency-Key.",
                reason,
                Duration::from_secs(30),
            ),
        }
    }
}

/// The caller may be any pipeline: it is told what to do, not what JFrog said.
impl From<RefreshError> for Problem {
    fn from(error: RefreshError) -> Self {
        let reason = error.to_string();
        let soon = Duration::from_secs(5);
        match error {
            RefreshError::Broker(error) => error.into(),
            RefreshError::DatabaseUnavailable => {
                let detail = "The database cannot be reached: nothing was spent.";
                Self::unavailable("database-unavailable", "Database unavailable", detail, reason, Duration::from_secs(2))
            }
            RefreshError::Failed(_) => Self::internal(reason),
            RefreshError::Creating => {
                Self::new(StatusCode::CONFLICT, "busy", "Busy", "The token is still being registered.").retry_after(soon)
            }
            RefreshError::Revoked => {
                let detail =
                    "The token is being deleted: an admin began it and repeats DELETE /tokens/{name} until JFrog was told.";
                Self::new(StatusCode::CONFLICT, "token-lost", "Token lost", detail)
            }
            RefreshError::Lost(_) => {
                let detail = "No credential of this token works any more: an admin of the team must call POST /tokens/{name}/recreate \
                              with a new identity token.";
                Self::new(StatusCode::CONFLICT, "token-lost", "Token lost", detail).because(reason)
            }
            RefreshError::JfrogUnavailable { retry_after, .. } => {
                let detail = "JFrog cannot be reached, or refuses for now, and no current token is good enough.";
                Self::unavailable("jfrog-unavailable", "JFrog unavailable", detail, reason, retry_after)
            }
            RefreshError::Uncertain => {
                let detail = "A refresh was sent and its outcome is not known yet: the broker is finding out.";
                Self::unavailable("refresh-uncertain", "Refresh uncertain", detail, reason, soon)
            }
            RefreshError::Pending => {
                let detail = "The refresh is still under way and goes on: ask again.";
                Self::unavailable("refresh-pending", "Refresh pending", detail, reason, soon)
            }
        }
    }
}

/// As for a refresh.
impl From<IssueError> for Problem {
    fn from(error: IssueError) -> Self {
        let reason = error.to_string();
        match error {
            IssueError::Refresh(error) => error.into(),
            IssueError::Refused(_) => {
                let detail = "JFrog does not give this token's user what was asked: its scope or lifetime is too wide, or not valid there.";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "scope-refused", "Refused by JFrog", detail).because(reason)
            }
            IssueError::Wider(_) => {
                let detail = "JFrog gave a token that is wider than what was asked: it was revoked, and is not handed on.";
                Self::new(StatusCode::BAD_GATEWAY, "wider-than-asked", "Wider than asked", detail).because(reason)
            }
            IssueError::Unavailable { retry_after, .. } => {
                let detail = "JFrog cannot be reached, or refuses for now: no child token was issued.";
                Self::unavailable("jfrog-unavailable", "JFrog unavailable", detail, reason, retry_after)
            }
        }
    }
}
