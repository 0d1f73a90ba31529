//! Adopting an existing pair: the broker makes its second chain with the pasted access token, then rotates the pasted pair, so
//! that what was pasted is dead.

use uuid::Uuid;

use super::{
    Broker, BrokerError, RegisterError,
    create::{Built, Settings, refusal},
    plan::{Call, Ended, Plan},
};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Team},
    jfrog::{Bearer, Pair, Reason, Revoked},
    names::Asked,
    secret::{AccessToken, RefreshToken},
    store::{ChainState, Letter, NewAttempt, TokenView},
};

/// A pair to be adopted.
#[derive(Clone, Debug)]
pub struct ImportToken {
    /// What the registration says.
    pub settings: Settings,
    /// Pasted.
    pub access_token: AccessToken,
    /// Pasted.
    pub refresh_token: RefreshToken,
}

impl Broker {
    /// Adopts a pair. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn import(
        &self,
        caller: &Caller,
        team: &Team,
        request: ImportToken,
        actor: &Actor,
    ) -> Result<TokenView, RegisterError> {
        caller.authorise(Action::ManageTokens, team, Some(&request.settings.name)).map_err(BrokerError::from)?;
        let (broker, team, actor) = (self.clone(), team.clone(), actor.clone());
        let work = async move {
            let id = Uuid::now_v7();
            let new = broker.new_token(id, &request.settings)?;
            broker.reserve(&team, &new, &actor).await?;
            // The pasted pair becomes chain a as it is: from here on a crash loses nothing.
            let attempt = NewAttempt {
                id: Uuid::now_v7(),
                team_id: team.id,
                token_id: id,
                chain_id: new.chains[0],
                kind: "create",
                seen_generation: 0,
                respect_rotatable_at: false,
                lease: broker.timing.lease,
                replica: broker.replica,
                asked: Asked::default(),
                master_key: None,
            };
            let attempt = broker.store.begin_attempt(&attempt, &actor).await?.ok_or(BrokerError::Busy)?;
            let key = broker.keys.sealing_key(&broker.store, team.id).await?;
            broker
                .commit(&broker.store, &attempt, &Pair::pasted(request.access_token, request.refresh_token), None, key, &actor)
                .await?;
            let built = broker.build(team.id, id, &actor).await?;
            broker.registered(&team, id, built).await
        };
        self.spawn(work).await.unwrap_or(Err(BrokerError::TaskEnded.into()))
    }

    /// The second chain is there, or refused: now the pasted pair is rotated.
    pub(super) async fn finish_import(&self, view: &TokenView, actor: &Actor) -> Result<Built, BrokerError> {
        let pasted = view.active().find(|chain| chain.letter == Letter::A && chain.generation == 1);
        if let Some(pasted) = pasted {
            let bearers = vec![Bearer::Access(self.open_access(view, pasted).await?)];
            let call = Call::Refresh(self.open_refresh(view, pasted).await?);
            let plan = Plan {
                view,
                chain: pasted,
                kind: "rotate",
                call,
                bearers,
                respect_rotatable_at: false,
                asked: Asked::default(),
                wanted: None,
                place: &mut None,
            };
            match self.obtain(plan, actor).await? {
                Ended::Committed | Ended::Superseded => {}
                Ended::NotBegun => return Ok(Built::Pending("something else is under way for this token".to_owned())),
                Ended::NotSent(detail) => return Ok(Built::Pending(detail)),
                Ended::Rejected(rejection) => {
                    if !self.revoke_second(view, actor).await? {
                        return Ok(Built::Pending("JFrog could not be told that the second chain is not needed".to_owned()));
                    }
                    let why = match rejection.reason {
                        Reason::RefreshTokenUnknown => RegisterError::RefreshTokenUnknown(rejection.message),
                        _ => refusal(rejection),
                    };
                    return self.give_up(view, why, actor).await;
                }
                // Uncertain, with the second chain alive: the job heals it. Without one, it says what is wrong.
                Ended::NotRefreshable | Ended::Unknown(_) => {}
            }
        }
        self.complete(view, actor).await
    }

    /// An import that is given up leaves nothing of ours at JFrog; what was pasted is the person's own. `false`: JFrog could not be
    /// told; the chain is not used any more, and the job goes on.
    async fn revoke_second(&self, view: &TokenView, actor: &Actor) -> Result<bool, BrokerError> {
        let mut complete = true;
        for chain in view.active().filter(|chain| chain.letter == Letter::B) {
            let bearer = Bearer::Access(self.open_access(view, chain).await?);
            if let Some((instance, id)) = self.jfrog.instance(Some(&view.instance)).zip(chain.jfrog_token_id.as_deref()) {
                let revoked = self.jfrog.revoke(instance, &bearer, id).await;
                tracing::info!(?revoked, jfrog_token_id = id, "revoked the second chain of an import that failed");
                if !matches!(revoked, Revoked::Gone | Revoked::NotRevocable) {
                    self.store.give_up_chain(view.team_id, chain, ChainState::Lost, actor).await?;
                    complete = false;
                }
            }
        }
        Ok(complete)
    }
}
