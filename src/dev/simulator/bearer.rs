//! Who calls: the check of the `Authorization` header.

use super::answers::Answer;
use super::ledger::Ledger;
use super::signer::{Unverified, unverified_claims};
use super::tokens::{Claims, user_of};

/// Why a bearer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Missing,
    Parse,
    Signature,
    OtherInstance,
    Expired,
    Audience,
    Revoked,
    Disabled,
    Locked,
}

impl Ledger {
    /// Whether the bearer would be accepted now by any call but a refresh; answers its token's index.
    pub(super) fn check(&self, unverified: &str) -> Result<usize, Refused> {
        let index = self.identify(unverified)?;
        self.judge(index).map(|()| index)
    }

    /// Whether a bearer with this token would be accepted now by any call but a refresh.
    pub(super) fn judge(&self, index: usize) -> Result<(), Refused> {
        self.judge_lasting(index, self.now())?;
        if self.tokens[index].dead(self.now()) {
            return Err(Refused::Revoked);
        }
        Ok(())
    }

    /// A refresh accepts a bearer for some time past its expiry, and asks the row, not the bearer, whether it
    /// is gone: hence the 404, not 401, for a pair that was already refreshed.
    fn check_for_refresh(&self, unverified: &str) -> Result<usize, Refused> {
        let window = i64::try_from(self.knobs.refresh_window_seconds).unwrap_or(i64::MAX);
        let index = self.identify(unverified)?;
        self.judge_lasting(index, self.now().saturating_sub(window))?;
        Ok(index)
    }

    fn judge_lasting(&self, index: usize, until: i64) -> Result<(), Refused> {
        let token = &self.tokens[index];
        // A reference token only stands for an access token, and falls with that one's signature.
        if token.key_id != self.signer.key_id() {
            return Err(Refused::Signature);
        }
        if token.expired(until) {
            return Err(Refused::Expired);
        }
        if !self.is_audience(&token.audience) {
            return Err(Refused::Audience);
        }
        match self.users.get(&token.user) {
            Some(user) if user.locked => Err(Refused::Locked),
            Some(user) if !user.disabled => Ok(()),
            _ => Err(Refused::Disabled),
        }
    }

    /// The token of an access token of our signature, or of a reference token.
    fn identify(&self, unverified: &str) -> Result<usize, Refused> {
        if let Some(index) = self.with_reference_token(unverified) {
            return Ok(index);
        }
        let claims: Claims = unverified_claims(unverified).ok_or(Refused::Parse)?;
        if claims.iss != self.service_id {
            return Err(Refused::OtherInstance);
        }
        if !self.knobs.sign_tokens {
            return self.with_id(claims.jti).ok_or(Refused::Revoked);
        }
        match self.signer.verify::<Claims>(unverified) {
            Ok(claims) => self.with_id(claims.jti).ok_or(Refused::Revoked),
            Err(Unverified::Parse) => Err(Refused::Parse),
            Err(Unverified::Signature) => Err(Refused::Signature),
        }
    }

    fn is_audience(&self, audience: &str) -> bool {
        audience.split_whitespace().any(|a| ["*", "*@*", "jfac@*", &self.service_id].contains(&a))
    }

    /// Lets a caller in, and keeps count of the bad ones; answers the bearer's index.
    pub(super) fn admit(&mut self, bearer: Option<&str>, refresh: bool) -> Result<usize, Answer> {
        let unverified = bearer.ok_or_else(|| Refused::Missing.answer(refresh))?;
        let checked = if refresh { self.check_for_refresh(unverified) } else { self.check(unverified) };
        match checked {
            Ok(index) => {
                let now = self.now();
                let token = &mut self.tokens[index];
                token.last_used = Some(now);
                if let Some(user) = self.users.get_mut(&token.user) {
                    user.bad_bearers = 0;
                }
                Ok(index)
            }
            Err(refused) => {
                self.count_bad(unverified);
                Err(refused.answer(refresh))
            }
        }
    }

    /// The user is the one the bearer claims: whoever knows a name can lock it out, here as there.
    fn count_bad(&mut self, unverified: &str) {
        let Some(limit) = self.knobs.lock_user_after_bad_bearers else {
            return;
        };
        let name = match self.with_reference_token(unverified) {
            Some(index) => Some(self.tokens[index].user.clone()),
            None => unverified_claims::<Claims>(unverified).and_then(|claims| user_of(&claims.sub).map(str::to_owned)),
        };
        let Some(user) = name.and_then(|name| self.users.get_mut(&name)) else {
            return;
        };
        user.bad_bearers = user.bad_bearers.saturating_add(1);
        if user.bad_bearers >= limit && !user.locked {
            user.locked = true;
            self.dirty = true;
        }
    }
}

impl Refused {
    fn answer(self, refresh: bool) -> Answer {
        match self {
            Self::Missing => Answer::unauthorized("Unauthorized"),
            Self::Parse => Answer::unauthorized("Invalid token, parse"),
            Self::OtherInstance if refresh => Answer::bad_request("Token was issued by another instance"),
            Self::Signature | Self::OtherInstance => Answer::unauthorized("Invalid token, signature"),
            Self::Expired => Answer::unauthorized("Invalid token, expired"),
            Self::Audience => Answer::unauthorized("Invalid token, audience"),
            Self::Revoked => Answer::unauthorized("Invalid token, revoked"),
            Self::Disabled => Answer::unauthorized("User is disabled"),
            Self::Locked => {
                Answer::artifactory(403, "This request is blocked due to recurrent login failures, the user is locked")
            }
        }
    }
}
