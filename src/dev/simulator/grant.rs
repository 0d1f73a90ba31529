//! Create and refresh.

use super::answers::Answer;
use super::flow::{Request, Trace};
use super::knobs::OldAccessToken;
use super::ledger::Ledger;
use super::parameters::Parameters;
use super::tokens::Wish;
use super::users::{ScopeRefused, User};

impl Ledger {
    /// A token for the bearer's user, or, by an administrator, for anyone.
    pub(super) fn create(&mut self, request: &Request, trace: &mut Trace) -> Result<Answer, Answer> {
        let bearer = self.admit(request.bearer.as_deref(), false)?;
        self.trace_bearer(bearer, trace);
        let fields = request.fields.as_ref().map_err(Clone::clone)?;
        match fields.text("grant_type").as_deref() {
            None | Some("" | "client_credentials") => {}
            Some(other) => {
                return Err(Answer::legacy(400, "unsupported_grant_type", &format!("Grant type '{other}' is not supported")));
            }
        }
        let asked = fields.parse()?.without(&self.knobs.ignored_on_create);
        let wish = self.wish(bearer, asked)?;
        self.users.entry(wish.user.clone()).or_default();
        let new = self.add(wish);
        trace.committed = true;
        trace.new_token_id = Some(self.tokens[new].id);
        Ok(Answer::Json(self.knobs.success_status, self.tokens[new].pair()))
    }

    /// What the bearer may have of what it asks for.
    fn wish(&self, bearer: usize, asked: Parameters) -> Result<Wish, Answer> {
        let bearer = &self.tokens[bearer];
        let nobody = User::default();
        let caller = self.users.get(&bearer.user).unwrap_or(&nobody);
        let user = asked.username.unwrap_or_else(|| bearer.user.clone());
        if user != bearer.user && !caller.is_admin_with(&bearer.scope) {
            return Err(Answer::forbidden());
        }
        let scope = asked.scope.unwrap_or_else(|| "applied-permissions/user".to_owned());
        caller.may_have(&scope, &bearer.scope).map_err(|refused| match refused {
            ScopeRefused::Unknown => Answer::bad_request("Invalid scope"),
            ScopeRefused::TooWide => Answer::forbidden(),
        })?;
        let lifetime = self.knobs.lifetime(asked.expires_in);
        Ok(Wish {
            user,
            scope,
            audience: asked.audience.unwrap_or_else(|| "*@*".to_owned()),
            description: asked.description.unwrap_or_default(),
            lifetime: lifetime.map_err(|_| Answer::forbidden())?,
            refreshable: asked.refreshable && self.knobs.allow_refreshable,
            reference: asked.include_reference_token,
            force_revocable: asked.force_revocable,
            identity: false,
        })
    }

    /// A new pair for a refresh token, once. The caller holds the ledger alone, so that of two refreshes of
    /// one refresh token the second finds no row.
    pub(super) fn refresh(&mut self, request: &Request, trace: &mut Trace) -> Result<Answer, Answer> {
        let bearer = self.admit(request.bearer.as_deref(), true)?;
        self.trace_bearer(bearer, trace);
        let fields = request.fields.as_ref().map_err(Clone::clone)?;
        let asked = fields.parse()?;
        let Some(refresh_token) = asked.refresh_token else {
            return Err(Answer::legacy(400, "invalid_request", "Parameter 'refresh_token' is missing"));
        };
        let old = self
            .row_of_refresh_token(&refresh_token)
            .ok_or_else(|| Answer::not_found("Token matching the provided refresh token was not found."))?;
        trace.target_token_id = Some(self.tokens[old].id);
        if self.tokens[old].user != self.tokens[bearer].user {
            return Err(Answer::forbidden());
        }
        let row = &self.tokens[old];
        let lifetime = self.knobs.lifetime_on_refresh(asked.expires_in, row.lifetime()).map_err(|_| Answer::forbidden())?;
        let new = self.add(Wish {
            user: row.user.clone(),
            scope: row.scope.clone(),
            audience: row.audience.clone(),
            description: row.description.clone(),
            lifetime,
            refreshable: self.knobs.allow_refreshable,
            reference: asked.include_reference_token,
            force_revocable: row.force_revocable,
            identity: false,
        });
        let new_id = self.tokens[new].id;
        let now = self.now();
        let dies_at = match self.knobs.old_access_token {
            OldAccessToken::Revoked => Some(now),
            OldAccessToken::CachedSeconds(seconds) => Some(now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX))),
            OldAccessToken::Valid => None,
        };
        let row = &mut self.tokens[old];
        row.replaced_by = Some(new_id);
        row.dies_at = dies_at;
        trace.committed = true;
        trace.new_token_id = Some(new_id);
        Ok(Answer::Json(self.knobs.success_status, self.tokens[new].pair()))
    }
}
