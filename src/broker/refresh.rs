//! The refresh flow: hand out what is fresh, or wait for a rotation and hand out its result.

use std::{sync::Arc, time::Duration};

use metrics::counter;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::{sync::broadcast, time::Instant};
use uuid::Uuid;

use super::{
    Broker, BrokerError, RefreshError,
    join::{Advance, Start},
    plan::Wanted,
    sealing::chain_place,
};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Role, Team},
    names::Name,
    secret::{AccessToken, ReferenceToken},
    store::{HandOut, HandOutRule, Signals},
};

/// How much longer than its caller waits for a rotation a refresh may wait for Postgres.
const PATIENCE: Duration = Duration::from_secs(3);

/// A lockdown is felt within a second: for so long what was decided before counts.
const FELT_WITHIN: Duration = Duration::from_millis(500);

/// Of that, for a key service: it is told as what it is.
const KEYS_PATIENCE: Duration = Duration::from_secs(2);

/// What a caller asks for, in seconds.
#[derive(Clone, Debug)]
pub struct Ask {
    /// `None`: the token's effective `reuse_for`.
    pub max_age: Option<i64>,
    /// What must be left.
    pub min_ttl: i64,
    /// How long to wait for a rotation.
    pub wait: Duration,
    /// JFrog's id of a token that JFrog refuses.
    pub rejected_token_id: Option<String>,
}

/// What a caller should know about the token it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warning {
    /// A `ci` caller's `max_age` below `reuse_for` was raised to it.
    MaxAgeRaised,
    /// Less than `min_ttl` is left, and what was handed out must go on working before anything may be rotated.
    ShortLived,
    /// A rotation is under way and took longer than `wait`, or could not be begun or saved yet.
    RefreshPending,
    /// A rotation was sent and its outcome is not known yet.
    RefreshUncertain,
    /// JFrog could not be reached, or refused for now.
    JfrogUnavailable,
}

impl Warning {
    /// As in answers and in the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxAgeRaised => "max-age-raised",
            Self::ShortLived => "short-lived",
            Self::RefreshPending => "refresh-pending",
            Self::RefreshUncertain => "refresh-uncertain",
            Self::JfrogUnavailable => "jfrog-unavailable",
        }
    }
}

/// A token as it is handed out.
#[derive(Debug)]
pub struct HandedOut {
    /// The access token.
    pub access_token: AccessToken,
    /// Where the registration asks for one.
    pub reference_token: Option<ReferenceToken>,
    /// Seconds left; `None`: never expires.
    pub expires_in: Option<i64>,
    /// The same as a time.
    pub expires_at: Option<OffsetDateTime>,
    /// Granted scope.
    pub scope: Option<String>,
    /// JFrog's id.
    pub token_id: Option<String>,
    /// JFrog's user.
    pub username: Option<String>,
    /// Pairs so far.
    pub generation: i64,
    /// Whether this call waited for a rotation.
    pub refreshed: bool,
    /// When the pair was obtained.
    pub refreshed_at: Option<OffsetDateTime>,
    /// What to know about it.
    pub warnings: Vec<Warning>,
}

/// Why nothing newer is to be had: the warning when the current token is still good, the error when it is not.
enum Stuck {
    Pending,
    Uncertain,
    NotDue,
    Failed(String),
    Unavailable { detail: String, retry_after: Duration },
}

impl Stuck {
    /// It was waited for long enough.
    fn waiting(in_doubt: bool) -> Self {
        if in_doubt { Self::Uncertain } else { Self::Pending }
    }
}

impl Broker {
    /// Hands out the token: the current one if it is fresh enough, else the result of a rotation shared by all who wait.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn refresh(
        &self,
        caller: &Arc<Caller>,
        team: &Team,
        name: &Name,
        ask: &Ask,
        actor: &Actor,
    ) -> Result<HandedOut, RefreshError> {
        caller.authorise(Action::Refresh, team, Some(name)).map_err(BrokerError::from)?;
        let (broker, caller, team, name) = (self.clone(), Arc::clone(caller), team.clone(), name.clone());
        let (asked, actor) = (ask.clone(), actor.clone());
        // What does not wait for a rotation is in boxes: thousands who do would each keep room for it.
        // A task, because a statement must not be cancelled half-way; and not for longer than the caller waits, because only the
        // kernel notices after many minutes that a Postgres went away without a word.
        let flow = self.spawn(async move { broker.hand_out_or_wait(&caller, &team, &name, &asked, &actor).await });
        match tokio::time::timeout(ask.wait + PATIENCE, flow).await {
            Ok(Ok(handed)) => handed,
            Ok(Err(_)) => Err(BrokerError::TaskEnded.into()),
            Err(_) => Err(RefreshError::DatabaseUnavailable),
        }
    }

    async fn hand_out_or_wait(
        &self,
        caller: &Arc<Caller>,
        team: &Team,
        name: &Name,
        ask: &Ask,
        actor: &Actor,
    ) -> Result<HandedOut, RefreshError> {
        let deadline = Instant::now() + ask.wait;
        let keys_by = deadline + KEYS_PATIENCE;
        if let Some(rejected) = &ask.rejected_token_id
            && let Ok(looked) = tokio::time::timeout_at(deadline, Box::pin(self.look_into(team, name, rejected, actor))).await
        {
            looked?;
        }
        let ci = caller.role_for(name.as_str()) == Some(Role::Ci);
        let mut rule = HandOutRule { max_age: ask.max_age, raise_max_age: ci, min_ttl: ask.min_ttl, since: None, any_age: false };
        // An admin's explicit max_age is obeyed, even where it cuts short what was handed out (API.md).
        let overrule = !ci && ask.max_age.is_some();
        let (mut seen, mut waited, mut in_doubt) = (None, ask.rejected_token_id.is_some(), false);
        let stuck = loop {
            // Who has waited is let in anew: a revocation is felt within a second.
            if waited && !self.authentication.still_holds(caller).await? {
                return Err(BrokerError::CredentialGone.into());
            }
            // Subscribed before the read: a commit between the two is not missed.
            let mut signals = self.signals.subscribe();
            // What arrives now and wants what is newer than now is not handed what is there: that is only looked at.
            let mut view = match (overrule, rule.max_age, rule.since) {
                (true, Some(0), None) => self.store.token(team.id, name.as_str()).await?.map(Box::new),
                _ => None,
            };
            let found = match &view {
                Some(view) => HandOut::refused(view),
                None => self.store.hand_out(team.id, name.as_str(), &rule, None, actor).await?,
            };
            if let Some(found) = &found {
                if found.handed {
                    return Box::pin(self.answer(team, found, (seen, None), keys_by)).await;
                }
                if found.locked_down {
                    return Err(BrokerError::LockedDown.into());
                }
                // One rotation a request: if what was obtained since it arrived does not live long enough, no other will.
                if rule.since.is_some_and(|since| found.refreshed_at.is_some_and(|at| at > since)) {
                    break Stuck::NotDue;
                }
                seen = seen.or(Some(found.generation));
                // Whatever was obtained since this request arrived is new enough, for `max_age: 0` too.
                rule.since = rule.since.or(Some(found.now));
            }
            let overrule = overrule && found.as_ref().is_none_or(|found| wants_newer(found, &rule));
            waited = true;
            let start = || Start {
                view: view.take().map(|view| *view),
                wanted: Some(Arc::new(Wanted::by(Arc::clone(caller), rule.clone()))),
                place: None,
            };
            let advance = self.advance_for((team.id, name.to_string(), overrule), actor, start);
            let Ok((advance, handed)) = tokio::time::timeout_at(deadline, advance).await else { break Stuck::waiting(in_doubt) };
            in_doubt = matches!(advance, Advance::Elsewhere { uncertain: true });
            if let Some((since, handed)) = handed {
                if !self.authentication.still_holds(caller).await? {
                    return Err(BrokerError::CredentialGone.into());
                }
                // Had it taken longer, a lockdown might be felt too late: it is decided anew.
                if since.elapsed() < FELT_WITHIN {
                    return Box::pin(self.answer(team, &handed, (seen, None), keys_by)).await;
                }
            }
            match advance {
                Advance::Changed => {}
                Advance::Elsewhere { uncertain: true } if found.is_some() => break Stuck::Uncertain,
                Advance::Elsewhere { .. } => {}
                Advance::NotDue { generation } if found.as_ref().is_none_or(|found| found.generation != generation) => {}
                Advance::NotDue { .. } => break Stuck::NotDue,
                Advance::Unavailable { detail, retry_after } => break Stuck::Unavailable { detail, retry_after },
                Advance::Stopping | Advance::JournalUnavailable => break Stuck::Pending,
                Advance::Uncertain => break Stuck::Uncertain,
                Advance::Failed(what) => break Stuck::Failed(what),
                ended @ (Advance::NotFound
                | Advance::Creating
                | Advance::Revoked
                | Advance::Lost(_)
                | Advance::DatabaseUnavailable) => return Err(ended.into_error(name)),
            }
            // What came at the last moment is looked at still.
            if Instant::now() >= deadline && !matches!(advance, Advance::Changed) {
                break Stuck::waiting(in_doubt);
            }
            if matches!(advance, Advance::Elsewhere { .. }) {
                let wake = self.wake(&mut signals, found.map(|found| found.token_id));
                drop(tokio::time::timeout_at(deadline, wake).await);
            }
        };
        if !self.authentication.still_holds(caller).await? {
            return Err(BrokerError::CredentialGone.into());
        }
        Box::pin(self.hand_out_anyway(team, name, rule, (stuck, seen), keys_by, actor)).await
    }

    /// Nothing newer is to be had now: the current token, if it is still good.
    async fn hand_out_anyway(
        &self,
        team: &Team,
        name: &Name,
        rule: HandOutRule,
        (stuck, seen): (Stuck, Option<i64>),
        keys_by: Instant,
        actor: &Actor,
    ) -> Result<HandedOut, RefreshError> {
        let rule = HandOutRule { any_age: true, ..rule };
        // What is older than asked for only because nothing may be rotated yet is good, as long as it lives long enough.
        if matches!(stuck, Stuck::NotDue) {
            let found = self.store.hand_out(team.id, name.as_str(), &rule, None, actor).await?;
            if let Some(found) = found.filter(|found| found.handed) {
                return self.answer(team, &found, (seen, None), keys_by).await;
            }
        }
        let (warning, min_ttl) = match &stuck {
            Stuck::Pending | Stuck::Failed(_) => (Warning::RefreshPending, rule.min_ttl),
            Stuck::Uncertain => (Warning::RefreshUncertain, rule.min_ttl),
            Stuck::NotDue => (Warning::ShortLived, 1),
            Stuck::Unavailable { .. } => (Warning::JfrogUnavailable, rule.min_ttl),
        };
        let rule = HandOutRule { min_ttl, ..rule };
        let found = self.store.hand_out(team.id, name.as_str(), &rule, Some(warning.as_str()), actor).await?;
        if let Some(found) = found.filter(|found| found.handed) {
            return self.answer(team, &found, (seen, Some(warning)), keys_by).await;
        }
        Err(match stuck {
            Stuck::Pending | Stuck::NotDue => RefreshError::Pending,
            Stuck::Failed(what) => RefreshError::Failed(what),
            Stuck::Uncertain => RefreshError::Uncertain,
            Stuck::Unavailable { detail, retry_after } => RefreshError::JfrogUnavailable { detail, retry_after },
        })
    }

    /// Until the token changed hands on another replica, or long enough to look again.
    pub(super) async fn wake(&self, signals: &mut broadcast::Receiver<Signals>, token: Option<Uuid>) {
        let changed = async {
            while let Ok(signal) = signals.recv().await {
                if matches!(signal, Signals::Connected)
                    || matches!(signal, Signals::Token(id) if token.is_none_or(|token| token == id))
                {
                    return;
                }
            }
        };
        drop(tokio::time::timeout(self.timing.poll, changed).await);
    }

    async fn answer(
        &self,
        team: &Team,
        found: &HandOut,
        (seen, warning): (Option<i64>, Option<Warning>),
        keys_by: Instant,
    ) -> Result<HandedOut, RefreshError> {
        let open = |column, sealed| async move {
            let place = chain_place(found.chain_id, column, found.chain_generation);
            self.keys.open_sealed(&self.store, team.id, place, sealed).await
        };
        let sealed = found.access_token.as_ref().ok_or_else(|| BrokerError::NotFound("access token".into()))?;
        self.keys.have_by(keys_by, &self.store, team.id, sealed).await?;
        let access_token = AccessToken::new(open("access_token", sealed).await?.as_str());
        let reference_token = match &found.reference_token {
            Some(sealed) => Some(ReferenceToken::new(open("reference_token", sealed).await?.as_str())),
            None => None,
        };
        let refreshed = seen.is_some_and(|seen| found.generation > seen);
        counter!("token_broker_hand_outs_total", "refreshed" => if refreshed { "true" } else { "false" }).increment(1);
        Ok(HandedOut {
            access_token,
            reference_token,
            expires_in: found.expires_at.map(|at| (at - found.now).whole_seconds()),
            expires_at: found.expires_at,
            scope: found.scope.clone(),
            token_id: found.jfrog_token_id.clone(),
            username: found.subject.as_deref().map(username),
            generation: found.generation,
            refreshed,
            refreshed_at: found.refreshed_at,
            warnings: found.raised.then_some(Warning::MaxAgeRaised).into_iter().chain(warning).collect(),
        })
    }
}

/// Whether it is the age that is not good enough: `min_ttl` alone overrules nothing.
fn wants_newer(found: &HandOut, rule: &HandOutRule) -> bool {
    let since = rule.since.is_none_or(|since| found.refreshed_at.is_none_or(|at| at <= since));
    since && rule.max_age.zip(found.refreshed_at).is_some_and(|(max_age, at)| found.now - at > time::Duration::seconds(max_age))
}

/// The user of `<service id>/users/<name>`; the name may hold `/` and `@`.
pub(super) fn username(subject: &str) -> String {
    subject.split_once("/users/").map_or(subject, |(_, name)| name).to_owned()
}
