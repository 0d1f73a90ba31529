//! List, read and revoke.

use super::answers::Answer;
use super::flow::{Request, Target, Trace};
use super::ledger::Ledger;
use super::parameters::{is_form, pairs};
use super::tokens::Token;
use serde_json::{Value, json};

impl Ledger {
    pub(super) fn trace_bearer(&self, bearer: usize, trace: &mut Trace) {
        trace.user = Some(self.tokens[bearer].user.clone());
        trace.token_id = Some(self.tokens[bearer].id);
    }

    pub(super) fn list(&mut self, request: &Request, trace: &mut Trace) -> Result<Answer, Answer> {
        let bearer = self.admit(request.bearer.as_deref(), false)?;
        self.trace_bearer(bearer, trace);
        let filters: Vec<(String, String)> = pairs(&request.query).collect();
        let rows = self.tokens.iter().filter(|token| token.has_row());
        let records: Vec<Value> = rows
            .filter(|token| self.may_see(bearer, token) && matches(token, &filters))
            .map(|token| token.record(&self.service_id))
            .collect();
        Ok(Answer::Json(200, json!({ "tokens": records })))
    }

    pub(super) fn read(&mut self, request: &Request, trace: &mut Trace) -> Result<Answer, Answer> {
        let bearer = self.admit(request.bearer.as_deref(), false)?;
        self.trace_bearer(bearer, trace);
        let token = self
            .target(&request.target, bearer)
            .map(|index| &self.tokens[index])
            .filter(|token| token.has_row())
            .ok_or_else(|| Answer::not_found("Token not found"))?;
        trace.target_token_id = Some(token.id);
        if !self.may_see(bearer, token) {
            return Err(Answer::forbidden());
        }
        Ok(Answer::Json(200, token.record(&self.service_id)))
    }

    pub(super) fn delete(&mut self, request: &Request, trace: &mut Trace) -> Result<Answer, Answer> {
        if is_form(request.content_type.as_deref()) {
            return Err(Answer::flat(405, "METHOD_NOT_ALLOWED", "Method Not Allowed"));
        }
        let bearer = self.admit(request.bearer.as_deref(), false)?;
        self.trace_bearer(bearer, trace);
        let Some(index) = self.target(&request.target, bearer) else {
            return Ok(Answer::empty(204));
        };
        let token = &self.tokens[index];
        trace.target_token_id = Some(token.id);
        if !self.may_see(bearer, token) {
            return Err(Answer::forbidden());
        }
        if !token.revocable() {
            return Err(Answer::bad_request("Token not revocable"));
        }
        if !token.has_row() {
            return Ok(Answer::empty(204));
        }
        self.revoke(index);
        trace.committed = true;
        Ok(Answer::Text(200, "text/plain", "Token revoked".to_owned()))
    }

    fn target(&self, target: &Target, bearer: usize) -> Option<usize> {
        match target {
            Target::Me => Some(bearer),
            Target::Id(id) => self.with_id(id.parse().ok()?),
            Target::None => None,
        }
    }

    /// Its own tokens, and everyone's for an administrator.
    fn may_see(&self, bearer: usize, token: &Token) -> bool {
        let bearer = &self.tokens[bearer];
        let caller = self.users.get(&bearer.user);
        token.user == bearer.user || caller.is_some_and(|c| c.is_admin_with(&bearer.scope))
    }
}

/// Filters that are not known are ignored.
fn matches(token: &Token, filters: &[(String, String)]) -> bool {
    filters.iter().all(|(name, wanted)| match name.as_str() {
        "description" => match wanted.strip_suffix('*') {
            Some(prefix) => token.description.starts_with(prefix),
            None => token.description == *wanted,
        },
        "username" => token.user == *wanted,
        "refreshable" => token.refresh_token.is_some() == (wanted == "true"),
        "token_id" => token.id.to_string() == *wanted,
        _ => true,
    })
}
