//! What the server remembers: users, tokens, key, clock and knobs.

use super::knobs::Knobs;
use super::signer::Signer;
use super::tokens::{Token, TokenView, Wish, new_reference_token};
use super::users::User;
use rand::distr::{Alphanumeric, SampleString};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

const IDENTITY_LIFETIME_SECONDS: u64 = 365 * 86_400;

/// The simulator's whole memory, and the form of its state file.
#[derive(Serialize, Deserialize)]
pub(super) struct Ledger {
    pub(super) service_id: String,
    pub(super) signer: Signer,
    pub(super) knobs: Knobs,
    pub(super) users: BTreeMap<String, User>,
    /// Every token ever made; one that is gone stays, as the tests' oracle. Changed only through `add` and
    /// in place, so that the indexes below hold.
    pub(super) tokens: Vec<Token>,
    clock_offset_ms: i64,
    #[serde(skip)]
    by_id: HashMap<Uuid, usize>,
    #[serde(skip)]
    by_refresh_token: HashMap<String, usize>,
    #[serde(skip)]
    by_reference_token: HashMap<String, usize>,
    /// Something worth saving changed.
    #[serde(skip)]
    pub(super) dirty: bool,
}

impl Ledger {
    pub(super) fn new(signer: Signer) -> Self {
        let suffix = Alphanumeric.sample_string(&mut rand::rng(), 24);
        Self {
            service_id: format!("jfac@01{}", suffix.to_lowercase()),
            signer,
            knobs: Knobs::default(),
            users: BTreeMap::new(),
            tokens: Vec::new(),
            clock_offset_ms: 0,
            by_id: HashMap::new(),
            by_refresh_token: HashMap::new(),
            by_reference_token: HashMap::new(),
            dirty: true,
        }
    }

    /// Must be called after deserializing: the file holds no indexes.
    pub(super) fn index_all(&mut self) {
        for index in 0..self.tokens.len() {
            self.index(index);
        }
    }

    fn index(&mut self, index: usize) {
        let token = &self.tokens[index];
        self.by_id.insert(token.id, index);
        if let Some(value) = &token.refresh_token {
            self.by_refresh_token.insert(value.clone(), index);
        }
        if let Some(value) = &token.reference_token {
            self.by_reference_token.insert(value.clone(), index);
        }
    }

    pub(super) fn with_id(&self, id: Uuid) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn with_reference_token(&self, value: &str) -> Option<usize> {
        self.by_reference_token.get(value).copied()
    }

    /// The row this refresh token can still refresh.
    pub(super) fn row_of_refresh_token(&self, value: &str) -> Option<usize> {
        let index = self.by_refresh_token.get(value).copied()?;
        self.tokens[index].has_row().then_some(index)
    }

    /// Milliseconds since 1970 on the simulator's clock.
    pub(super) fn now_ms(&self) -> i64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(real.as_millis()).unwrap_or(i64::MAX).saturating_add(self.clock_offset_ms)
    }

    /// Seconds since 1970 on the simulator's clock.
    pub(super) fn now(&self) -> i64 {
        self.now_ms() / 1_000
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.clock_offset_ms = self.clock_offset_ms.saturating_add(by);
        self.dirty = true;
    }

    /// Makes and signs a token; answers its index.
    pub(super) fn add(&mut self, wish: Wish) -> usize {
        let issued_at = self.now();
        let expires_at = wish.lifetime.map(|lifetime| issued_at.saturating_add(i64::try_from(lifetime).unwrap_or(i64::MAX)));
        let mut token = Token {
            id: Uuid::new_v4(),
            user: wish.user,
            scope: wish.scope,
            audience: wish.audience,
            description: wish.description,
            issued_at,
            expires_at,
            force_revocable: wish.force_revocable,
            identity: wish.identity,
            key_id: self.signer.key_id().to_owned(),
            access_token: String::new(),
            refresh_token: wish.refreshable.then(|| Uuid::new_v4().to_string()),
            reference_token: wish.reference.then(|| new_reference_token(expires_at)),
            revoked: false,
            replaced_by: None,
            dies_at: None,
            last_used: None,
        };
        let claims = token.claims(&self.service_id);
        token.access_token = if self.knobs.sign_tokens { self.signer.sign(&claims) } else { self.signer.leave_unsigned(&claims) };
        self.tokens.push(token);
        let index = self.tokens.len() - 1;
        self.index(index);
        self.dirty = true;
        index
    }

    /// A new identity token of the user, who is made if unknown.
    pub(super) fn identity_token(&mut self, user: &str) -> String {
        self.users.entry(user.to_owned()).or_default();
        let index = self.add(Wish {
            user: user.to_owned(),
            scope: "applied-permissions/user".to_owned(),
            audience: "*@*".to_owned(),
            description: format!("Identity token of {user}"),
            lifetime: Some(IDENTITY_LIFETIME_SECONDS),
            refreshable: false,
            reference: false,
            force_revocable: false,
            identity: true,
        });
        self.tokens[index].access_token.clone()
    }

    pub(super) fn revoke(&mut self, index: usize) {
        let now = self.now();
        let token = &mut self.tokens[index];
        token.revoked = true;
        token.dies_at = Some(now);
        self.dirty = true;
    }

    pub(super) fn views(&self) -> Vec<TokenView> {
        self.tokens.iter().enumerate().map(|(index, token)| token.view(self.judge(index).is_ok())).collect()
    }

    /// Every value ever made.
    pub(super) fn secrets(&self) -> Vec<String> {
        self.tokens
            .iter()
            .flat_map(|token| [Some(&token.access_token), token.refresh_token.as_ref(), token.reference_token.as_ref()])
            .flatten()
            .cloned()
            .collect()
    }
}
