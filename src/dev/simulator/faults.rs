//! Rules by which calls go wrong.

use super::answers::Answer;
use super::calls::Route;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// One way a call goes wrong. "Commit" is the change of the simulator's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Commit, then close the connection without an answer.
    DropResponseAfterCommit,
    /// Close the connection; nothing is committed.
    DropBeforeCommit,
    /// Wait, then commit and answer; a caller that leaves meanwhile does not stop the commit.
    DelayBeforeCommit {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Commit, wait, then answer.
    DelayAfterCommit {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// 429; nothing is committed.
    RateLimited {
        /// Value of the `Retry-After` header: seconds or an HTTP date; `None` leaves it out.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// 502 with an HTML page; nothing is committed.
    BadGatewayHtml,
    /// 503 with an HTML page; nothing is committed.
    Unavailable,
    /// 403, as all calls get in an incident of the tenant; nothing is committed.
    Forbidden,
    /// 401 in Artifactory's shape, even for a valid bearer; nothing is committed.
    Unauthorized,
    /// Commit, then answer with half of the body.
    TruncatedJson,
    /// Commit, then answer with `expires_in` in quotes.
    ExpiresInString,
    /// Commit, then answer without `expires_in`.
    ExpiresInAbsent,
    /// Commit, then answer without the refresh token.
    NoRefreshToken,
    /// 404 with an HTML page; nothing is committed.
    Html404,
    /// 302; nothing is committed.
    Redirect {
        /// Value of the `Location` header.
        location: String,
    },
    /// Commit, then answer with a field `padding` of this many bytes more.
    HugeBody {
        /// Length of the padding.
        bytes: usize,
    },
}

/// Which calls a rule is for; in JSON a route's name, or `any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Every call, ping too.
    #[default]
    Any,
    /// Calls of one route.
    #[serde(untagged)]
    Only(Route),
}

/// A fault, and when it happens. A call meets the first rule that matches, and no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    /// To which calls; in JSON absent means any.
    #[serde(default)]
    pub route: Filter,
    /// How often still; `None` (JSON `null`) is always, and absent in JSON means once.
    #[serde(default = "once")]
    pub times: Option<u32>,
    /// How likely at each matching call, from 0 to 1; in JSON absent means 1.
    #[serde(default = "certain")]
    pub probability: f64,
}

fn once() -> Option<u32> {
    Some(1)
}

fn certain() -> f64 {
    1.0
}

impl Rule {
    /// The fault at the next call of this route.
    pub fn once(fault: Fault, route: Route) -> Self {
        Self { fault, route: Filter::Only(route), times: once(), probability: certain() }
    }

    /// The fault at every call of any route, until the rules are cleared.
    pub fn always(fault: Fault) -> Self {
        Self { fault, route: Filter::Any, times: None, probability: certain() }
    }

    fn fires(&self, route: Route) -> bool {
        let matches = match self.route {
            Filter::Any => true,
            Filter::Only(only) => only == route,
        };
        matches && self.times != Some(0) && rand::random::<f64>() < self.probability
    }
}

/// The fault a call of this route meets; counts the rule down.
pub(super) fn next(rules: &mut Vec<Rule>, route: Route) -> Option<Fault> {
    let rule = rules.iter_mut().find(|rule| rule.fires(route))?;
    let fault = rule.fault.clone();
    rule.times = rule.times.map(|times| times - 1);
    rules.retain(|rule| rule.times != Some(0));
    Some(fault)
}

impl Fault {
    /// The answer given instead of doing anything.
    pub(super) fn instead(&self) -> Option<Answer> {
        Some(match self {
            Self::DropBeforeCommit => Answer::Dropped,
            Self::RateLimited { retry_after } => {
                Answer::artifactory(429, "Too Many Requests").retry_after(retry_after.as_deref())
            }
            Self::BadGatewayHtml => Answer::html(502, "Bad Gateway"),
            Self::Unavailable => Answer::html(503, "Service Temporarily Unavailable"),
            Self::Forbidden => Answer::forbidden(),
            Self::Unauthorized => Answer::artifactory(401, "Bad Credentials"),
            Self::Html404 => Answer::html(404, "Not Found"),
            Self::Redirect { location } => Answer::redirect(location),
            Self::DropResponseAfterCommit
            | Self::DelayBeforeCommit { .. }
            | Self::DelayAfterCommit { .. }
            | Self::TruncatedJson
            | Self::ExpiresInString
            | Self::ExpiresInAbsent
            | Self::NoRefreshToken
            | Self::HugeBody { .. } => return None,
        })
    }

    pub(super) fn delay_before_commit(&self) -> Duration {
        match self {
            Self::DelayBeforeCommit { ms } => Duration::from_millis(*ms),
            _ => Duration::ZERO,
        }
    }

    pub(super) fn delay_after_commit(&self) -> Duration {
        match self {
            Self::DelayAfterCommit { ms } => Duration::from_millis(*ms),
            _ => Duration::ZERO,
        }
    }

    /// What is left of the answer after the commit.
    pub(super) fn spoil(&self, answer: Answer) -> Answer {
        match self {
            Self::DropResponseAfterCommit => Answer::Dropped,
            Self::TruncatedJson => answer.truncated(),
            Self::ExpiresInString => edit(answer, |fields| {
                if let Some(value) = fields.get_mut("expires_in") {
                    *value = Value::String(value.to_string());
                }
            }),
            Self::ExpiresInAbsent => edit(answer, |fields| {
                fields.remove("expires_in");
            }),
            Self::NoRefreshToken => edit(answer, |fields| {
                fields.remove("refresh_token");
            }),
            Self::HugeBody { bytes } => edit(answer, |fields| {
                fields.insert("padding".to_owned(), Value::String("x".repeat(*bytes)));
            }),
            _ => answer,
        }
    }
}

fn edit(answer: Answer, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Answer {
    match answer {
        Answer::Json(status, Value::Object(mut fields)) => {
            change(&mut fields);
            Answer::Json(status, Value::Object(fields))
        }
        other => other,
    }
}
