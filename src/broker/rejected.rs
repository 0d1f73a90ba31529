//! "JFrog refuses the token you gave me": JFrog is asked, and a chain that is dead is not handed out again.

use super::{Broker, BrokerError, join::locked_out};
use crate::{
    actor::Actor,
    identity::Team,
    jfrog::Vitality,
    names::Name,
    store::{ChainState, TokenState},
};

impl Broker {
    /// Looks into a caller's word that JFrog refuses `rejected`. Any other id than the current one's is an old token, and no news.
    /// JFrog is asked at most once per few seconds for a token, whoever says so.
    pub(super) async fn look_into(&self, team: &Team, name: &Name, rejected: &str, actor: &Actor) -> Result<(), BrokerError> {
        let Some(view) = self.store.token(team.id, name.as_str()).await? else { return Ok(()) };
        let Some(current) = view.younger().filter(|chain| chain.jfrog_token_id.as_deref() == Some(rejected)) else {
            return Ok(());
        };
        if view.state != TokenState::Registered || locked_out(&view).is_some() || self.recognised.frozen.is_some() {
            return Ok(());
        }
        // Whoever says so meanwhile waits for the same answer.
        let probe = async { self.vitality(&view, current).await == Vitality::Dead };
        if !self.looked_into.get_with(rejected.to_owned(), probe).await {
            return Ok(());
        }
        tracing::warn!(token = view.name, chain = current.letter.as_str(), "the current access token is dead at JFrog");
        // With another chain this one is made anew; without, its refresh token is sent once to find out.
        let alone = view.active().count() == 1;
        let state = if alone { ChainState::Uncertain } else { ChainState::Lost };
        Ok(self.store.give_up_chain(team.id, current, state, actor).await?)
    }
}
