//! Making a chain that is missing: with the identity token while a registration is being made, else with the other chain. No
//! human is needed for it.

use super::{
    Broker, BrokerError,
    plan::{Call, Ended, Plan},
};
use crate::{
    actor::Actor,
    crypto::Place,
    jfrog::Bearer,
    names::Asked,
    secret::IdentityToken,
    store::{ChainRow, JobKind, TokenView},
};

impl Broker {
    /// Makes a new pair for `chain`. What the chain had before, and what a lost answer left at JFrog, is the sweep's.
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
        if kind == "heal" {
            // Before the call: whatever comes of it, what is left over at JFrog is looked for.
            self.store.schedule(JobKind::Sweep, view.id, self.sweep_after(view)).await?;
        }
        let asked = Asked::default();
        self.obtain(
            Plan { view, chain, kind, call, bearers, respect_rotatable_at: false, asked, wanted: None, place: &mut None },
            actor,
        )
        .await
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
