//! Issuing a child token: an access token of its own for one job, made with the younger chain's as bearer. Nothing is spent by it,
//! and rotating the chain does not touch it. Its value is kept nowhere: what is lost on the way is found by its marker and revoked.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Broker, BrokerError, RefreshError,
    join::{Advance, RETRY_AFTER, locked_out},
    narrow::{as_asked, child_request},
    refresh::username,
};
use crate::{
    actor::Actor,
    crypto,
    identity::{Action, Caller, Team},
    jfrog::{Bearer, ChildRequest, Outcome, Pair, Reason, Rejection, Vitality, parse_pair},
    names::Name,
    secret::{AccessToken, ReferenceToken},
    store::{ChainRow, IssuedChild, NewChild, NotIssued, TokenState, TokenView},
};

/// How long a dead or expired parent is waited for.
const MENDING: Duration = Duration::from_secs(15);
/// How much longer than JFrog may take a caller waits for Postgres.
const PATIENCE: Duration = Duration::from_secs(8);
/// Children that are asked of one instance at once, by this process.
pub(super) const AT_ONCE: usize = 64;
/// Seconds a parent must have: JFrog may refuse one a minute before its end (JFROG.md).
const LEFT: i64 = 60;

/// What a job asks for.
#[derive(Clone, Debug)]
pub struct IssueChild {
    /// Seconds; `None`: an hour, or the longest that the registration allows.
    pub expires_in: Option<i64>,
    /// `None`: all that the registration allows.
    pub scope: Option<String>,
    /// `None`: the registration's.
    pub audience: Option<String>,
    /// For people, at JFrog.
    pub description: Option<String>,
    /// Whether a reference token is wanted besides.
    pub include_reference_token: bool,
}

/// A child token as it is handed on.
#[derive(Debug)]
pub struct Issued {
    /// The access token.
    pub access_token: AccessToken,
    /// Where it was asked for.
    pub reference_token: Option<ReferenceToken>,
    /// Seconds left.
    pub expires_in: i64,
    /// The same as a time.
    pub expires_at: time::OffsetDateTime,
    /// Granted scope.
    pub scope: Option<String>,
    /// JFrog's id.
    pub token_id: String,
    /// JFrog's user.
    pub username: Option<String>,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// As in the refresh of a parent that had to be mended first.
    #[error(transparent)]
    Refresh(#[from] RefreshError),
    /// JFrog does not give the token's user what was asked: its words.
    #[error("JFrog refused the request: {0}")]
    Refused(String),
    /// JFrog gave more than was asked: it was revoked.
    #[error("JFrog gave more than was asked: {0}")]
    Wider(String),
    /// JFrog cannot be reached, refuses for now, or its answer was lost.
    #[error("JFrog: {detail}")]
    Unavailable {
        /// For admins.
        detail: String,
        /// When asking again may help.
        retry_after: Duration,
    },
}

impl<E: Into<BrokerError>> From<E> for IssueError {
    fn from(error: E) -> Self {
        Self::Refresh(RefreshError::Broker(error.into()))
    }
}

/// What one call came to.
enum Tried {
    Issued(Pair),
    /// JFrog refuses the parent: it is looked into.
    ParentRefused(String),
}

impl Broker {
    /// Issues a child token. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// See [`IssueError`]. Whatever JFrog made all the same is revoked.
    pub async fn issue(
        &self,
        caller: &Arc<Caller>,
        team: &Team,
        name: &Name,
        asked: IssueChild,
        actor: &Actor,
    ) -> Result<Issued, IssueError> {
        caller.authorise(Action::Refresh, team, Some(name)).map_err(BrokerError::from)?;
        self.not_frozen()?;
        let (broker, caller, team, name, actor) = (self.clone(), Arc::clone(caller), team.clone(), name.clone(), actor.clone());
        let flow = self.spawn(async move { broker.issue_to_the_end(&caller, &team, &name, &asked, &actor).await });
        // As for a refresh: only the kernel notices after many minutes that a Postgres went away without a word.
        match tokio::time::timeout(MENDING + self.timing.jfrog_timeout + PATIENCE, flow).await {
            Ok(done) => done.unwrap_or_else(|_| Err(BrokerError::TaskEnded.into())),
            Err(_) => Err(RefreshError::DatabaseUnavailable.into()),
        }
    }

    async fn issue_to_the_end(
        &self,
        caller: &Caller,
        team: &Team,
        name: &Name,
        asked: &IssueChild,
        actor: &Actor,
    ) -> Result<Issued, IssueError> {
        let deadline = Instant::now() + MENDING;
        let mut looked = false;
        loop {
            let view = self.parent(team, name, deadline, actor).await?;
            let Some(chain) = view.younger() else { return Err(RefreshError::Pending.into()) };
            let id = Uuid::now_v7();
            let description = self.child_description(view.id, id, asked.description.as_deref(), actor);
            let request = child_request(&view, chain, asked, description)?;
            let bearer = Bearer::Access(self.open_access(&view, chain).await?);
            let new = NewChild {
                id,
                token_id: view.id,
                chain_id: chain.id,
                generation: chain.generation,
                credential: caller.credential(),
                expires_in: request.expires_in,
                lease: self.timing.lease,
            };
            match self.store.begin_child(team.id, &new, actor).await? {
                Some(false) => {}
                Some(true) => return Err(BrokerError::LockedDown.into()),
                None if Instant::now() < deadline => continue,
                None => return Err(RefreshError::Pending.into()),
            }
            match self.ask_for_child(&view, &bearer, (id, &request), actor).await? {
                Tried::Issued(pair) => return self.hand_on(caller, &view, chain, (id, &request), pair, actor).await,
                Tried::ParentRefused(detail) if looked => {
                    return Err(IssueError::Unavailable { detail, retry_after: RETRY_AFTER });
                }
                Tried::ParentRefused(_) => {
                    looked = true;
                    self.look_into(team, name, chain.jfrog_token_id.as_deref().unwrap_or_default(), actor).await?;
                }
            }
        }
    }

    /// The token with a younger chain that works: an expired or dead one is healed or refreshed first, once for all who wait.
    async fn parent(&self, team: &Team, name: &Name, deadline: Instant, actor: &Actor) -> Result<TokenView, IssueError> {
        let mut left = LEFT;
        loop {
            // Subscribed before the read: a commit between the two is not missed.
            let mut signals = self.signals.subscribe();
            let view = self.store.token(team.id, name.as_str()).await?;
            let view = view.ok_or_else(|| BrokerError::NotFound(format!("token {name}")))?;
            if let Some(Advance::Unavailable { detail, retry_after }) = locked_out(&view) {
                return Err(IssueError::Unavailable { detail, retry_after });
            }
            if view.state == TokenState::Registered && view.younger().is_some_and(|chain| view.alive(chain, left)) {
                return Ok(view);
            }
            let advance = self.advance((team.id, name.to_string(), false), actor);
            let Ok(advance) = tokio::time::timeout_at(deadline, advance).await else { return Err(RefreshError::Pending.into()) };
            match advance {
                // JFrog may give less than that: what is new is taken as it is, and not rotated again.
                Advance::Changed => left = 1,
                Advance::Elsewhere { uncertain: false } if Instant::now() < deadline => {
                    drop(tokio::time::timeout_at(deadline, self.wake(&mut signals, Some(view.id))).await);
                }
                ended => return Err(ended.into_error(name).into()),
            }
        }
    }

    async fn ask_for_child(
        &self,
        view: &TokenView,
        bearer: &Bearer,
        (id, request): (Uuid, &ChildRequest),
        actor: &Actor,
    ) -> Result<Tried, IssueError> {
        let instance = self.jfrog.instance(Some(&view.instance));
        let instance = instance.ok_or_else(|| BrokerError::UnknownInstance(view.instance.clone()))?;
        let room = match self.issue_room.get(&instance.name) {
            Some(room) => tokio::time::timeout(MENDING, room.acquire()).await.ok().and_then(Result::ok),
            None => None,
        };
        let outcome = match &room {
            Some(_room) => self.jfrog.issue(instance, bearer, request).await,
            None => Outcome::NotSent("too many child tokens are being issued".to_owned()),
        };
        let unavailable = |detail, retry_after| IssueError::Unavailable { detail, retry_after };
        let (what, reason, told) = match outcome {
            Outcome::Applied(body) => match parsed(&body) {
                Ok(pair) => return Ok(Tried::Issued(pair)),
                Err(detail) => (NotIssued::Unknown, detail.clone(), Err(unavailable(detail, RETRY_AFTER))),
            },
            Outcome::Unknown(detail) => (NotIssued::Unknown, detail.clone(), Err(unavailable(detail, RETRY_AFTER))),
            Outcome::NotSent(detail) => (NotIssued::NotMade, detail.clone(), Err(unavailable(detail, RETRY_AFTER))),
            Outcome::Rejected(Rejection { status, reason, message, retry_after }) => {
                let detail = format!("JFrog answered {status}: {message}");
                let told = match reason {
                    Reason::Unauthenticated => Ok(Tried::ParentRefused(detail.clone())),
                    // In an incident JFrog answers 403 to everything: then it has not judged this request.
                    Reason::Forbidden if self.jfrog.me(instance, bearer).await == Vitality::Alive => {
                        Err(IssueError::Refused(detail.clone()))
                    }
                    Reason::BadRequest | Reason::RefreshTokenUnknown => Err(IssueError::Refused(detail.clone())),
                    Reason::Forbidden | Reason::RateLimited => {
                        Err(unavailable(detail.clone(), retry_after.unwrap_or(RETRY_AFTER)))
                    }
                };
                (NotIssued::NotMade, detail, told)
            }
        };
        self.store.child_not_issued(view.team_id, id, &what, &reason, actor).await?;
        told
    }

    /// What JFrog returned is compared with what was asked, recorded, and only then handed on.
    async fn hand_on(
        &self,
        caller: &Caller,
        view: &TokenView,
        chain: &ChainRow,
        (id, request): (Uuid, &ChildRequest),
        pair: Pair,
        actor: &Actor,
    ) -> Result<Issued, IssueError> {
        let unwanted = async |reason: &str| {
            self.store.child_not_issued(view.team_id, id, &NotIssued::Unwanted(pair.token_id.clone()), reason, actor).await
        };
        let (token_id, expires_in) = match as_asked(request, chain, view, &pair) {
            Ok(known) => known,
            Err(wider) => {
                self.revoke_with_itself(view, &pair).await;
                unwanted(&wider).await?;
                return Err(IssueError::Wider(wider));
            }
        };
        // Who has waited is let in anew: a revocation is felt within a second.
        if !self.authentication.still_holds(caller).await? {
            unwanted("the credential was revoked meanwhile").await?;
            return Err(BrokerError::CredentialGone.into());
        }
        let issued = IssuedChild {
            jfrog_token_id: token_id.clone(),
            fingerprint: crypto::fingerprint(pair.access_token.expose()),
            scope: pair.scope.clone(),
            expires_in,
        };
        let Some((expires_at, now)) = self.store.child_issued(view.team_id, id, &issued, actor).await? else {
            self.revoke_with_itself(view, &pair).await;
            unwanted("locked down, or given up meanwhile").await?;
            return Err(BrokerError::LockedDown.into());
        };
        metrics::counter!("token_broker_children_total").increment(1);
        Ok(Issued {
            username: pair.subject.as_deref().or(view.subject.as_deref()).map(username),
            access_token: pair.access_token,
            reference_token: pair.reference_token,
            expires_in: (expires_at - now).whole_seconds(),
            expires_at,
            scope: pair.scope,
            token_id,
        })
    }
}

fn parsed(body: &Zeroizing<Vec<u8>>) -> Result<Pair, String> {
    parse_pair(body).map_err(|error| error.to_string())
}
