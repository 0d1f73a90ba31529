//! From a presented credential to a caller.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, future::Cache};
use uuid::Uuid;

use super::{
    Caller, Held, Identity, IssuerKind, Issuers, Unauthenticated,
    by_identity::{PlatformRule, Rule},
    opaque::{Opaque, OpaqueKind},
};
use crate::{
    actor::Actor,
    crypto,
    secret::PresentedCredential,
    store::{Claims, Store, StoreError},
};

/// Longest credential that is looked at.
const LONGEST: usize = 16 * 1024;

/// How long a revocation may take to be felt, and so how long what was verified holds by itself.
const REMEMBERED: Duration = Duration::from_secs(1);

/// A job is compared with rules that were read earlier: the two must not add up to more.
pub(super) const HALF: Duration = Duration::from_millis(500);

/// How long it is remembered at most, while nobody has changed who may do what (see [`crate::store::Assurance`]). Until then no use
/// is noted.
pub(super) const LONGEST_REMEMBERED: Duration = Duration::from_secs(60);

/// A caller, and how long it may be remembered.
pub(super) type Lasting = (Duration, Caller);

/// An issuer's rules, and when they were read.
pub(super) type RulesRead = (Instant, Arc<[Rule]>);

/// Verifies credentials.
#[derive(Clone)]
pub struct Authentication {
    pub(super) store: Store,
    pub(super) issuers: Issuers,
    pub(super) platform_rules: Arc<[PlatformRule]>,
    recent: Cache<[u8; 32], Verified>,
    jobs: Cache<[u8; 32], Verified>,
    /// Jobs that were let in earlier, compared with the rules once more. Never taken for jobs that show a JWT: theirs was not
    /// verified now.
    again: Cache<[u8; 32], Verified>,
    /// By issuer.
    pub(super) rules: Cache<String, RulesRead>,
    /// What rules learnt just now, by their id.
    pub(super) learnt: Cache<Uuid, Option<Claims>>,
    /// Rules whose use was recorded within the last minute.
    pub(super) touched: Cache<Uuid, ()>,
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authentication")
    }
}

/// A caller, and when its verification began: what was revoked after that was perhaps not seen.
#[derive(Clone)]
struct Verified {
    begun: Instant,
    lasts: Duration,
    caller: Arc<Caller>,
}

/// Counted from when the verification began, however long that took.
struct FromItsBeginning;

impl Expiry<[u8; 32], Verified> for FromItsBeginning {
    fn expire_after_create(&self, _: &[u8; 32], verified: &Verified, _: Instant) -> Option<Duration> {
        Some(verified.lasts.saturating_sub(verified.begun.elapsed()))
    }
}

/// How a credential shows who holds it.
enum Shown {
    Key(Opaque),
    Session(Opaque),
    Jwt,
}

impl Shown {
    fn read(credential: &PresentedCredential) -> Result<Self, Unauthenticated> {
        let text = credential.expose();
        if text.len() > LONGEST {
            return Err(Unauthenticated::UnknownForm);
        }
        match OpaqueKind::of(credential) {
            Some(kind) => {
                let opaque = Opaque::parse(kind, credential).ok_or(Unauthenticated::Malformed)?;
                Ok(if kind == OpaqueKind::ApiKey { Self::Key(opaque) } else { Self::Session(opaque) })
            }
            None if text.contains('.') => Ok(Self::Jwt),
            None => Err(Unauthenticated::UnknownForm),
        }
    }
}

impl Authentication {
    /// Over this store, trusting these issuers; `platform_rules` say which of their identities are platform admins.
    pub fn new(store: Store, issuers: Issuers, platform_rules: Vec<PlatformRule>) -> Self {
        let callers = || Cache::builder().max_capacity(10_000).expire_after(FromItsBeginning).build();
        Self {
            store,
            issuers,
            platform_rules: platform_rules.into(),
            recent: callers(),
            jobs: callers(),
            again: callers(),
            rules: Cache::builder().max_capacity(1_000).time_to_live(LONGEST_REMEMBERED).build(),
            learnt: Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build(),
            touched: Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(60)).build(),
        }
    }

    /// Who holds this credential, in `team` where the request names one. `stranger` stands in the audit where a rule learns from it.
    ///
    /// # Errors
    /// See [`Unauthenticated`].
    pub async fn authenticate(
        &self,
        credential: &PresentedCredential,
        team: Option<&str>,
        stranger: &Actor,
    ) -> Result<Arc<Caller>, Unauthenticated> {
        let of_team = |caller: Arc<Caller>| team.map_or_else(|| Arc::clone(&caller), |team| Arc::new(caller.in_team(team)));
        match Shown::read(credential)? {
            Shown::Key(key) => {
                let found = || self.by_key(&key.public_id, key.sha256);
                self.remembered(&self.recent, key.sha256, found).await.map(of_team)
            }
            Shown::Session(session) => {
                let found = || self.by_session(&session.public_id, session.sha256);
                self.remembered(&self.recent, session.sha256, found).await.map(of_team)
            }
            Shown::Jwt => {
                let sha256 = crypto::sha256(credential.expose().as_bytes());
                let caller = self.remembered(&self.jobs, sha256, || self.by_jwt(credential, sha256)).await?;
                Box::pin(self.admitted(of_team(caller), team, stranger)).await
            }
        }
    }

    /// Whether the credential of a caller that was let in a while ago would let it in now, and as what it was.
    ///
    /// # Errors
    /// Postgres.
    pub async fn still_holds(&self, caller: &Caller) -> Result<bool, StoreError> {
        let found = match &caller.held {
            Held::Key(id) => self.remembered(&self.recent, caller.sha256, || self.by_key(id, caller.sha256)).await,
            Held::Session(id) => self.remembered(&self.recent, caller.sha256, || self.by_session(id, caller.sha256)).await,
            Held::Identity(identity) => {
                let found = || async { self.by_identity(identity, caller.sha256).await.map(|caller| (HALF, caller)) };
                self.remembered(&self.again, caller.sha256, found).await
            }
        };
        match found {
            Ok(now) => {
                Ok(now.platform_admin == caller.platform_admin && caller.rules_of_one_team().all(|rule| now.has_rule(rule)))
            }
            Err(Unauthenticated::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// What is known of an issuer; `None`: it is not trusted.
    pub fn kind_of(&self, issuer: &str) -> Option<IssuerKind> {
        self.issuers.kind_of(issuer)
    }

    /// A JWT verified, for `explain`: nothing is remembered, learnt or used up.
    ///
    /// # Errors
    /// `Jwt`.
    pub async fn identity(&self, credential: &PresentedCredential) -> Result<Identity, Unauthenticated> {
        self.issuers.verify(credential).await.map_err(Unauthenticated::Jwt)
    }

    /// Renews the issuers' keys until `stop`.
    pub async fn keep_fresh(self, stop: tokio_util::sync::CancellationToken) {
        self.issuers.keep_fresh(stop).await;
    }

    /// A credential is verified once in a while, however many show it: who comes meanwhile waits for the same answer.
    async fn remembered<F>(
        &self,
        cache: &Cache<[u8; 32], Verified>,
        sha256: [u8; 32],
        verify: impl FnOnce() -> F + Send,
    ) -> Result<Arc<Caller>, Unauthenticated>
    where
        F: Future<Output = Result<Lasting, Unauthenticated>> + Send,
    {
        let begun = Instant::now();
        if let Some(known) = cache.get(&sha256).await {
            if self.store.assurance().holds(known.begun, REMEMBERED) {
                return Ok(known.caller);
            }
            cache.invalidate(&sha256).await;
        }
        // In a box: it is large, and thousands who wait for something else would each keep room for it.
        let verified = Box::pin(cache.try_get_with(sha256, async {
            verify().await.map(|(lasts, caller)| Verified { begun, lasts, caller: Arc::new(caller) })
        }));
        let verified = verified.await.map(|verified| verified.caller);
        verified.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(|shared| shared.told_again()))
    }
}
