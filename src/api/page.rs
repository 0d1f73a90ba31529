//! Lists: `{"items": […], "next": "cursor" | null}`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{FieldError, Problem};

/// Where a list goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParameters {
    /// Items on a page, 1 to 200.
    #[param(required = false, example = 50, minimum = 1, maximum = 200)]
    pub limit: Option<i64>,
    /// `next` of the page before.
    #[param(required = false)]
    pub after: Option<String>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// In the order of their names; of the audit, the newest first.
    pub items: Vec<T>,
    /// The cursor of the next page; `null`: this is the last.
    #[schema(example = json!(null))]
    pub next: Option<String>,
}

impl PageParameters {
    /// The name after which the page begins, and how many items it has.
    pub(super) fn read(&self) -> Result<(String, i64), Problem> {
        let limit = self.limit.unwrap_or(50);
        let bad = |field: &str, message: &str| {
            Problem::invalid(vec![FieldError { field: field.to_owned(), message: message.to_owned() }])
        };
        if !(1..=200).contains(&limit) {
            return Err(bad("limit", "must be 1 to 200"));
        }
        let Some(cursor) = &self.after else { return Ok((String::new(), limit)) };
        let name = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let name = name.filter(|name| !name.contains('\0')).ok_or_else(|| bad("after", "is not a cursor of this list"))?;
        Ok((name, limit))
    }
}

impl<T> Page<T> {
    /// A page of `items`; a full one has a next.
    pub(super) fn new(items: Vec<T>, limit: i64, name: impl Fn(&T) -> &str) -> Self {
        Self::of(items, limit, |item| name(item).to_owned(), |item| item)
    }

    /// The same of rows that go on after `cursor`.
    pub(super) fn of<R>(rows: Vec<R>, limit: i64, cursor: impl Fn(&R) -> String, shown: impl Fn(R) -> T) -> Self {
        let full = i64::try_from(rows.len()).is_ok_and(|count| count >= limit);
        let next = rows.last().filter(|_| full).map(|last| URL_SAFE_NO_PAD.encode(cursor(last)));
        Self { items: rows.into_iter().map(shown).collect(), next }
    }
}
