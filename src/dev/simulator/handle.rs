//! The controls, in process.

use super::signer::Signer;
use super::{Call, Counter, Knobs, Route, Rule, Simulator, TokenView};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

impl Simulator {
    /// A user without groups; answers a new identity token. A user of that name is changed.
    pub fn add_user(&self, name: &str, admin: bool) -> String {
        self.add_user_in_groups(name, admin, &[])
    }

    /// A user in these groups; answers a new identity token. A user of that name is changed.
    pub fn add_user_in_groups(&self, name: &str, admin: bool, groups: &[String]) -> String {
        self.change(|state| {
            let user = state.ledger.users.entry(name.to_owned()).or_default();
            user.admin = admin;
            user.groups = groups.to_vec();
            state.ledger.identity_token(name)
        })
    }

    /// A new identity token, good for a year. An unknown name becomes a user, no administrator.
    pub fn identity_token(&self, user: &str) -> String {
        self.change(|state| state.ledger.identity_token(user))
    }

    /// Whether there is a user of this name.
    pub fn knows(&self, user: &str) -> bool {
        self.state().ledger.users.contains_key(user)
    }

    /// Refuses all of the user's bearers with 401; false when there is no such user.
    pub fn disable(&self, user: &str) -> bool {
        self.switch(user, true)
    }

    /// Accepts the user's bearers again, also after a lock; false when there is no such user.
    pub fn enable(&self, user: &str) -> bool {
        self.switch(user, false)
    }

    fn switch(&self, user: &str, disabled: bool) -> bool {
        self.change(|state| {
            let Some(user) = state.ledger.users.get_mut(user) else {
                return false;
            };
            user.disabled = disabled;
            if !disabled {
                user.locked = false;
                user.bad_bearers = 0;
            }
            state.ledger.dirty = true;
            true
        })
    }

    /// Changes the knobs, and answers them as they are then.
    pub fn knobs(&self, change: impl FnOnce(&mut Knobs)) -> Knobs {
        self.change(|state| {
            let before = state.ledger.knobs.clone();
            change(&mut state.ledger.knobs);
            state.ledger.dirty |= state.ledger.knobs != before;
            state.ledger.knobs.clone()
        })
    }

    /// Adds a rule behind those there are.
    pub fn fault(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    /// The rules that are left.
    pub fn faults(&self) -> Vec<Rule> {
        self.state().rules.clone()
    }

    /// Nothing goes wrong any more, but for calls that already met their fault.
    pub fn clear_faults(&self) {
        self.state().rules.clear();
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.change(|state| state.ledger.advance(by));
    }

    /// The simulator's clock, in seconds since 1970.
    pub fn now(&self) -> i64 {
        self.state().ledger.now()
    }

    /// Every token ever made, oldest first, those that are gone too.
    pub fn tokens(&self) -> Vec<TokenView> {
        self.state().ledger.views()
    }

    /// Whether a bearer with this access token (or reference token) would be accepted now.
    pub fn is_alive(&self, access_token: &str) -> bool {
        self.state().ledger.check(access_token).is_ok()
    }

    /// Deletes a token's row and refuses it from now on, revocable or not; false when there is no such token.
    pub fn revoke(&self, token_id: Uuid) -> bool {
        self.change(|state| {
            let Some(index) = state.ledger.with_id(token_id) else {
                return false;
            };
            state.ledger.revoke(index);
            true
        })
    }

    /// Every access, refresh, reference and identity token ever made.
    pub fn secrets(&self) -> Vec<String> {
        self.state().ledger.secrets()
    }

    /// The last 100,000 calls, in the order in which they ended.
    pub fn calls(&self) -> Vec<Call> {
        self.last_calls(usize::MAX)
    }

    /// The last `count` calls, in the order in which they ended.
    pub fn last_calls(&self, count: usize) -> Vec<Call> {
        self.state().calls.last(count)
    }

    /// Totals by route since the start; a route without calls is absent.
    pub fn counters(&self) -> BTreeMap<Route, Counter> {
        self.state().calls.counters()
    }

    /// Refreshes committed since the start, whatever their callers saw.
    pub fn refreshes(&self) -> usize {
        self.state().calls.refreshes()
    }

    /// Refreshes that have arrived and are not answered yet.
    pub fn refreshes_in_flight(&self) -> usize {
        self.state().calls.in_flight()
    }

    /// The most calls that ever were refreshing one refresh token at the same time.
    pub fn max_refreshes_in_flight(&self) -> usize {
        self.state().calls.max_in_flight()
    }

    /// Signs with a new key: all access and reference tokens made so far are refused.
    pub fn rotate_signing_key(&self) {
        // Made before the lock is taken: it takes long.
        match Signer::generate() {
            Ok(signer) => self.change(|state| {
                state.ledger.signer = signer;
                state.ledger.dirty = true;
            }),
            Err(error) => tracing::error!(%error, "the simulator keeps its signing key"),
        }
    }

    /// The public half of the key that signs access tokens, as PKCS#1 PEM.
    pub fn public_key_pem(&self) -> String {
        self.state().ledger.signer.public_pem()
    }
}
