//! Making a chain that is missing: with the identity token while a registration is being made, else with the other chain. No
//! human is needed for it.

use super::{
    Broker, BrokerError,
    rotate::{Call, Ended, Plan},
};
use crate::{
    actor::Actor,
    crypto::Place,
    jfrog::Bearer,
    secret::IdentityToken,
    store::{ChainRow, ChainState, TokenView},
};

impl Broker {
    /// Makes a new pair for `chain`. When that was uncertain, its last known token is revoked at JFrog: its holders had their
    /// `reuse_for` before the rotation that went wrong was begun. Whatever else it leaves is the sweep's.
    ///
    /// # Errors
    /// As [`Broker::obtain`].
    pub(super) async fn make_chain(
        &self,
        view: &TokenView,
        chain: &ChainRow,
        kind: &'static str,
        actor: &Actor,
    ) -> Result<Ended, BrokerError> {
        let bearers = self.makers(view, chain).await?;
        self.make_chain_with(bearers, view, chain, kind, actor).await
    }

    /// The same with bearers that are known already.
    pub(super) async fn make_chain_with(
        &self,
        bearers: Vec<Bearer>,
        view: &TokenView,
        chain: &ChainRow,
        kind: &'static str,
        actor: &Actor,
    ) -> Result<Ended, BrokerError> {
        let call = Call::Create(self.create_request(view, chain.letter));
        let plan = Plan { view, chain, kind, call, bearers: bearers.clone(), respect_rotatable_at: false };
        let ended = self.obtain(plan, actor).await?;
        let instance = self.jfrog.instance(Some(&view.instance)).filter(|_| chain.state == ChainState::Uncertain);
        if let (Ended::Committed, Some(id), Some(bearer), Some(instance)) =
            (&ended, &chain.jfrog_token_id, bearers.first(), instance)
        {
            let revoked = self.jfrog.revoke(instance, bearer, id).await;
            tracing::info!(?revoked, jfrog_token_id = id, "revoked what the healed chain had before");
        }
        Ok(ended)
    }

    /// Who may make `chain`: the identity token while there is one, and the chains that work.
    pub(super) async fn makers(&self, view: &TokenView, chain: &ChainRow) -> Result<Vec<Bearer>, BrokerError> {
        let mut bearers = Vec::new();
        if let Some(identity_token) = self.open_identity(view).await? {
            bearers.push(Bearer::Identity(identity_token));
        }
        for other in view.active().filter(|other| other.id != chain.id && view.alive(other, 1)) {
            bearers.push(Bearer::Access(self.open_access(view, other).await?));
        }
        Ok(bearers)
    }

    /// The identity token of a registration that is being made.
    pub(super) async fn open_identity(&self, view: &TokenView) -> Result<Option<IdentityToken>, BrokerError> {
        let Some(sealed) = &view.identity_token else { return Ok(None) };
        let open = self.keys.open_sealed(&self.store, view.team_id, identity_place(view.id), sealed).await?;
        Ok(Some(IdentityToken::new(open.as_str())))
    }
}

/// Where a registration's identity token is sealed for. Its generation is 0: it is there before the first pair only.
pub(super) fn identity_place(token: uuid::Uuid) -> Place<'static> {
    Place { table: "tokens", row: token, column: "identity_token", generation: 0 }
}
